"""What all pictures have in common: matplotlib axes in, an `<svg>` element to stand inside HTML
out.

The element refers to nothing outside the page and holds no text of the data: pool names stay in the
page, where they are escaped. Colours are CSS variables, so that one picture is right on dark and on
light. matplotlib draws into Figure objects; pyplot and its global state are not used.
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
Drawn = TypeVar("Drawn")

FIGURE_INCHES = (5.1, 2.5)
"""About as wide as a card of the page: letters are drawn at their own size."""

INK, MUTED, GRID, ACCENT, BAND = "#010203", "#010204", "#010205", "#010206", "#010207"
CSS_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", BAND: "--band"}
"""matplotlib knows no CSS variables: it draws in colours that nothing else has, and each is put in
place of the other afterwards.
"""


def draw_svg(
    name: str, draw: Callable[[Axes], Drawn], inches: tuple[float, float] = FIGURE_INCHES
) -> tuple[str, Drawn]:
    """The element, and what `draw` returned. `name` keeps the ids of several pictures on one page
    apart.
    """
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": f"yieldspark-{name}",
            "font.size": 9,
            "path.simplify": True,
            "text.parse_math": False,
        }
    ):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        found = draw(figure.add_subplot())
        drawn = io.StringIO()
        figure.savefig(
            drawn,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    return _inline(drawn.getvalue(), name), found


def style_axes(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Lines at the ticks of the axis `grid`, a thin line below, and nothing else around."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=MUTED)
    axes.tick_params(axis="x", length=3, color=GRID)


def style_day_axis(axes: Axes, last: dt.date) -> None:
    """The x axis in days, from the first that is drawn to `last`."""
    axes.margins(x=0.02)
    span = float(np.datetime64(last).astype(float)) - axes.dataLim.intervalx[0]
    if span > 45:
        locator: DateLocator = MonthLocator(bymonthday=(1, 15))  # type: ignore[no-untyped-call]
    else:
        locator = WeekdayLocator(interval=1 if span < 21 else 2)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(FuncFormatter(_day_words))


def _day_words(number: float, _: int) -> str:
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
    """Arrows at the edge for the values that lie off the scale; returns how many there are."""
    above, below = values > high, values < low
    axes.plot(
        dates[above],
        np.full(above.sum(), high),
        linestyle="",
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
    """From a file of its own to an element of the page: no prologue, no namespaces, colours by
    variable, ids of its own.
    """
    opening, rest = svg[svg.index("<svg") :].split(">", 1)
    view_box = opening[opening.index('viewBox="') :].split('"')[1]
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r'(href="|url\()#', rf"\1#{name}-", rest)
    for colour, variable in CSS_VARIABLES.items():
        rest = rest.replace(colour, f"var({variable})")
    return f'<svg viewBox="{view_box}" aria-hidden="true" focusable="false">{rest}'
