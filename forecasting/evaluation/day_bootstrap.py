"""How far the ratio of two forecasts' errors would vary with other days: circular block bootstrap
over as-of days.

Rows of one day share what the market did, so whole days are drawn and never rows; neighbouring days
share it too, so they are drawn in blocks.
Source: Politis and Romano (1992), "A circular block-resampling procedure for stationary data". In:
absolute errors of two forecasts on the same rows and each row's day as its number in time, from 0
without a gap. Out: percentile intervals; None where days are too few, an error is unknown or a
resample has no ratio.
"""

from __future__ import annotations

import math

import numpy as np

from forecasting.evaluation.error_measures import Integers
from forecasting.features.targets import Values

BLOCK_DAYS = 7
"""A week: weekly patterns and the days a market needs to digest a shock stay together, and sixty
days still hold more than eight blocks.
"""
MIN_BLOCKS = 2
"""With fewer the resamples are turns of the same days, and say nothing of others."""
RESAMPLES = 1_000
LEVEL = 0.9
"""Nominal: few blocks make a percentile interval short. Of generated days that know nothing of each
other, it held the true ratio 85 times in 100 with sixty days and 82 with thirty; where a day keeps
0.3 of the day before, 82 and 78 times.
"""
SEED = 20_240_630

Interval = tuple[float, float] | tuple[None, None]


def mean_ratio_interval(errors: Values, reference: Values, days: Integers) -> Interval:
    """Interval of mean(errors) / mean(reference), from the sums of each day."""
    drawn = resample_counts(days)
    if drawn is None or not _known(errors, reference):
        return None, None
    return _percentiles(drawn @ np.bincount(days, errors), drawn @ np.bincount(days, reference))


def median_ratio_interval(errors: Values, reference: Values, days: Integers) -> Interval:
    """Interval of median(errors) / median(reference): the medians of each resample are exact."""
    drawn = resample_counts(days)
    if drawn is None or not _known(errors, reference):
        return None, None
    return _percentiles(
        resampled_medians(errors, days, drawn), resampled_medians(reference, days, drawn)
    )


def resampled_medians(errors: Values, days: Integers, drawn: Values) -> Values:
    """Median of the errors in each resample, in which the rows of day d stand `drawn[resample, d]`
    times.

    Errors are sorted once and cut into stretches of about sqrt(rows). The number of each day's rows
    in each stretch tells, for all resamples in one product, which stretch holds the middle; only
    that one is then counted row by row.
    """
    order = np.argsort(errors, kind="stable")
    ordered, day = errors[order], days[order]
    stride = math.isqrt(len(ordered))
    stretches = math.ceil(len(ordered) / stride)
    place = np.arange(len(ordered)) // stride * drawn.shape[1] + day
    counts = np.bincount(place, minlength=stretches * drawn.shape[1]).reshape(
        stretches, drawn.shape[1]
    )
    reached = drawn @ counts.cumsum(axis=0).T.astype(float)
    rows = reached[:, -1]
    resamples = np.arange(len(drawn))

    def at(rank: Values) -> Values:
        stretch = (reached <= rank[:, None]).sum(axis=1)
        before = np.where(stretch > 0, reached[resamples, stretch - 1], 0.0)
        # the last stretch may be short: what is repeated there lies behind the rank
        rows_of = np.minimum(stretch[:, None] * stride + np.arange(stride), len(ordered) - 1)
        reached_in = before[:, None] + drawn[resamples[:, None], day[rows_of]].cumsum(axis=1)
        return np.asarray(ordered[stretch * stride + (reached_in <= rank[:, None]).sum(axis=1)])

    return np.asarray((at((rows - 1) // 2) + at(rows // 2)) / 2)


def resample_counts(days: Integers) -> Values | None:
    """How often each resample draws each day, (RESAMPLES, days); the same at every call. None with
    fewer than MIN_BLOCKS blocks of days.
    """
    count = int(days.max(initial=-1)) + 1
    if count < MIN_BLOCKS * BLOCK_DAYS:
        return None
    starts = np.random.default_rng(SEED).integers(
        count, size=(RESAMPLES, math.ceil(count / BLOCK_DAYS))
    )
    drawn = (starts[:, :, None] + np.arange(BLOCK_DAYS)).reshape(RESAMPLES, -1)[:, :count] % count
    cells = (np.arange(RESAMPLES)[:, None] * count + drawn).ravel()
    return (
        np.bincount(cells, minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(np.float64)
    )


def _known(*errors: Values) -> bool:
    return all(bool(np.isfinite(one).all()) for one in errors)


def _percentiles(above: Values, below: Values) -> Interval:
    if not (below > 0.0).all():
        return None, None
    low, high = np.quantile(above / below, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return float(low), float(high)
