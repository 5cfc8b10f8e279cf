"""Parts of the page Pool about its past forecasts: actual values, errors and the gate's weight.

APY is in percent and its errors in points, TVL in USD, days are UTC.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from reporting.dashboard import charts
from reporting.dashboard.charts import Line
from reporting.dashboard.page_parts import tiles
from reporting.report import formatting

UNITS = {"apy": "APY, %", "tvl": "TVL, USD"}
ERROR_UNITS = {"apy": "absolute error, points of APY", "tvl": "absolute error, USD"}
VALUE_FORMATS = {"apy": ",.2f", "tvl": "$,.4s"}
PAST_VALUES = (
    *("actual", "forecast", "low", "high", "persistence", "gate_weight"),
    *("error", "persistence_error"),
)


def show_past(past: pd.DataFrame, target: str) -> None:
    """Show a pool's past forecasts, their errors and the gate's weights.

    Args:
        past: `past_forecasts` of the pool.
        target: `apy` (percent) or `tvl` (USD).
    """
    st.header(f"Forecast against actual {target.upper()}")
    if past.empty:
        st.write("No past forecast of this pool has been scored in these days.")
        return
    # a column without a value has no type, and a chart needs numbers
    rows = past.astype(dict.fromkeys(PAST_VALUES, float))
    scored = rows.dropna(subset=["actual"])
    _show_scores(scored, target)
    st.caption("The band is the interval of the forecast.")
    charts.show(
        charts.lines(
            rows,
            [
                Line("actual", "actual value", "ink", points="circle"),
                Line("forecast", "forecast", "accent", (4, 2)),
            ],
            unit=UNITS[target],
            band=("low", "high"),
            value_format=VALUE_FORMATS[target],
        ),
        f"Forecast and actual {target.upper()} of {len(scored)} target days; the band is the"
        " forecast's interval.",
    )
    _show_past_errors(scored, target)
    _show_gate(rows)


def _show_past_errors(scored: pd.DataFrame, target: str) -> None:
    st.subheader("Errors beside persistence")
    charts.show(
        charts.lines(
            scored,
            [
                Line("error", "forecast", "accent", points="circle"),
                Line("persistence_error", "persistence", "second", (4, 2)),
            ],
            unit=ERROR_UNITS[target],
            value_format=VALUE_FORMATS[target],
        ),
        f"Absolute errors of forecast and persistence on {len(scored)} target days.",
    )


def _show_gate(past: pd.DataFrame) -> None:
    st.subheader("Weight of the gate")
    if past["gate_weight"].isna().all():
        st.write("These forecasts have no gate weight: they were made by a fallback or before it.")
        return
    st.caption("0 publishes persistence (tomorrow = today), 1 the model's own change.")
    charts.show(
        charts.lines(
            past,
            [Line("gate_weight", "weight of the gate", "accent", points="circle")],
            unit="weight, 0 to 1",
            domain=(0.0, 1.0),
        ),
        "Weight of the gate by target day.",
    )


def _show_scores(scored: pd.DataFrame, target: str) -> None:
    """Show the figures of these days; they are of this pool only."""
    if scored.empty:
        return
    size = formatting.points if target == "apy" else formatting.usd
    with_interval = scored.dropna(subset=["low", "high"])
    inside = with_interval["actual"].between(with_interval["low"], with_interval["high"])
    persistence = float(scored["persistence_error"].mean())
    error = float(scored["error"].mean())
    tiles(
        [
            ("Scored target days", formatting.count(len(scored)), "with an observed actual value"),
            (
                "Mean absolute error",
                size(error),
                f"persistence {size(persistence)}" + (" points" if target == "apy" else ""),
            ),
            (
                "MAE ratio",
                formatting.ratio(error / persistence if persistence else None),
                "to persistence; under 1 is better",
            ),
            (
                "Inside the interval",
                formatting.share(float(inside.mean()) if len(inside) else None),
                f"of actual values; nominal"
                f" {formatting.share(float(scored['interval_level'].iloc[-1]))}",
            ),
        ]
    )
