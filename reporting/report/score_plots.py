"""Plots of scores: by day with their noise, and by segment of pools.

Reads `daily_scores` and `segment_scores` of one target; returns `<svg>` elements and the number of
values off their scale. Labels are those of this module, never names of the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from forecasting.evaluation.segments import SegmentScore
from reporting.report.svg import (
    ACCENT,
    BAND,
    GRID,
    INK,
    MUTED,
    Values,
    draw_svg,
    mark_clipped,
    style_axes,
    style_day_axis,
)

# a day or a segment of a few calm pools may have any ratio: larger ones are marked at the edge
RATIO_CLIP = 2.0
# least span of a ratio's axis: TVL forecasts are so close to persistence that a narrower one would
# show noise only
LEAST_SPAN = 0.05
TICK_STEPS = [1, 2, 5, 10]
PLOT_INCHES, ROW_INCHES = 5.1, 0.21

# classes of segments that are drawn, in this order
SEGMENT_TITLES = {"instability": "Volatility", "tvl_class": "TVL", "age_class": "Age in days"}
SEGMENT_LABELS = {
    "calm": "low",
    "wild": "high",
    "<100k": "under $100K",
    "100k-1M": "$100K to $1M",
    "1M-10M": "$1M to $10M",
    "10M+": "over $10M",
} | {
    "<30": "under 30",
    "30-90": "30 to 90",
    "90-365": "90 to 365",
    "365+": "over 365",
}


def coverage_plot(days: pd.DataFrame, level: float, name: str) -> tuple[str, int]:
    """Draws the share of actual values inside the interval."""
    # the axis ends at 100 %, and has room only below the values
    lowest = np.nanmin([*days["coverage"], *days["coverage_low"], level])
    return draw_svg(
        name,
        lambda axes: _draw_days(
            axes, days, "coverage", level, (max(lowest - 0.05, 0.0), 1.0), "{:.0%}"
        ),
    )


def ratio_plot(days: pd.DataFrame, name: str) -> tuple[str, int]:
    """Draws the model's capped errors relative to persistence's."""
    columns = ("capped_ratio", "capped_ratio_low", "capped_ratio_high")
    limits = _ratio_limits(np.concatenate([days[column].to_numpy(float) for column in columns]))
    return draw_svg(
        name,
        lambda axes: _draw_days(axes, days, "capped_ratio", 1.0, limits, "{:.2f}"),
    )


def segment_plot(segments: Sequence[SegmentScore], name: str) -> tuple[str, int]:
    """Draws each segment's MAE ratio with its interval and its number of rows."""
    by_class = []
    for by, title in SEGMENT_TITLES.items():
        by_class.append((title, [segment for segment in segments if segment.by == by]))
    lines = sum(len(members) + 1 for _, members in by_class if members)
    return draw_svg(
        name,
        lambda axes: _draw_segments(axes, by_class),
        (PLOT_INCHES, ROW_INCHES * (lines + 2)),
    )


def _ratio_limits(values: Values) -> tuple[float, float]:
    """Bounds of an axis that contains 1."""
    clipped = np.clip(values[np.isfinite(values)], 0.0, RATIO_CLIP)
    low, high = min(clipped.min(initial=1.0), 1.0), max(clipped.max(initial=1.0), 1.0)
    pad = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    return float(low - pad), float(high + pad)


def _draw_days(
    axes: Axes,
    days: pd.DataFrame,
    measure: str,
    even: float,
    limits: tuple[float, float],
    number_format: str,
) -> int:
    dates = days["target_date"].to_numpy("datetime64[D]")
    today, recent, low, high = (
        days[f"{measure}{part}"].to_numpy(float) for part in ("", "_recent", "_low", "_high")
    )
    axes.fill_between(dates, np.clip(low, *limits), np.clip(high, *limits), color=BAND, linewidth=0)
    axes.axhline(even, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.plot(
        dates,
        np.where((today >= limits[0]) & (today <= limits[1]), today, np.nan),
        linestyle="",
        marker="o",
        markersize=2.6,
        color=MUTED,
    )
    axes.plot(dates, recent, color=ACCENT, linewidth=1.8)
    clipped = mark_clipped(axes, dates, today, *limits, MUTED)
    axes.set_ylim(*limits)
    style_axes(axes, grid="y")
    style_day_axis(axes, dates[-1])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: number_format.format(value).replace("%", " %"))
    )
    return clipped


def _draw_segments(axes: Axes, by_class: list[tuple[str, list[SegmentScore]]]) -> int:
    # x in shares of the axes, y in rows: for texts on either side of the axes
    margin = blended_transform_factory(axes.transAxes, axes.transData)
    labels: list[str] = []
    ratios: list[tuple[float, ...]] = []
    for title, members in by_class:
        if not members:
            continue
        axes.text(
            -0.02,
            len(labels),
            title,
            ha="right",
            va="center",
            transform=margin,
            color=INK,
            fontweight="bold",
        )
        labels.append("")
        for segment in members:
            ends = (segment.mae_ratio, segment.mae_ratio_low, segment.mae_ratio_high)
            # with too few days there is no interval: the segment gets a point without a bar
            ratios.append((len(labels), *(np.nan if end is None else end for end in ends)))
            axes.text(
                1.02,
                len(labels),
                f"{segment.rows:,}",
                ha="left",
                va="center",
                transform=margin,
                color=MUTED,
            )
            labels.append(SEGMENT_LABELS.get(segment.group, segment.group))
    positions, values, low, high = np.array(ratios, dtype=float).T
    left, right = _ratio_limits(np.concatenate([values, low, high]))
    axes.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.hlines(
        positions,
        np.clip(low, left, right),
        np.clip(high, left, right),
        color=ACCENT,
        linewidth=3.5,
        alpha=0.35,
    )
    axes.plot(
        np.clip(values, left, right),
        positions,
        linestyle="",
        marker="o",
        markersize=5,
        color=ACCENT,
    )
    axes.text(1.02, -1, "rows", ha="left", va="center", transform=margin, color=MUTED)
    axes.set_xlim(left, right)
    # the first row is at the top, below the heading of the numbers of rows
    axes.set_ylim(len(labels) - 0.4, -1.4)
    axes.set_yticks(range(len(labels)), labels)
    style_axes(axes, grid="x")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
    axes.spines["bottom"].set_color(GRID)
    return int((values > right).sum())
