"""One SVG for each pool: APY that came true, what had been forecast for it with its interval, and
tomorrow's forecast.

In: a row of `figures.pool_series` (APY percent, UTC days). Out: an `<svg>` element as
`svg_pictures` makes them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

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
OUTER_REACH = 1.5
"""The axis reaches to extremes that lie within this many inner ranges of the inner quantiles; what
lies beyond is marked at the edge.
"""


def apy_plot(series: dict[str, Any], number: int) -> tuple[str, int]:
    """The SVG of one pool, and how many observed values lie off its scale. `number` keeps the ids
    of several pictures on one page apart.
    """
    low, high = _limits(series)
    return draw_svg(f"plot{number}", lambda axes: _draw(axes, series, low, high))


def _column(series: dict[str, Any], name: str) -> Values:
    return np.array([_known(day[name]) for day in series["days"]], dtype=float)


def _limits(series: dict[str, Any]) -> tuple[float, float]:
    """Bounds of the axis: all values but extreme ones; tomorrow's forecast and the newest values
    are always inside.
    """
    values = np.concatenate(
        [_column(series, "actual"), _column(series, "forecast"), [series["apy"]]]
    )
    values = values[np.isfinite(values)]
    inner_low, inner_high = np.quantile(values, INNER_QUANTILES)
    reach = OUTER_REACH * (inner_high - inner_low)
    kept = values[(values >= inner_low - reach) & (values <= inner_high + reach)]
    low, high = min(kept.min(), series["apy"]), max(kept.max(), series["apy"])
    below, above = _interval_room(series, low, high)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return (max(low - below - pad, 0.0) if low >= 0.0 else low - below - pad), high + above + pad


def _interval_room(series: dict[str, Any], low: float, high: float) -> tuple[float, float]:
    """How far intervals widen the axis: at most by the range of the values on either side, so that
    a wide one does not flatten the lines.
    """
    lowest = np.nanmin([low, *_column(series, "low"), _known(series["apy_low"])])
    highest = np.nanmax([high, *_column(series, "high"), _known(series["apy_high"])])
    return min(low - lowest, high - low), min(highest - high, high - low)


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def _draw(axes: Axes, series: dict[str, Any], low: float, high: float) -> int:
    dates = np.array([day["date"] for day in series["days"]], dtype="datetime64[D]")
    actual, forecast = _column(series, "actual"), _column(series, "forecast")
    dates, (actual, forecast, lower, upper) = _with_gaps(
        dates, [actual, forecast, _column(series, "low"), _column(series, "high")]
    )
    axes.fill_between(
        dates, np.clip(lower, low, high), np.clip(upper, low, high), color=BAND, linewidth=0
    )
    axes.plot(dates, forecast, color=ACCENT, linewidth=1.3)
    axes.plot(dates, actual, color=INK, linewidth=1.3, marker="o", markersize=1.6)
    _draw_tomorrow(axes, series, low, high)
    clipped = mark_clipped(axes, dates, actual, low, high, INK)
    axes.set_ylim(low, high)
    style_axes(axes, grid="y")
    style_day_axis(axes, series["target_date"])
    _dress_percent(axes, low, high)
    return clipped


def _draw_tomorrow(axes: Axes, series: dict[str, Any], low: float, high: float) -> None:
    day = np.datetime64(series["target_date"])
    if series["apy_low"] is not None and series["apy_high"] is not None:
        axes.plot(
            [day, day],
            np.clip([series["apy_low"], series["apy_high"]], low, high),
            color=ACCENT,
            linewidth=2.4,
            alpha=0.55,
        )
    axes.plot([day], [series["apy"]], linestyle="", marker="o", markersize=5, color=ACCENT)


def _with_gaps(
    dates: npt.NDArray[np.datetime64], columns: list[Values]
) -> tuple[npt.NDArray[np.datetime64], list[Values]]:
    """Every calendar day between the first and the last, NaN where there is no row: a line must not
    bridge a gap.
    """
    if not len(dates):
        return dates, columns
    calendar = np.arange(dates[0], dates[-1] + 1)
    place = (dates - dates[0]).astype(int)
    dense = [np.full(len(calendar), np.nan) for _ in columns]
    for full, column in zip(dense, columns, strict=True):
        full[place] = column
    return calendar, dense


def _dress_percent(axes: Axes, low: float, high: float) -> None:
    """As many digits as tell the ticks apart."""
    axes.yaxis.set_major_locator(MaxNLocator(4))
    ticks = axes.yaxis.get_major_locator().tick_values(low, high)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.{digits}f} %"))
