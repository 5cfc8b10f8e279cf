"""Plots as inline SVG: maps the values of two axes to the plane of an `<svg>` element, and draws
lines, bands, points and texts.

The element refers to nothing outside the page and has no ids. Colours are variables of the page, so
that one plot fits dark and light pages. Coordinates are those of the view box.
"""

# matplotlib would take a second to load and a fifth of a second for each plot, and the report has
# twenty
from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Positions = npt.NDArray[np.float64] | npt.NDArray[np.int64]
"""Values of the horizontal axis; days since 1970-01-01 are integers."""
Point = tuple[float, float]

INK, MUTED, GRID, ACCENT, BAND = (
    f"var(--{name})" for name in ("ink", "muted", "line", "accent", "band")
)

# about as wide as a card of the page in CSS pixels, so that text has its own size
WIDTH, HEIGHT = 367.0, 180.0
TOP, RIGHT, BOTTOM = 6.0, 6.0, 20.0
FONT_SIZE = 9.0
# a wide sans-serif: narrower fonts leave some room
CHARACTER_WIDTH = 0.6 * FONT_SIZE
LABEL_GAP, TICK_LENGTH = 5.0, 3.0
# share of the days that stays free on either side
DAY_MARGIN = 0.02

TICK_STEPS = (1, 2, 5, 10)


class Plot:
    """The contents of one plot.

    Args:
        x: values of the left and the right edge.
        y: values of the bottom and the top edge.
        left, right: widths beside the axes, for labels.
        height: of the whole plot.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        left: float,
        right: float = RIGHT,
        height: float = HEIGHT,
    ) -> None:
        self._x, self._y, self._height = x, y, height
        self._left, self._right = left, WIDTH - right
        self._top, self._bottom = TOP, height - BOTTOM
        self._elements: list[str] = []

    def svg(self) -> str:
        """Returns the element."""
        return (
            f'<svg viewBox="0 0 {WIDTH:g} {self._height:g}" aria-hidden="true" focusable="false">'
            f"{''.join(self._elements)}</svg>"
        )

    def line(
        self,
        x: Positions,
        y: Values,
        colour: str,
        width: float,
        *,
        opacity: float = 1.0,
        dashes: str = "none",
    ) -> None:
        """Draws a line through the points, interrupted at NaN and cut at the bottom and the top."""
        runs = visible_runs(list(zip(x, y, strict=True)), *sorted(self._y))
        path = "".join(self._path(run) for run in runs)
        if path:
            self._elements.append(
                f'<path d="{path}" style="fill: none; stroke: {colour}; stroke-width: {width:g};'
                f" stroke-linejoin: round; stroke-dasharray: {dashes};"
                f' stroke-opacity: {opacity:g}"/>'
            )

    def band(self, x: Positions, low: Values, high: Values) -> None:
        """Fills the area between two lines, within the axes; interrupted where one is NaN."""
        bottom, top = sorted(self._y)
        inside = [np.clip(ends, bottom, top) for ends in (low, high)]
        is_known = np.isfinite(low) & np.isfinite(high)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], is_known, [False]])))
        path = ""
        for start, end in edges.reshape(-1, 2):
            lower, upper = (
                list(zip(x[start:end], ends[start:end], strict=True)) for ends in inside
            )
            path += self._path([*lower, *reversed(upper)]) + "Z"
        if path:
            self._elements.append(f'<path d="{path}" style="fill: {BAND}"/>')

    def points(self, x: Positions, y: Values, colour: str, size: float) -> None:
        """Draws a dot at each point inside the axes; `size` is the diameter."""
        low, high = sorted(self._y)
        # a line without length and with round ends is a dot, and one path has all of them
        path = "".join(
            f"{self._path([point])}h0"
            for point in zip(x, y, strict=True)
            if low <= point[1] <= high
        )
        if path:
            self._elements.append(
                f'<path d="{path}" style="stroke: {colour}; stroke-width: {size:g};'
                ' stroke-linecap: round"/>'
            )

    def mark_clipped(self, x: Positions, y: Values, colour: str) -> int:
        """Draws arrows at the edges for values off the scale.

        Returns:
            The number of these values.
        """
        low, high = sorted(self._y)
        path, clipped = "", 0
        for position, value in zip(x, y, strict=True):
            if low <= value <= high or math.isnan(value):
                continue
            clipped += 1
            edge, length = (high, 4.5) if value > high else (low, -4.5)
            tip_x, tip_y = self._place(position, edge)
            path += f"M{tip_x - 3:.1f} {tip_y + length:.1f}L{tip_x:.1f} {tip_y:.1f}"
            path += f"L{tip_x + 3:.1f} {tip_y + length:.1f}Z"
        if path:
            self._elements.append(f'<path d="{path}" style="fill: {colour}"/>')
        return clipped

    def rows(self, ticks: Sequence[float], labels: Sequence[str]) -> None:
        """Draws a horizontal grid line at each tick, labelled on the left."""
        for tick, label in zip(ticks, labels, strict=True):
            _, y = self._place(self._x[0], tick)
            self._grid_line(f"M{self._left:.1f} {y:.1f}H{self._right:.1f}")
            self.label_row(tick, label, "left")

    def columns(self, ticks: Sequence[float], labels: Sequence[str]) -> None:
        """Draws a vertical grid line at each tick, labelled below."""
        for tick, label in zip(ticks, labels, strict=True):
            x, _ = self._place(tick, self._y[0])
            self._grid_line(f"M{x:.1f} {self._top:.1f}V{self._bottom:.1f}")
            self._label_below(x, label)
        self._bottom_line()

    def days(self, first: int, last: int) -> None:
        """Draws a line at the bottom with ticks at some days, labelled below.

        Args:
            first: first day of the axis, counted from 1970-01-01.
            last: last day.
        """
        self._bottom_line()
        for number in day_ticks(first, last):
            x, _ = self._place(number, self._y[0])
            self._grid_line(f"M{x:.1f} {self._bottom:.1f}v{TICK_LENGTH:g}")
            day = _day(number)
            self._label_below(x, f"{day.day} {day:%b}")

    def label_row(
        self,
        y: float,
        label: str,
        side: Literal["left", "right"],
        *,
        colour: str = MUTED,
        weight: str = "normal",
    ) -> None:
        """Writes a text beside the axes."""
        _, middle = self._place(self._x[0], y)
        is_left = side == "left"
        self._text(
            self._left - LABEL_GAP if is_left else self._right + LABEL_GAP,
            # middle of the capital letters
            middle + 0.36 * FONT_SIZE,
            label,
            "end" if is_left else "start",
            colour,
            weight,
        )

    def _label_below(self, x: float, label: str) -> None:
        # a label of the last tick would be cut off at the edge of the element
        half = CHARACTER_WIDTH * len(label) / 2
        x = min(max(x, half), WIDTH - half)
        self._text(x, self._bottom + TICK_LENGTH + FONT_SIZE + 1.0, label, "middle", MUTED)

    def _bottom_line(self) -> None:
        self._grid_line(f"M{self._left:.1f} {self._bottom:.1f}H{self._right:.1f}")

    def _grid_line(self, path: str) -> None:
        self._elements.append(f'<path d="{path}" style="stroke: {GRID}; stroke-width: 0.8"/>')

    def _text(
        self, x: float, y: float, text: str, anchor: str, colour: str, weight: str = "normal"
    ) -> None:
        self._elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" style="font-size: {FONT_SIZE:g}px; font-weight:'
            f' {weight}; text-anchor: {anchor}; fill: {colour}">{escape(text)}</text>'
        )

    def _path(self, points: Sequence[Point]) -> str:
        places = [self._place(*point) for point in points]
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)

    def _place(self, x: float, y: float) -> Point:
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return (
            self._left + across * (self._right - self._left),
            self._bottom - up * (self._bottom - self._top),
        )


def label_width(labels: Sequence[str]) -> float:
    """Returns the room that the longest label needs beside the axes."""
    return LABEL_GAP + CHARACTER_WIDTH * max(map(len, labels), default=0)


def axis_ticks(low: float, high: float, most: int) -> list[float]:
    """Returns round numbers between `low` and `high`, at most `most` steps apart.

    Args:
        low: lower end of the axis.
        high: upper end, above `low`.
        most: largest number of steps.
    """
    step = tick_step(low, high, most)
    # a tick at the end of the axis must not be lost to rounding
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_step(low: float, high: float, most: int) -> float:
    """Returns the distance of `axis_ticks`: 1, 2 or 5 times a power of ten."""
    least = (high - low) / most
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in TICK_STEPS if step * power >= least * (1 - 1e-9))


def day_limits(days: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Returns the edges of an axis with these days; one day is in the middle."""
    first, last = int(days.min()), int(days.max())
    margin = DAY_MARGIN * (last - first) or 0.5
    return first - margin, last + margin


