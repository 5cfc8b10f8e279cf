"""The plot of a pool: actual APY, past forecasts with their intervals, and the next forecast.

Reads a pool of `pool_series` (APY percent, UTC days); returns an `<svg>` element.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reporting.figures.forecasts import PoolSeries
from reporting.report.svg import (
    ACCENT,
    INK,
    Plot,
    Values,
    axis_ticks,
    day_limits,
    label_width,
    tick_step,
)

INNER_QUANTILES = (0.03, 0.97)
# the axis includes extremes within this many inner ranges of the inner quantiles; values beyond are
# marked at its edge
OUTER_REACH = 1.5
MOST_STEPS = 4


def apy_plot(series: PoolSeries) -> tuple[str, int]:
    """Draws the plot of one pool.

    Args:
        series: a pool of `pool_series`.

    Returns:
        The SVG, and the number of observed values off its scale.
    """
    low, high = _limits(series)
    target = _day_numbers([series.pool.target_date])
    days, (actual, forecast, lower, upper) = _with_gaps(
        _day_numbers([day.date for day in series.days]),
        [_column(series, name) for name in ("actual", "forecast", "low", "high")],
    )
    ticks, labels = _percent_axis(low, high)
    every_day = np.concatenate([days, target])
    plot = Plot(day_limits(every_day), (low, high), left=label_width(labels))
    plot.rows(ticks, labels)
    plot.days(int(every_day.min()), int(every_day.max()))
    plot.band(days, lower, upper)
    plot.line(days, forecast, ACCENT, 1.3)
    plot.line(days, actual, INK, 1.3)
    plot.points(days, actual, INK, 2.6)
    _draw_next_forecast(plot, series, target)
    clipped = plot.mark_clipped(days, actual, INK)
    return plot.svg(), clipped


def _day_numbers(days: Sequence[dt.date]) -> npt.NDArray[np.int64]:
    """Days since 1970-01-01."""
    return np.array(days, dtype="datetime64[D]").astype(np.int64)


def _column(series: PoolSeries, name: str) -> Values:
    return np.array([_number(getattr(day, name)) for day in series.days], dtype=float)


def _limits(series: PoolSeries) -> tuple[float, float]:
    """Bounds of the axis: all values but extremes; the next forecast is always inside."""
    values = np.concatenate([_column(series, "actual"), _column(series, "forecast"), [series.apy]])
    values = values[np.isfinite(values)]
    inner_low, inner_high = np.quantile(values, INNER_QUANTILES)
    reach = OUTER_REACH * (inner_high - inner_low)
    usual = values[(values >= inner_low - reach) & (values <= inner_high + reach)]
    low, high = min(usual.min(), series.apy), max(usual.max(), series.apy)
    below, above = _interval_room(series, low, high)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return (max(low - below - pad, 0.0) if low >= 0.0 else low - below - pad), high + above + pad


def _interval_room(series: PoolSeries, low: float, high: float) -> tuple[float, float]:
    """Room for intervals below and above: at most the range of the values on either side."""
    # a wide interval must not flatten the lines
    lowest = np.nanmin([low, *_column(series, "low"), _number(series.pool.apy_low)])
    highest = np.nanmax([high, *_column(series, "high"), _number(series.pool.apy_high)])
    return min(low - lowest, high - low), min(highest - high, high - low)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _draw_next_forecast(plot: Plot, series: PoolSeries, target: npt.NDArray[np.int64]) -> None:
    low, high = series.pool.apy_low, series.pool.apy_high
    if low is not None and high is not None:
        plot.line(np.repeat(target, 2), np.array([low, high]), ACCENT, 2.4, opacity=0.55)
    plot.points(target, np.array([series.apy]), ACCENT, 6.0)


def _with_gaps(
    days: npt.NDArray[np.int64], columns: list[Values]
) -> tuple[npt.NDArray[np.int64], list[Values]]:
    """Every day from the first to the last, NaN where there is no row."""
    if not len(days):
        return days, columns
    # without NaN a line would bridge the gap
    every_day = np.arange(days[0], days[-1] + 1)
    dense = [np.full(len(every_day), np.nan) for _ in columns]
    for full, column in zip(dense, columns, strict=True):
        full[days - days[0]] = column
    return every_day, dense


def _percent_axis(low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks, and labels with as many digits as distinguish them."""
    digits = max(0, -math.floor(math.log10(tick_step(low, high, MOST_STEPS)) + 1e-9))
    ticks = axis_ticks(low, high, MOST_STEPS)
    return ticks, [f"{tick:,.{digits}f} %" for tick in ticks]
