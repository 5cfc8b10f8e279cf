"""Parts of the page Quality about the model: drift, and decisions on the serving version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from forecasting.registry.decisions import RecordedDecision
from reporting.dashboard.page_parts import (
    escaped,
    one_line,
    select_hint,
    selectable_table,
    table,
    texts,
    utc,
)
from reporting.figures.model_health import ModelHealth
from reporting.report.feature_labels import feature_label


def show_drift(health: ModelHealth) -> None:
    """Show the checks of drift of the newest forecast run."""
    st.header("Drift")
    if not health.drift:
        st.write("No forecast run has recorded checks of drift.")
        return
    st.caption(f"The forecast run of {health.as_of}, compared with its model's training data.")
    for check in health.drift.values():
        if check["passed"]:
            st.success(f"ok: {escaped(check['found'])}", icon=":material/check:")
        else:
            st.warning(f"check: {escaped(check['found'])}", icon=":material/warning:")
    features = health.drift.get("feature_drift", {}).get("features") or []
    if features:
        rows = pd.DataFrame(features)
        rows["feature"] = [one_line(feature_label(name)) for name in rows["feature"]]
        table(
            rows,
            {
                "feature": "features that drifted most",
                "psi": st.column_config.NumberColumn(
                    "PSI (population stability index)", format="%.2f"
                ),
                "ks": st.column_config.NumberColumn("KS distance, 0 to 1", format="%.2f"),
            },
        )


def show_decisions(decisions: Sequence[RecordedDecision]) -> None:
    """Show the newest decisions on the serving model, and the numbers of one of them."""
    st.header("Promotions")
    if not decisions:
        st.write("No decision on the serving model has been recorded.")
        return
    chosen = _show_decision_table(decisions)
    select_hint("the numbers of its decision; without one, those of the newest are below")
    decision = decisions[chosen or 0]
    numbers = numbers_table(decision.numbers)
    if numbers.empty:
        st.write("This decision has no numbers: nothing was measured.")
        return
    with st.expander(
        f"Numbers of the decision of {utc(decision.decided_at)} UTC:"
        f" {escaped(decision.decision.replace('_', ' '))}"
    ):
        table(
            numbers,
            {"number": "number: losses and ratios have no unit", "value": "value"},
        )


def _show_decision_table(decisions: Sequence[RecordedDecision]) -> int | None:
    rows = pd.DataFrame(
        {
            "decided": utc(decision.decided_at),
            "as_of": decision.as_of,
            "decision": decision.decision.replace("_", " "),
            "engine": decision.engine,
            "challenger": decision.challenger,
            "champion": decision.champion,
            "serving": decision.serving_version or "persistence",
            "reason": decision.reason,
            "decided_by": decision.decided_by,
        }
        for decision in decisions
    )
    return selectable_table(
        # a day is no text: the table sorts it as a day
        texts(rows, *[str(column) for column in rows if column != "as_of"]),
        {
            "as_of": "as-of day, UTC",
            "decision": "decision",
            "reason": st.column_config.TextColumn("reason", width=300),
            "challenger": "challenger",
            "champion": "champion before",
            "serving": "serving version",
            "engine": "engine",
            "decided_by": "decided by",
            "decided": "decided, UTC",
        },
        key="decision_table",
    )


def numbers_table(numbers: Mapping[str, Any]) -> pd.DataFrame:
    """Return nested numbers as rows: number (names from the outside in) and value (text)."""
    rows: list[tuple[str, str]] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name} · {key}" if name else str(key), inner)
        elif isinstance(value, float):
            rows.append((name, f"{value:,.4g}"))
        else:
            rows.append((name, str(value)))

    add("", numbers)
    return texts(pd.DataFrame(rows, columns=["number", "value"]), "number", "value")
