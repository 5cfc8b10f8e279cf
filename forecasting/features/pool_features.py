"""Scales, baselines and features of a pool from its own history, for training and prediction alike.

Reads a `PoolHistory`; returns arrays of its shape by name. SCALES are in APY points and log1p(USD),
BASELINES in percent and USD; POOL_FEATURES have no unit. Nothing after the as-of day is read,
windows have at most 90 days, and features of other pools are in `cross_section`.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from common.horizons import NEXT_DAY
from forecasting.features import rolling_windows as rolling
from forecasting.features.pool_history import Observed, PoolHistory
from forecasting.features.rolling_windows import Days
from forecasting.features.targets import apy_size, asinh_level

LONGEST_WINDOW_DAYS = 90

# scales: a larger distance says no more than "very large", and would dominate the day's means
MOVE_LIMIT = 50.0
SLOPE_LIMIT = 8.0
SPIKE_SCALES = 5.0
NO_CHANGE = 1e-9
APY_FLOOR, APY_RELATIVE_FLOOR, TVL_FLOOR = 0.001, 0.002, 0.001
SCALE_HALF_LIFE_DAYS, SCALE_WINDOW_DAYS, SCALE_CUT, MIN_MOVES = 10.0, 60, 4.0, 3
# a slope is shrunk towards zero as if ten more moves of one scale had followed nothing
SLOPE_DAYS, SLOPE_SHRINKAGE = 60, 10.0
NAIVE_DAYS, MIN_NAIVE_MOVES = 60, 20

MEANS, MEDIANS, EXTREMES, HALF_LIVES, FAR_LAGS = (
    (3, 7, 14, 30, 90),
    (5, 7, 14, 30, 90),
    (7, 30),
    (1, 3, 10),
    (7, 14),
)
APY_MOVES = tuple(f"apy_move_{lag}" for lag in range(7))
APY_DISTANCES = (
    *(f"apy_mean_gap_{days}" for days in MEANS),
    *(f"apy_median_gap_{days}" for days in MEDIANS),
    *(f"apy_{end}_gap_{days}" for days, end in product(EXTREMES, ("lowest", "highest"))),
    *(f"apy_exponential_gap_{half_life}" for half_life in HALF_LIVES),
    *(f"apy_gap_{lag}" for lag in FAR_LAGS),
)
APY_VOLATILITY = (
    "apy_std_7",
    "apy_std_30",
    *(f"apy_abs_move_{days}" for days in (7, 30, 90)),
    "apy_still_share_7",
    "apy_still_share_30",
)
APY_SLOPES = tuple(
    f"apy_{cause}_{kind}"
    for cause, kind in product(("momentum", "reversion_7", "reversion_30"), ("slope", "step"))
)
APY_SPIKES = ("apy_spike", "apy_spike_yesterday", "apy_spike_share_30")
APY_LEVEL = ("apy_level", "apy_scale_relative")
APY_FEATURES = (*APY_MOVES, *APY_DISTANCES, *APY_VOLATILITY, *APY_SLOPES, *APY_SPIKES, *APY_LEVEL)
TVL_FEATURES = (
    "tvl_level",
    *(f"tvl_move_{lag}" for lag in range(4)),
    "tvl_change_7",
    "tvl_change_30",
    *(f"tvl_mean_gap_{days}" for days in (3, 7, 30)),
    "tvl_median_gap_7",
    "tvl_std_7",
    "tvl_std_30",
    "tvl_abs_move_30",
    "tvl_scale_level",
    "flow_gap",
)
CALENDAR = ("age_days", "observed_30", "days_since_observed", "weekday")
POOL_FEATURES = (*APY_FEATURES, *TVL_FEATURES, *CALENDAR)

SCALES = ("apy_scale", "tvl_scale")
BASELINES = tuple(
    f"{target}_{name}"
    for target, name in product(
        ("apy", "tvl"), ("median_7", "reverted", "naive_low", "naive_high", "mean_abs_change")
    )
)
LEVELS = ("apy_lowest_30",)


def pool_features(history: PoolHistory, level: float, horizon: int = NEXT_DAY) -> dict[str, Days]:
    """Computes SCALES, BASELINES, LEVELS and POOL_FEATURES.

    Args:
        level: nominal coverage of the naive interval, 0 to 1.
        horizon: days that the baselines forecast ahead; nothing else depends on it.

    Returns:
        Arrays of shape (pools, days) by name; NaN where a value is unknown.
    """
    apy, log_tvl = history.apy, np.log1p(history.tvl)
    moves, tvl_moves = _moves(apy, history.apy_observed), _moves(log_tvl, history.tvl_observed)
    scale = _scale(moves, apy, history.apy_observed, APY_FLOOR + APY_RELATIVE_FLOOR * np.abs(apy))
    tvl_scale = _scale(tvl_moves, log_tvl, history.tvl_observed, np.full_like(apy, TVL_FLOOR))
    features = {"apy_scale": scale, "tvl_scale": tvl_scale}
    features |= _apy_features(apy, moves, scale)
    features |= _tvl_features(log_tvl, tvl_moves, tvl_scale)
    features |= {"flow_gap": _in_scales(scale, _flow(history) - apy)}
    features |= _calendar(history)
    ahead = _moves(apy, history.apy_observed, horizon)
    features |= _baselines("apy", apy, ahead, scale, level, horizon)
    features |= {"apy_mean_abs_change": rolling.mean(np.abs(moves), 90)}
    ahead = _moves(log_tvl, history.tvl_observed, horizon)
    logarithmic = _baselines("tvl", log_tvl, ahead, tvl_scale, level, horizon)
    features |= {name: np.expm1(values) for name, values in logarithmic.items()}
    changes = _moves(history.tvl, history.tvl_observed)
    return features | {"tvl_mean_abs_change": rolling.mean(np.abs(changes), 90)}


def _moves(level: Days, observed: Observed, days: int = 1) -> Days:
    """Moves of some days between observed days; a carried value's move of zero is no
    information.
    """
    observed_level = np.where(observed, level, np.nan)
    moves: Days = observed_level - rolling.lag(observed_level, days)
    return moves


def _scale(moves: Days, level: Days, observed: Observed, floor: Days) -> Days:
    """The mean size of one-day moves, or of moves over gaps while there are too few of those."""
    scale = _mean_size(np.abs(moves), floor)
    # a pool that is never observed on two days in a row has no one-day move; every pool lacks a
    # scale on its first three observed days
    has_gaps = np.count_nonzero(np.isnan(scale) & observed, axis=1) > MIN_MOVES
    if has_gaps.any():
        over_gaps = _mean_size(
            _sizes_over_gaps(level[has_gaps], observed[has_gaps]), floor[has_gaps]
        )
        scale[has_gaps] = np.where(np.isnan(scale[has_gaps]), over_gaps, scale[has_gaps])
    return scale


def _mean_size(size: Days, floor: Days) -> Days:
    """Exponential mean of the sizes, never under the floor; NaN with fewer than MIN_MOVES."""
    # a spike counts as SCALE_CUT upper quartiles at most
    (upper_quartile,) = rolling.quantiles(size, SCALE_WINDOW_DAYS, [0.75])
    mean = rolling.exponential_mean(
        np.minimum(size, SCALE_CUT * upper_quartile + floor), SCALE_HALF_LIFE_DAYS
    )
    is_enough = np.cumsum(~np.isnan(size), axis=1) >= MIN_MOVES
    return np.where(is_enough, np.maximum(mean, floor), np.nan)


def _sizes_over_gaps(level: Days, observed: Observed) -> Days:
    """Size of each move over a gap, as that of one day."""
    has_value = observed & ~np.isnan(level)
    day = np.broadcast_to(np.arange(level.shape[1]), level.shape)
    before = np.full(level.shape, -1)
    before[:, 1:] = np.maximum.accumulate(np.where(has_value, day, -1), axis=1)[:, :-1]
    gap = (day - before).astype(float)
    # after n days a random walk is as far as the root of n
    size = np.abs(level - np.take_along_axis(level, np.maximum(before, 0), axis=1)) / np.sqrt(gap)
    return np.where(has_value & (before >= 0), size, np.nan)


def _in_scales(scale: Days, distance: Days) -> Days:
    # divided by the pool's own scale, a calm pool and one at 355,083 % fit one model
    return np.clip(distance / scale, -MOVE_LIMIT, MOVE_LIMIT)


def _apy_features(apy: Days, moves: Days, scale: Days) -> dict[str, Days]:
    size = np.abs(moves)
    still = np.where(np.isnan(moves), np.nan, size < NO_CHANGE)
    spike = np.where(np.isnan(moves / scale), np.nan, size > SPIKE_SCALES * scale)
    distances = {
        **{f"apy_move_{lag}": rolling.lag(moves, lag) for lag in range(7)},
        **{f"apy_mean_gap_{days}": rolling.mean(apy, days) - apy for days in MEANS},
        **{f"apy_median_gap_{days}": rolling.median(apy, days) - apy for days in MEDIANS},
        **{f"apy_lowest_gap_{days}": rolling.lowest(apy, days) - apy for days in EXTREMES},
        **{f"apy_highest_gap_{days}": rolling.highest(apy, days) - apy for days in EXTREMES},
        **{
            f"apy_exponential_gap_{half_life}": rolling.exponential_mean(apy, half_life) - apy
            for half_life in HALF_LIVES
        },
        **{f"apy_gap_{lag}": rolling.lag(apy, lag) - apy for lag in FAR_LAGS},
        **{f"apy_std_{days}": rolling.deviation(apy, days) for days in (7, 30)},
        **{f"apy_abs_move_{days}": rolling.mean(size, days) for days in (7, 30, 90)},
    }
    return {
        **{name: _in_scales(scale, distance) for name, distance in distances.items()},
        **_slopes(apy, moves, scale),
        **{f"apy_still_share_{days}": rolling.mean(still, days) for days in (7, 30)},
        "apy_spike": spike,
        "apy_spike_yesterday": rolling.lag(spike, 1),
        "apy_spike_share_30": rolling.mean(spike, 30),
        "apy_level": asinh_level(apy),
        "apy_scale_relative": np.log(scale / apy_size(apy)),
        "apy_lowest_30": rolling.lowest(apy, 30),
    }


def _slopes(apy: Days, moves: Days, scale: Days) -> dict[str, Days]:
    """Slopes of a move on the previous move and on the distance from two means."""
    # least squares through the origin with a ridge (Hoerl & Kennard 1970), in scales:
    # sum(x y) / (sum(x x) + SLOPE_SHRINKAGE)
    unit = np.clip(moves / scale, -SLOPE_LIMIT, SLOPE_LIMIT)
    causes = {
        "momentum": unit,
        **{
            f"reversion_{days}": np.clip(
                (rolling.mean(apy, days) - apy) / scale, -SLOPE_LIMIT, SLOPE_LIMIT
            )
            for days in (7, 30)
        },
    }
    slopes: dict[str, Days] = {}
    for name, cause in causes.items():
        slope = _slope(unit, cause)
        slopes |= {f"apy_{name}_slope": slope, f"apy_{name}_step": slope * np.nan_to_num(cause)}
    return slopes


def _slope(unit: Days, cause: Days, days: int = 1) -> Days:
    """Slope of moves of some days on the cause at their start."""
    before = rolling.lag(cause, days)
    has_both = ~np.isnan(unit) & ~np.isnan(before)
    products, squares = (
        rolling.total(np.where(has_both, values, np.nan), SLOPE_DAYS)
        for values in (unit * before, before * before)
    )
    slope: Days = products / (squares + SLOPE_SHRINKAGE)
    return slope


def _tvl_features(level: Days, moves: Days, scale: Days) -> dict[str, Days]:
    distances = {
        **{f"tvl_move_{lag}": rolling.lag(moves, lag) for lag in range(4)},
        **{f"tvl_change_{lag}": level - rolling.lag(level, lag) for lag in (7, 30)},
        **{f"tvl_mean_gap_{days}": rolling.mean(level, days) - level for days in (3, 7, 30)},
        "tvl_median_gap_7": rolling.median(level, 7) - level,
        **{f"tvl_std_{days}": rolling.deviation(level, days) for days in (7, 30)},
        "tvl_abs_move_30": rolling.mean(np.abs(moves), 30),
    }
    return {
        "tvl_level": level,
        "tvl_scale_level": np.log(scale),
        **{name: _in_scales(scale, distance) for name, distance in distances.items()},
    }


def _flow(history: PoolHistory) -> Days:
    """The APY at which today's TVL would earn the pool's recent daily payment; NaN without TVL."""
    with np.errstate(invalid="ignore", divide="ignore"):
        flow = rolling.median(history.apy * history.tvl, 7) / history.tvl
    return np.where(history.tvl > 0.0, flow, np.nan)


def _calendar(history: PoolHistory) -> dict[str, Days]:
    shape = history.apy.shape
    is_observed = history.apy_observed | history.tvl_observed
    age = np.cumsum(np.cumsum(is_observed, axis=1) > 0, axis=1)
    return {
        "age_days": np.minimum(age, LONGEST_WINDOW_DAYS).astype(float),
        "observed_30": rolling.total(history.apy_observed.astype(float), 30),
        # fmin replaces NaN by the limit: "longer ago" and "never" must look alike, because they
        # would differ by the day on which the history starts
        "days_since_observed": np.fmin(
            rolling.days_since(history.apy_observed), LONGEST_WINDOW_DAYS
        ),
        # 1970-01-01, day 0, was a Thursday: Monday is 0
        "weekday": np.broadcast_to((history.days + 3) % 7, shape).astype(float),
    }


def _baselines(
    name: str, level: Days, moves: Days, scale: Days, coverage: float, horizon: int
) -> dict[str, Days]:
    """Baselines in level: 7-day median, shrunk mean reversion and the naive interval.

    `moves` are those of `horizon` days.
    """
    gap = rolling.mean(level, 30) - level
    slope = np.clip(_slope(moves / scale, gap / scale, horizon), 0.0, 1.0)
    tail = (1.0 - coverage) / 2.0
    is_enough = rolling.count(moves, NAIVE_DAYS) >= MIN_NAIVE_MOVES
    # outer quantiles of the pool's last moves around today's value
    low, high = (
        np.where(is_enough, level + move, np.nan)
        for move in rolling.quantiles(moves, NAIVE_DAYS, [tail, 1.0 - tail])
    )
    reverted = level + np.nan_to_num(slope * gap)
    return {
        f"{name}_median_7": rolling.median(level, 7),
        f"{name}_reverted": reverted,
        f"{name}_naive_low": low,
        f"{name}_naive_high": high,
    }