def day_ticks(first: int, last: int) -> list[int]:
    """Returns the days to label: two of each month, or Mondays.

    Args:
        first: first day of the axis, counted from 1970-01-01.
        last: last day.
    """
    span = last - first

    def is_labelled(number: int) -> bool:
        if span > 45:
            return _day(number).day in (1, 15)
        # 1970-01-05 was a Monday
        return (number - 4) % (7 if span < 21 else 14) == 0

    # a few days may have no Monday
    return [number for number in range(first, last + 1) if is_labelled(number)] or [last]


def visible_runs(points: Sequence[Point], low: float, high: float) -> Iterator[list[Point]]:
    """Yields the parts of a line between `low` and `high`: two or more points each."""
    run: list[Point] = []
    for start, end in pairwise(points):
        visible = _cut(start, end, low, high)
        if visible is None:
            continue
        if not run or run[-1] != visible[0]:
            if run:
                yield run
            run = [visible[0]]
        run.append(visible[1])
    if run:
        yield run


def _cut(start: Point, end: Point, low: float, high: float) -> tuple[Point, Point] | None:
    """Returns the part of a line from `start` to `end` that is visible; None without one."""
    (x, y), (to_x, to_y) = start, end
    if math.isnan(y) or math.isnan(to_y):
        return None
    if low <= min(y, to_y) and max(y, to_y) <= high:
        return start, end
    if max(y, to_y) < low or min(y, to_y) > high:
        return None

    def at(bound: float) -> Point:
        return x + (to_x - x) * (bound - y) / (to_y - y), bound

    def bounded(point: Point) -> Point:
        return at(min(max(point[1], low), high)) if not low <= point[1] <= high else point

    return bounded(start), bounded(end)


def _day(number: int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=number)
