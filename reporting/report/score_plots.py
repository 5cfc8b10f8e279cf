"""Plots of scores: by day with their noise, and by segment of pools.

Reads `daily_scores` and `segment_scores` of one target; returns `<svg>` elements and the number of
values off their scale. Labels are those of this module, never names of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from forecasting.evaluation.segments import SegmentScore
from reporting.report.svg import (
    ACCENT,
    BOTTOM,
    INK,
    MUTED,
    TOP,
    Plot,
    Values,
    axis_ticks,
    day_limits,
    label_width,
)

if TYPE_CHECKING:
    import pandas as pd

# a day or a segment of a few calm pools may have any ratio: larger ones are marked at the edge
RATIO_CLIP = 2.0
# least span of a ratio's axis: TVL forecasts are so close to persistence that a narrower one would
# show noise only
LEAST_SPAN = 0.05
MOST_STEPS = 5
ROW_HEIGHT = 15.0
DASHES = "4 3"

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


def coverage_plot(days: pd.DataFrame, level: float) -> tuple[str, int]:
    """Draws the share of actual values inside the interval."""
    # the axis ends at 100 %, and has room only below the values
    lowest = np.nanmin([*days["coverage"], *days["coverage_low"], level])
    return _draw_days(days, "coverage", level, (max(lowest - 0.05, 0.0), 1.0), "{:.0%}")


def ratio_plot(days: pd.DataFrame) -> tuple[str, int]:
    """Draws the model's capped errors relative to persistence's."""
    columns = ("capped_ratio", "capped_ratio_low", "capped_ratio_high")
    limits = _ratio_limits(np.concatenate([days[column].to_numpy(float) for column in columns]))
    return _draw_days(days, "capped_ratio", 1.0, limits, "{:.2f}")


def segment_plot(segments: Sequence[SegmentScore]) -> tuple[str, int]:
    """Draws each segment's MAE ratio with its interval and its number of rows."""
    by_class = []
    for by, title in SEGMENT_TITLES.items():
        by_class.append((title, [segment for segment in segments if segment.by == by]))
    return _draw_segments([(title, members) for title, members in by_class if members])


def _ratio_limits(values: Values) -> tuple[float, float]:
    """Bounds of an axis that contains 1."""
    clipped = np.clip(values[np.isfinite(values)], 0.0, RATIO_CLIP)
    low, high = min(clipped.min(initial=1.0), 1.0), max(clipped.max(initial=1.0), 1.0)
    pad = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    return float(low - pad), float(high + pad)


def _draw_days(
    days: pd.DataFrame,
    measure: str,
    even: float,
    limits: tuple[float, float],
    number_format: str,
) -> tuple[str, int]:
    numbers = days["target_date"].to_numpy("datetime64[D]").astype(np.int64)
    today, recent, low, high = (
        days[f"{measure}{part}"].to_numpy(float) for part in ("", "_recent", "_low", "_high")
    )
    ticks = axis_ticks(*limits, MOST_STEPS)
    labels = [number_format.format(tick).replace("%", " %") for tick in ticks]
    edges = day_limits(numbers)
    plot = Plot(edges, limits, left=label_width(labels))
    plot.rows(ticks, labels)
    plot.days(int(numbers[0]), int(numbers[-1]))
    plot.band(numbers, low, high)
    plot.line(np.array(edges), np.array([even, even]), INK, 1.0, dashes=DASHES)
    plot.points(numbers, today, MUTED, 3.6)
    plot.line(numbers, recent, ACCENT, 1.8)
    clipped = plot.mark_clipped(numbers, today, MUTED)
    return plot.svg(), clipped


def _draw_segments(by_class: Sequence[tuple[str, Sequence[SegmentScore]]]) -> tuple[str, int]:
    shown = list(chain.from_iterable(members for _, members in by_class))
    values = _numbers(segment.mae_ratio for segment in shown)
    # with too few days there is no interval: the segment gets a point without a bar
    low = _numbers(segment.mae_ratio_low for segment in shown)
    high = _numbers(segment.mae_ratio_high for segment in shown)
    left, right = _ratio_limits(np.concatenate([values, low, high]))
    lines = len(shown) + len(by_class)
    titles = [*SEGMENT_TITLES.values(), *(_segment_label(segment) for segment in shown)]
    counts = [f"{segment.rows:,}" for segment in shown]
    # rows are numbered from the top, the first is that of the heading
    bottom, top = lines - 0.4, -1.4
    plot = Plot(
        (left, right),
        (bottom, top),
        left=label_width(titles),
        right=label_width([*counts, "rows"]),
        height=TOP + BOTTOM + ROW_HEIGHT * (bottom - top),
    )
    ticks = axis_ticks(left, right, MOST_STEPS)
    plot.columns(ticks, [f"{tick:.{_digits(ticks)}f}" for tick in ticks])
    plot.line(np.array([1.0, 1.0]), np.array([bottom, top]), INK, 1.0, dashes=DASHES)
    plot.label_row(-1, "rows", "right")
    ends = iter(np.clip(np.column_stack([values, low, high]), left, right))
    row = 0
    for title, members in by_class:
        plot.label_row(row, title, "left", colour=INK, weight="bold")
        for segment in members:
            row += 1
            _draw_segment(plot, row, *next(ends))
            plot.label_row(row, _segment_label(segment), "left")
            plot.label_row(row, f"{segment.rows:,}", "right")
        row += 1
    return plot.svg(), int((values > right).sum())


def _numbers(values: Iterable[float | None]) -> Values:
    return np.array(list(values), dtype=float)


def _draw_segment(plot: Plot, row: int, value: float, low: float, high: float) -> None:
    if not np.isnan([low, high]).any():
        plot.line(np.array([low, high]), np.full(2, float(row)), ACCENT, 3.5, opacity=0.35)
    if not np.isnan(value):
        plot.points(np.array([value]), np.array([float(row)]), ACCENT, 6.0)


def _segment_label(segment: SegmentScore) -> str:
    return SEGMENT_LABELS.get(segment.group, segment.group)


def _digits(ticks: Sequence[float]) -> int:
    """Digits after the point that distinguish the ticks."""
    return 1 if all(math.isclose(tick * 10, round(tick * 10)) for tick in ticks) else 2
