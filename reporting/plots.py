"""One SVG for each pool: APY that came true, what had been forecast for it with its interval, and tomorrow's forecast.

In: a row of `figures.pool_series` (APY percent, UTC days). Out: an `<svg>` element to stand inside HTML, without any reference outside the page and
without any text of the data: pool names stay in the page, where they are escaped. Colours are CSS variables, so that one picture is right on dark and
on light. matplotlib draws into Figure objects; pyplot and its global state are not used.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import re
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import ConciseDateFormatter, MonthLocator, WeekdayLocator
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Values = npt.NDArray[np.float64]

FIGURE_INCHES = (5.1, 2.5)
"""About as wide as a card of the page: letters are drawn at their own size."""

INK, MUTED, GRID, ACCENT, BAND = "#010203", "#010204", "#010205", "#010206", "#010207"
CSS_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", BAND: "--band"}
"""matplotlib knows no CSS variables: it draws in colours that nothing else has, and each is put in place of the other afterwards."""

INNER_QUANTILES = (0.03, 0.97)
OUTER_REACH = 1.5
"""The axis reaches to extremes that lie within this many inner ranges of the inner quantiles; what lies beyond is marked at the edge."""


def apy_plot(series: dict[str, Any], number: int) -> tuple[str, int]:
    """The SVG of one pool, and how many observed values lie off its scale. `number` keeps the ids of several pictures on one page apart."""
    low, high = _limits(series)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"yieldspark-{number}", "font.size": 9, "path.simplify": True}):
        figure = Figure(figsize=FIGURE_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        clipped = _draw(axes, series, low, high)
        _dress(axes, series["target_date"], low, high)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(drawn.getvalue(), number), clipped


def _column(series: dict[str, Any], name: str) -> Values:
    return np.array([_known(day[name]) for day in series["days"]], dtype=float)


def _limits(series: dict[str, Any]) -> tuple[float, float]:
    """Bounds of the axis: all values but extreme ones; tomorrow's forecast and the newest values are always inside."""
    values = np.concatenate([_column(series, "actual"), _column(series, "forecast"), [series["apy"]]])
    values = values[np.isfinite(values)]
    inner_low, inner_high = np.quantile(values, INNER_QUANTILES)
    reach = OUTER_REACH * (inner_high - inner_low)
    kept = values[(values >= inner_low - reach) & (values <= inner_high + reach)]
    low, high = min(kept.min(), series["apy"]), max(kept.max(), series["apy"])
    below, above = _interval_room(series, low, high)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return (max(low - below - pad, 0.0) if low >= 0.0 else low - below - pad), high + above + pad


def _interval_room(series: dict[str, Any], low: float, high: float) -> tuple[float, float]:
    """How far intervals widen the axis: at most by the range of the values on either side, so that a wide one does not flatten the lines."""
    lowest = np.nanmin([low, *_column(series, "low"), _known(series["apy_low"])])
    highest = np.nanmax([high, *_column(series, "high"), _known(series["apy_high"])])
    return min(low - lowest, high - low), min(highest - high, high - low)


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def _draw(axes: Axes, series: dict[str, Any], low: float, high: float) -> int:
    dates = np.array([day["date"] for day in series["days"]], dtype="datetime64[D]")
    actual, forecast = _column(series, "actual"), _column(series, "forecast")
    dates, (actual, forecast, lower, upper) = _with_gaps(dates, [actual, forecast, _column(series, "low"), _column(series, "high")])
    axes.fill_between(dates, np.clip(lower, low, high), np.clip(upper, low, high), color=BAND, linewidth=0)
    axes.plot(dates, forecast, color=ACCENT, linewidth=1.3)
    axes.plot(dates, actual, color=INK, linewidth=1.3, marker="o", markersize=1.6)
    _draw_tomorrow(axes, series, low, high)
    above, below = actual > high, actual < low
    axes.plot(dates[above], np.full(above.sum(), high), linestyle="", marker=6, markersize=6, color=INK, clip_on=False)
    axes.plot(dates[below], np.full(below.sum(), low), linestyle="", marker=7, markersize=6, color=INK, clip_on=False)
    return int(above.sum() + below.sum())


def _draw_tomorrow(axes: Axes, series: dict[str, Any], low: float, high: float) -> None:
    day = np.datetime64(series["target_date"])
    if series["apy_low"] is not None and series["apy_high"] is not None:
        axes.plot([day, day], np.clip([series["apy_low"], series["apy_high"]], low, high), color=ACCENT, linewidth=2.4, alpha=0.55)
    axes.plot([day], [series["apy"]], linestyle="", marker="o", markersize=5, color=ACCENT)


def _with_gaps(dates: npt.NDArray[np.datetime64], columns: list[Values]) -> tuple[npt.NDArray[np.datetime64], list[Values]]:
    """Every calendar day between the first and the last, NaN where there is no row: a line must not bridge a gap."""
    if not len(dates):
        return dates, columns
    calendar = np.arange(dates[0], dates[-1] + 1)
    place = (dates - dates[0]).astype(int)
    dense = [np.full(len(calendar), np.nan) for _ in columns]
    for full, column in zip(dense, columns, strict=True):
        full[place] = column
    return calendar, dense


def _dress(axes: Axes, last: dt.date, low: float, high: float) -> None:
    axes.set_ylim(low, high)
    axes.margins(x=0.02)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=MUTED)
    axes.tick_params(axis="x", length=3, color=GRID)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    ticks = axes.yaxis.get_major_locator().tick_values(low, high)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.{digits}f} %"))
    first = axes.dataLim.intervalx[0]
    span = float(np.datetime64(last).astype(float)) - first
    locator = MonthLocator() if span > 45 else WeekdayLocator(interval=1 if span < 21 else 2)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]


def _inline(svg: str, number: int) -> str:
    """From a file of its own to an element of the page: no prologue, no namespaces, colours by variable, ids of its own."""
    opening, rest = svg[svg.index("<svg") :].split(">", 1)
    view_box = opening[opening.index('viewBox="') :].split('"')[1]
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r'\bid="', f'id="plot{number}-', rest)
    rest = re.sub(r'(href="|url\()#', rf"\1#plot{number}-", rest)
    for colour, variable in CSS_VARIABLES.items():
        rest = rest.replace(colour, f"var({variable})")
    return f'<svg viewBox="{view_box}" aria-hidden="true" focusable="false">{rest}'
