"""Charts of the dashboard: Altair specifications that Streamlit's own Vega draws in the browser.

Every axis has its unit, and lines differ by dashes or marks as well as by colour. Days are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd
import streamlit as st

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

HEIGHT = 280
COUNTS = [0, 1, 3, 10, 30, *(10**power for power in range(2, 8))]
POWERS = [0, 0.1, *(10**power for power in range(7))]
"""Ticks of logarithmic axes, of counts and of APYs."""
LINE_LEGEND = alt.Legend(
    title=None,
    orient="top",
    # two fit into a telephone
    columns=2,
    labelLimit=260,
    symbolType="stroke",
    symbolSize=400,
    symbolStrokeWidth=2,
)
# each by itself: the format of an axis has one prefix for all labels
POWER_LABELS = "format(datum.value, datum.value < 1000 ? '~g' : '~s')"


@dataclass(frozen=True)
class Colours:
    """Colours of one theme; all have a contrast of 3:1 and more on its background (WCAG 1.4.11)."""

    ink: str
    accent: str
    second: str
    third: str
    muted: str
    warning: str
    bad: str


LIGHT = Colours("#1c2530", "#0b7a6b", "#9a4d00", "#4b4fc4", "#5b6673", "#b36b00", "#a8242c")
DARK = Colours("#e6ebef", "#4fd0b8", "#f3c27d", "#a9b1ff", "#9aa7b3", "#f3c27d", "#ff9a98")


def colours() -> Colours:
    """Return the colours of the browser's theme."""
    return DARK if st.context.theme.type == "dark" else LIGHT


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        column: column of the values.
        label: text of the legend.
        colour: name of a field of Colours.
        dashes: lengths of dash and gap in pixels; empty for a solid line.
        points: shape of the points at the values; empty for none.
    """

    column: str
    label: str
    colour: str
    dashes: tuple[int, ...] = ()
    points: str = ""


def show(chart: AnyChart, alternative: str) -> None:
    """Show a chart in the width of the page.

    Args:
        alternative: what the chart shows, for screen readers.
    """
    muted = colours().muted
    styled = chart.configure_axis(labelColor=muted, titleColor=muted)
    styled = styled.configure_legend(labelColor=muted, titleColor=muted)
    st.altair_chart(styled, width="stretch", alt=alternative)


def day_axis(title: str = "day, UTC") -> alt.X:
    """Return a horizontal axis of the column `date`."""
    return alt.X("date:T", title=title, axis=alt.Axis(format="%-d %b %y", labelOverlap=True))


def lines(
    rows: pd.DataFrame,
    drawn: Sequence[Line],
    *,
    unit: str,
    band: tuple[str, str] | None = None,
    value_format: str = ",.2f",
    domain: tuple[float, float] | None = None,
    is_log: bool = False,
    reference: float | None = None,
) -> AnyChart:
    """Return lines by day, interrupted where a value is unknown.

    Args:
        rows: date and the columns of the lines and the band.
        unit: title of the vertical axis.
        band: columns of the lower and the upper end of a band.
        domain: ends of the vertical axis; values beyond are cut off.
        is_log: whether the vertical axis is logarithmic, with a zero; excludes `domain`.
        reference: value of a horizontal dashed line.
    """
    palette = colours()
    height = _value_axis(unit, domain, is_log)
    layers: list[alt.Chart] = []
    if band:
        layers.append(
            alt.Chart(rows)
            .mark_area(opacity=0.22, color=palette.accent)
            .encode(x=day_axis(), y=height(band[0]), y2=f"{band[1]}:Q")
        )
    if reference is not None:
        layers.append(
            alt.Chart(pd.DataFrame({"value": [reference]}))
            .mark_rule(strokeDash=[2, 3], color=palette.ink)
            .encode(y=height("value"))
        )
    layers += [
        _line_layer(rows, line, drawn, height("value"), unit, value_format) for line in drawn
    ]
    return alt.layer(*layers).properties(height=HEIGHT)


def _value_axis(
    unit: str, domain: tuple[float, float] | None, is_log: bool
) -> Callable[[str], alt.Y]:
    if is_log:
        scale = alt.Scale(type="symlog", constant=1)
        axis = alt.Axis(values=COUNTS, labelExpr=POWER_LABELS, labelOverlap="greedy")
        return lambda column: alt.Y(
            f"{column}:Q", title=f"{unit} (log scale)", scale=scale, axis=axis
        )
    scale = alt.Scale(domain=list(domain), clamp=True) if domain else alt.Scale(zero=False)
    return lambda column: alt.Y(f"{column}:Q", title=unit, scale=scale)


def _line_layer(
    rows: pd.DataFrame,
    line: Line,
    drawn: Sequence[Line],
    height: alt.Y,
    unit: str,
    value_format: str,
) -> alt.Chart:
    palette = colours()
    labels = [each.label for each in drawn]
    hues = [getattr(palette, each.colour) for each in drawn]
    dashes = [list(each.dashes or (1, 0)) for each in drawn]
    values = rows[["date", line.column]].rename(columns={line.column: "value"})
    chart: alt.Chart = (
        alt.Chart(values.assign(line=line.label))
        .mark_line(
            strokeWidth=1.8, point={"size": 16, "shape": line.points} if line.points else False
        )
        .encode(
            x=day_axis(),
            y=height,
            color=alt.Color(
                "line:N",
                scale=alt.Scale(domain=labels, range=hues),
                legend=LINE_LEGEND,
            ),
            strokeDash=alt.StrokeDash(
                "line:N",
                scale=alt.Scale(domain=labels, range=dashes),
                # the same legend for both: Vega draws one with colour and dashes
                legend=LINE_LEGEND,
            ),
            tooltip=[
                alt.Tooltip("date:T", title="day, UTC", format="%Y-%m-%d"),
                alt.Tooltip("line:N", title="line"),
                alt.Tooltip("value:Q", title=unit, format=value_format),
            ],
        )
    )
    return chart


def uncertainty_scatter(rows: pd.DataFrame) -> AnyChart:
    """Return the forecast APY of pools against the width of its interval.

    Args:
        rows: apy, apy_width, tvl_today, label, place, made_by (`model` or `fallback`).
    """
    axis = alt.Axis(values=POWERS, labelExpr=POWER_LABELS, labelOverlap="greedy")
    shape, colour = _made_by()
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_point(filled=False, opacity=1, size=42, strokeWidth=1.5)
        .encode(
            x=alt.X(
                "apy_width:Q",
                title="width of the interval, points of APY (log scale)",
                # intervals of quiet pools are narrower than a point: more room below 1
                scale=alt.Scale(type="symlog", constant=0.1),
                axis=axis,
            ),
            y=alt.Y(
                "apy:Q",
                title="forecast APY, % (log scale)",
                scale=alt.Scale(type="symlog", constant=1),
                axis=axis,
            ),
            shape=shape,
            color=colour,
            tooltip=[
                alt.Tooltip("label:N", title="pool"),
                alt.Tooltip("place:N", title="protocol · chain"),
                alt.Tooltip("apy:Q", title="forecast APY, %", format=",.2f"),
                alt.Tooltip("apy_width:Q", title="interval, points", format=",.2f"),
                alt.Tooltip("tvl_today:Q", title="TVL today, USD", format="$,.3s"),
            ],
        )
        .properties(height=340)
    )
    return chart


def _made_by() -> tuple[alt.Shape, alt.Color]:
    palette, made_by = colours(), ["model", "fallback"]
    legend = alt.Legend(title="made by", orient="top", symbolStrokeWidth=1.5, symbolSize=60)
    shapes = alt.Scale(domain=made_by, range=["circle", "cross"])
    hues = alt.Scale(domain=made_by, range=[palette.accent, palette.second])
    return (
        alt.Shape("made_by:N", scale=shapes, legend=legend),
        alt.Color("made_by:N", scale=hues, legend=legend),
    )


def bars(
    rows: pd.DataFrame,
    *,
    category: str,
    value: str,
    title: str,
    unit: str,
    value_format: str = ",.1f",
) -> AnyChart:
    """Return horizontal bars with their values, in the order of the rows."""
    palette = colours()
    base = alt.Chart(rows).encode(
        y=alt.Y(f"{category}:N", sort=None, title=title, axis=alt.Axis(labelLimit=170)),
        x=alt.X(
            f"{value}:Q",
            title=unit,
            # room for the number behind the longest bar
            scale=alt.Scale(domain=[0, 1.12 * float(rows[value].max()) or 1]),
            axis=alt.Axis(tickCount=6),
        ),
        tooltip=[
            alt.Tooltip(f"{category}:N", title=title),
            alt.Tooltip(f"{value}:Q", title=unit, format=value_format),
        ],
    )
    values = base.mark_text(align="left", dx=4, color=palette.ink).encode(
        text=alt.Text(f"{value}:Q", format=value_format)
    )
    return alt.layer(base.mark_bar(color=palette.accent), values).properties(height=alt.Step(24))


def segment_points(rows: pd.DataFrame, *, value: str, unit: str, reference: float) -> AnyChart:
    """Return a value of each segment of pools with its interval, and a dashed reference line.

    Args:
        rows: segment (label), `value`, rows (number of forecasts); low and high may be missing.
    """
    accent, ink = colours().accent, colours().ink
    order = list(rows["segment"])
    axis = alt.Y("segment:N", sort=order, title=None, axis=alt.Axis(labelLimit=200))
    x_axis = alt.X(
        f"{value}:Q",
        title=unit,
        scale=alt.Scale(zero=False, padding=12),
        axis=alt.Axis(tickCount=6),
    )
    layers: list[alt.Chart] = []
    if "low" in rows:
        layers.append(
            alt.Chart(rows)
            .mark_rule(strokeWidth=2, color=accent)
            .encode(y=axis, x=alt.X("low:Q", title=unit, scale=alt.Scale(zero=False)), x2="high:Q")
        )
    reference_row = pd.DataFrame({value: [reference]})
    layers.append(alt.Chart(reference_row).mark_rule(strokeDash=[4, 3], color=ink).encode(x=x_axis))
    layers.append(
        alt.Chart(rows)
        .mark_point(filled=True, size=60, color=accent, opacity=1)
        .encode(
            y=axis,
            x=x_axis,
            tooltip=[
                alt.Tooltip("segment:N"),
                alt.Tooltip(f"{value}:Q", title=unit, format=",.3f"),
                alt.Tooltip("rows:Q", title="forecasts", format=","),
            ],
        )
    )
    return alt.layer(*layers).properties(height=alt.Step(24))


GAP_STATES: Mapping[str, tuple[str, str]] = {
    "observed": ("muted", "circle"),
    "carried": ("second", "square"),
    "unknown": ("bad", "cross"),
    "no row": ("third", "triangle-up"),
}
"""Colour and shape of each state of a day."""


def gap_heat_map(rows: pd.DataFrame) -> AnyChart:
    """Return the state of every pool and day; states differ by shape, size and colour.

    Args:
        rows: label, date, state (of GAP_STATES).
    """
    palette = colours()
    states = list(GAP_STATES)
    legend = alt.Legend(title="APY of the day", orient="top", columns=2, symbolOpacity=1)
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_point(filled=True, opacity=1)
        .encode(
            x=day_axis(),
            y=alt.Y("label:N", sort=None, title="pool", axis=alt.Axis(labelLimit=185)),
            shape=alt.Shape(
                "state:N",
                scale=alt.Scale(domain=states, range=[shape for _, shape in GAP_STATES.values()]),
                legend=legend,
            ),
            color=alt.Color(
                "state:N",
                scale=alt.Scale(
                    domain=states,
                    range=[getattr(palette, colour) for colour, _ in GAP_STATES.values()],
                ),
                legend=legend,
            ),
            size=alt.Size(
                "state:O", scale=alt.Scale(domain=states, range=[12, 55, 70, 45]), legend=None
            ),
            tooltip=[
                alt.Tooltip("label:N", title="pool"),
                alt.Tooltip("date:T", title="day, UTC", format="%Y-%m-%d"),
                alt.Tooltip("state:N", title="APY"),
            ],
        )
        .properties(height=alt.Step(19))
    )
    return chart
