"""Plots as inline SVG: draws matplotlib axes and returns an `<svg>` element for an HTML page.

The element refers to nothing outside the page and contains no text of the data. Draws into Figure
objects; pyplot and its global state are not used.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Callable
from typing import Literal, TypeVar

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import DateLocator, MonthLocator, WeekdayLocator, num2date
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

Values = npt.NDArray[np.float64]
Result = TypeVar("Result")

# about as wide as a card of the page, so that text has its own size
FIGURE_INCHES = (5.1, 2.5)

# matplotlib knows no CSS variables: it draws in colours that nothing else has, which are replaced
# by variables afterwards, so that one plot fits dark and light pages
INK, MUTED, GRID, ACCENT, BAND = "#010203", "#010204", "#010205", "#010206", "#010207"
CSS_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", BAND: "--band"}


def draw_svg(
    name: str, draw: Callable[[Axes], Result], inches: tuple[float, float] = FIGURE_INCHES
) -> tuple[str, Result]:
    """Draws a plot.

    Args:
        name: keeps the ids of several plots on one page apart.
        draw: draws into the axes.
        inches: width and height.

    Returns:
        The element, and the result of `draw`.
    """
    with mpl.rc_context(
        {
            # text stays text, in the font of the page
            "svg.fonttype": "none",
            # ids are random otherwise: the same data must give the same file
            "svg.hashsalt": f"yieldspark-{name}",
            "font.size": 9,
            "path.simplify": True,
            # a dollar sign in a label is no formula
            "text.parse_math": False,
        }
    ):
        figure = Figure(figsize=inches, layout="constrained")
        # registers itself as the canvas of the figure
        FigureCanvasSVG(figure)
        result = draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            # None leaves an entry out: the date would differ in each file
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    return _inline(buffer.getvalue(), name), result


def style_axes(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Draws grid lines at the ticks of one axis and a thin line at the bottom, without a frame."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=MUTED)
    axes.tick_params(axis="x", length=3, color=GRID)


def style_day_axis(axes: Axes, last: dt.date) -> None:
    """Labels the x axis with days, from the first that is drawn to `last`."""
    axes.margins(x=0.02)
    span = float(np.datetime64(last).astype(float)) - axes.dataLim.intervalx[0]
    if span > 45:
        locator: DateLocator = MonthLocator(bymonthday=(1, 15))  # type: ignore[no-untyped-call]
    else:
        locator = WeekdayLocator(interval=1 if span < 21 else 2)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(FuncFormatter(_day_label))


def _day_label(number: float, _: int) -> str:
    day = num2date(number)  # type: ignore[no-untyped-call]
    return f"{day.day} {day:%b}"


def mark_clipped(
    axes: Axes,
    dates: npt.NDArray[np.datetime64],
    values: Values,
    low: float,
    high: float,
    colour: str,
) -> int:
    """Draws arrows at the edges for values off the scale.

    Returns:
        The number of these values.
    """
    above, below = values > high, values < low
    axes.plot(
        dates[above],
        np.full(above.sum(), high),
        linestyle="",
        # a caret up or, below, down, whose tip is on the edge: it lies beyond the axes
        marker=6,
        markersize=6,
        color=colour,
        clip_on=False,
    )
    axes.plot(
        dates[below],
        np.full(below.sum(), low),
        linestyle="",
        marker=7,
        markersize=6,
        color=colour,
        clip_on=False,
    )
    return int(above.sum() + below.sum())


def _inline(svg: str, name: str) -> str:
    """Converts an SVG file into an element: no prologue, colours by variable, ids with a prefix."""
    opening, rest = svg[svg.index("<svg") :].split(">", 1)
    view_box = opening[opening.index('viewBox="') :].split('"')[1]
    # the namespace of xlink is declared in the prologue, which is left out
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r'(href="|url\()#', rf"\1#{name}-", rest)
    for colour, variable in CSS_VARIABLES.items():
        rest = rest.replace(colour, f"var({variable})")
    return f'<svg viewBox="{view_box}" aria-hidden="true" focusable="false">{rest}'
