"""The plot of a pool: actual APY, past forecasts with their intervals, and the next forecast.

Reads a pool of `pool_series` (APY percent, UTC days); returns an `<svg>` element.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reporting.figures.forecasts import PoolSeries
from reporting.report.svg import (
    ACCENT,
    BAND,
    INK,
    Values,
    draw_svg,
    mark_clipped,
    style_axes,
    style_day_axis,
)

INNER_QUANTILES = (0.03, 0.97)
# the axis includes extremes within this many inner ranges of the inner quantiles; values beyond are
# marked at its edge
OUTER_REACH = 1.5


def apy_plot(series: PoolSeries, number: int) -> tuple[str, int]:
    """Draws the plot of one pool.

    Args:
        series: a pool of `pool_series`.
        number: keeps the ids of several plots on one page apart.

    Returns:
        The SVG, and the number of observed values off its scale.
    """
    low, high = _limits(series)
    return draw_svg(f"plot{number}", lambda axes: _draw(axes, series, low, high))


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


def _draw(axes: Axes, series: PoolSeries, low: float, high: float) -> int:
    dates = np.array([day.date for day in series.days], dtype="datetime64[D]")
    actual, forecast = _column(series, "actual"), _column(series, "forecast")
    dates, (actual, forecast, lower, upper) = _with_gaps(
        dates, [actual, forecast, _column(series, "low"), _column(series, "high")]
    )
    axes.fill_between(
        dates, np.clip(lower, low, high), np.clip(upper, low, high), color=BAND, linewidth=0
    )
    axes.plot(dates, forecast, color=ACCENT, linewidth=1.3)
    axes.plot(dates, actual, color=INK, linewidth=1.3, marker="o", markersize=1.6)
    _draw_next_forecast(axes, series, low, high)
    clipped = mark_clipped(axes, dates, actual, low, high, INK)
    axes.set_ylim(low, high)
    style_axes(axes, grid="y")
    style_day_axis(axes, series.pool.target_date)
    _style_percent_axis(axes, low, high)
    return clipped


def _draw_next_forecast(axes: Axes, series: PoolSeries, low: float, high: float) -> None:
    day = np.datetime64(series.pool.target_date)
    if series.pool.apy_low is not None and series.pool.apy_high is not None:
        axes.plot(
            [day, day],
            np.clip([series.pool.apy_low, series.pool.apy_high], low, high),
            color=ACCENT,
            linewidth=2.4,
            alpha=0.55,
        )
    axes.plot([day], [series.apy], linestyle="", marker="o", markersize=5, color=ACCENT)


def _with_gaps(
    dates: npt.NDArray[np.datetime64], columns: list[Values]
) -> tuple[npt.NDArray[np.datetime64], list[Values]]:
    """Every calendar day from the first to the last, NaN where there is no row."""
    if not len(dates):
        return dates, columns
    # without NaN a line would bridge the gap
    calendar = np.arange(dates[0], dates[-1] + 1)
    position = (dates - dates[0]).astype(int)
    dense = [np.full(len(calendar), np.nan) for _ in columns]
    for full, column in zip(dense, columns, strict=True):
        full[position] = column
    return calendar, dense


def _style_percent_axis(axes: Axes, low: float, high: float) -> None:
    """Labels with as many digits as distinguish the ticks."""
    axes.yaxis.set_major_locator(MaxNLocator(4))
    ticks = axes.yaxis.get_major_locator().tick_values(low, high)
    # 1e-9: the logarithm of a step of 0.1 may be a little less than -1
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.{digits}f} %"))
