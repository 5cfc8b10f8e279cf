"""Page Quality: accuracy beside persistence by day and by segment, coverage and reliability, drift,
decisions on the serving model, and the largest errors.

The figures are those of the HTML report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from forecasting.evaluation.daily_scores import RECENT_DAYS
from forecasting.evaluation.segments import SegmentScore
from reporting.dashboard import charts
from reporting.dashboard.charts import Line
from reporting.dashboard.connection import DataVersion, connected, data_version
from reporting.dashboard.page_parts import (
    commands,
    escaped,
    one_line,
    open_pool,
    pool_label,
    pool_link,
    pool_place,
    select_hint,
    selectable_table,
    table,
    tiles,
)
from reporting.dashboard.scores import STEPS, Scores
from reporting.dashboard.scoring import Scoring, scoring_of
from reporting.dashboard.views.model_parts import show_decisions, show_drift
from reporting.figures.accuracy import ClassAccuracy, ForecasterErrors
from reporting.figures.interval_reliability import IntervalReliability
from reporting.figures.largest_errors import ForecastError
from reporting.figures.model_health import ModelHealth, model_health
from reporting.report import formatting, labels
from reporting.report.score_plots import RATIO_CLIP, SEGMENT_LABELS, SEGMENT_TITLES

REFRESH_SECONDS = 3
TARGETS = {"APY": "apy", "TVL": "tvl"}
# classes of segments: those of the report, and the two that have names of the data
SEGMENTS = {**SEGMENT_TITLES, "chain": "Chain", "project": "Protocol"}


@st.cache_data(show_spinner=False, max_entries=4)
def _health(version: DataVersion) -> ModelHealth:
    return model_health(connected().engine)


def show() -> None:
    """Show the page."""
    st.title("Quality of the forecasts")
    version = data_version()
    scoring = scoring_of(version)
    if not scoring.ended.is_set():
        st.fragment(_show_progress, run_every=REFRESH_SECONDS)(scoring)
    elif scoring.error is not None:
        raise scoring.error
    elif scoring.scores is None:
        st.info(
            "No forecast has been scored yet: a forecast is scored when its target day has been"
            " observed. Load the newest history, then run both jobs:"
        )
        commands("calculate_metrics", "forecast_pools")
    else:
        _show_accuracy(scoring.scores)
        _show_errors(scoring.scores.errors)
    health = _health(version)
    show_drift(health)
    show_decisions(health.decisions)


def _show_progress(scoring: Scoring) -> None:
    if scoring.ended.is_set():
        # the whole page: this fragment would only repeat itself
        st.rerun()
    seconds = formatting.duration(time.monotonic() - scoring.started)
    st.progress(
        scoring.step / len(STEPS),
        text=f"The forecasts are being scored, once for each run: {STEPS[scoring.step]} (step"
        f" {scoring.step + 1} of {len(STEPS)}, {seconds} so far). Drift and promotions are below.",
    )


def _show_accuracy(scores: Scores) -> None:
    first = scores.scores[0]
    st.caption(
        f"Target days {first.first_day} to {first.last_day} (UTC), engine {escaped(first.engine)}."
        " Each was forecast from earlier days only. Persistence forecasts today's value for"
        " tomorrow. MAE: mean absolute error; its ratio is to persistence's, under 1 is better."
        f" {escaped(labels.CLASSES['restricted'])}."
    )
    name = st.segmented_control(
        "Value", list(TARGETS), default="APY", key="quality_target", required=True
    )
    target = TARGETS[name or "APY"]
    _show_tiles([score for score in scores.scores if score.target == target])
    _show_forecasters([score for score in scores.scores if score.target == target])
    if target in scores.by_day:
        _show_days(scores.by_day[target], target, scores.level)
    _show_reliability(scores.reliability.get(target, []), scores.level)
    _show_segments([part for part in scores.segments if part.target == target], scores.level)


def _show_tiles(scores: Sequence[ClassAccuracy]) -> None:
    if not scores:
        return
    first = scores[0]
    low, high = first.ratio.mae_low, first.ratio.mae_high
    noise = "too few days for its noise"
    if low is not None:
        noise = f"noise {formatting.ratio(low)} to {formatting.ratio(high)}"
    tiles(
        [
            (
                "MAE ratio",
                formatting.ratio(first.forecasters[0].ratio),
                f"to persistence; {noise}",
            ),
            (
                "Inside the interval",
                formatting.share(first.coverage),
                f"nominal {formatting.share(first.interval_level)}",
            ),
            (
                "Scored forecasts",
                formatting.count(first.rows),
                f"of {first.pools:,} {_pools(first)}",
            ),
        ]
    )


def _pools(score: ClassAccuracy) -> str:
    return "large pools" if score.pool_class == "restricted" else "all pools"


def _show_forecasters(scores: Sequence[ClassAccuracy]) -> None:
    rows: list[dict[str, Any]] = []
    for score in scores:
        rows += [_forecaster_cells(score, errors) for errors in score.forecasters]
    unit = "points of APY" if scores and scores[0].target == "apy" else "USD"
    digits = "%.4f" if unit != "USD" else "localized"
    table(
        pd.DataFrame(rows),
        {
            "forecaster": "forecaster",
            "pools": "pools",
            "mae": st.column_config.NumberColumn(f"MAE, {unit}", format=digits),
            "median_ae": st.column_config.NumberColumn(f"median error, {unit}", format=digits),
            "rmse": st.column_config.NumberColumn(f"RMSE, {unit}", format=digits),
            "ratio": st.column_config.NumberColumn("MAE ratio to persistence", format="%.3f"),
            "rows": st.column_config.NumberColumn("forecasts", format="localized"),
        },
    )


def _forecaster_cells(score: ClassAccuracy, errors: ForecasterErrors) -> dict[str, Any]:
    return {
        "pools": _pools(score),
        "forecaster": labels.FORECASTERS[errors.name],
        "mae": errors.mae,
        "median_ae": errors.median_ae,
        "rmse": errors.rmse,
        "ratio": errors.ratio,
        "rows": score.rows,
    }


def _show_days(days: pd.DataFrame, target: str, level: float) -> None:
    st.header("By day")
    st.caption(
        f"Points: single days. Line: the last {RECENT_DAYS} days, with its noise as a band; it"
        f" starts after {RECENT_DAYS} scored days. Errors are capped at five usual steps of the"
        " pool, so that no single pool decides a day."
    )
    drawn = days.rename(columns={"target_date": "date"})
    # a day of few calm pools may have any ratio, and would flatten the others
    highest = min(float(drawn["capped_ratio"].max()), RATIO_CLIP)
    lowest = float(drawn["capped_ratio"].min())
    charts.show(
        charts.lines(
            drawn,
            [
                Line("capped_ratio", "day", "muted", (2, 3), points="circle"),
                Line("capped_ratio_recent", f"last {RECENT_DAYS} days", "accent"),
            ],
            unit="error relative to persistence",
            band=("capped_ratio_low", "capped_ratio_high"),
            value_format=",.3f",
            domain=(min(lowest, 1.0) - 0.02, max(highest, 1.0) + 0.02),
            reference=1.0,
        ),
        f"{target.upper()}: capped error relative to persistence by target day, from"
        f" {formatting.ratio(lowest)} to {formatting.ratio(float(drawn['capped_ratio'].max()))};"
        " the dashed line at 1 is persistence.",
    )
    _show_coverage(drawn, target, level)


def _show_coverage(days: pd.DataFrame, target: str, level: float) -> None:
    st.subheader("Coverage by day")
    lowest_coverage = float(days["coverage"].min())
    charts.show(
        charts.lines(
            days.assign(
                percent=100 * days["coverage"],
                recent=100 * days["coverage_recent"],
                low=100 * days["coverage_low"],
                high=100 * days["coverage_high"],
            ),
            [
                Line("percent", "day", "muted", (2, 3), points="circle"),
                Line("recent", f"last {RECENT_DAYS} days", "accent"),
            ],
            unit="actual values inside the interval, %",
            band=("low", "high"),
            value_format=",.1f",
            domain=(max(100 * min(lowest_coverage, level) - 3, 0.0), 100.0),
            reference=100 * level,
        ),
        f"{target.upper()}: share of actual values inside the interval by target day, at least"
        f" {formatting.share(lowest_coverage)}; the dashed line is the nominal"
        f" {formatting.share(level)}.",
    )


def _show_reliability(classes: Sequence[IntervalReliability], level: float) -> None:
    st.header("Reliability of the intervals")
    if not classes:
        st.write("No scored forecast has an interval.")
        return
    st.caption(
        f"Forecasts in five classes by the width of their interval in usual steps of the pool. A"
        f" reliable interval contains {formatting.share(level)} of the actual values in every"
        f" class, and leaves {formatting.share((1 - level) / 2)} below and above it."
    )
    rows = pd.DataFrame(
        {
            "segment": part.label,
            "rows": part.rows,
            "below": 100 * part.below,
            "inside": 100 * part.inside,
            "above": 100 * part.above,
        }
        for part in classes
    )
    charts.show(
        charts.segment_points(
            rows, value="inside", unit="actual values inside the interval, %", reference=100 * level
        ),
        "Share of actual values inside the interval by class of width; the table has the numbers.",
    )
    table(
        rows,
        {
            "segment": "interval",
            "rows": st.column_config.NumberColumn("forecasts", format="localized"),
            "below": st.column_config.NumberColumn("below it, %", format="%.1f"),
            "inside": st.column_config.NumberColumn("inside, %", format="%.1f"),
            "above": st.column_config.NumberColumn("above it, %", format="%.1f"),
        },
    )


def _show_segments(segments: Sequence[SegmentScore], level: float) -> None:
    st.header("By segment")
    scored = {part.by for part in segments}
    offered = [by for by in SEGMENTS if by in scored]
    if not offered:
        st.write("No segment has scored forecasts.")
        return
    by = st.selectbox(
        "Segments by", offered, format_func=lambda name: SEGMENTS[name], key="segments", width=220
    )
    rows = pd.DataFrame(
        {
            "segment": SEGMENT_LABELS.get(part.group, one_line(part.group)),
            "rows": part.rows,
            "pools": part.pools,
            "mae_ratio": part.mae_ratio,
            "low": part.mae_ratio_low,
            "high": part.mae_ratio_high,
            "coverage": None if part.coverage is None else 100 * part.coverage,
        }
        for part in segments
        if part.by == by
    )
    # a segment of few pools has ratios far above, which would hide the others
    clipped = rows.assign(
        **{
            name: rows[name].astype(float).clip(upper=RATIO_CLIP)
            for name in ("mae_ratio", "low", "high")
        }
    )
    charts.show(
        charts.segment_points(
            clipped,
            value="mae_ratio",
            unit=f"MAE relative to persistence, up to {RATIO_CLIP:g}",
            reference=1.0,
        ),
        f"MAE relative to persistence by {SEGMENTS[by]}; the table has the numbers.",
    )
    _show_segment_table(rows, by, level)


def _show_segment_table(rows: pd.DataFrame, by: str, level: float) -> None:
    # None in a column of numbers would be shown as a word
    for name in ("low", "high"):
        rows[name] = [formatting.ratio(None if pd.isna(end) else float(end)) for end in rows[name]]
    table(
        rows,
        {
            "segment": SEGMENTS[by],
            "rows": st.column_config.NumberColumn("forecasts", format="localized"),
            "pools": st.column_config.NumberColumn("pools", format="localized"),
            "mae_ratio": st.column_config.NumberColumn("MAE ratio to persistence", format="%.3f"),
            "low": st.column_config.TextColumn("its noise, from", alignment="right"),
            "high": st.column_config.TextColumn("to", alignment="right"),
            "coverage": st.column_config.NumberColumn(
                f"inside the interval, % (nominal {100 * level:g})", format="%.1f"
            ),
        },
    )


def _show_errors(errors: dict[str, list[ForecastError]]) -> None:
    st.header("Largest errors")
    st.caption(
        "In each pool's own usual steps, at most two for each pool. Spike: the value moved by more"
        " than five usual steps that day. New pool: first observed less than 30 days before. As"
        " today: the gate published today's value."
    )
    for target, entries in errors.items():
        if not entries:
            continue
        st.subheader(labels.TARGETS.get(target, target.upper()))
        unit = "%" if target == "apy" else "USD"
        chosen = selectable_table(
            pd.DataFrame([_error_cells(entry) for entry in entries]),
            {
                "label": st.column_config.TextColumn("pool"),
                "day": "target day, UTC",
                "reasons": "reason",
                "scales": st.column_config.NumberColumn("error, usual steps", format="%.1f"),
                "persistence": _number(f"day before, {unit}", target),
                "forecast": _number(f"forecast, {unit}", target),
                "low": _number(f"lower end, {unit}", target),
                "high": _number(f"upper end, {unit}", target),
                "actual": _number(f"actual, {unit}", target),
                "place": "protocol · chain",
                "link": st.column_config.LinkColumn("page", display_text="open"),
            },
            key=f"errors_{target}",
        )
        if chosen is None:
            select_hint("the link to its pool")
        else:
            open_pool(entries[chosen].pool_id, pool_label(entries[chosen]))


def _number(heading: str, target: str) -> Any:
    return st.column_config.NumberColumn(heading, format="%.2f" if target == "apy" else "compact")


def _error_cells(error: ForecastError) -> dict[str, Any]:
    return {
        "label": pool_label(error),
        "place": pool_place(error),
        "day": error.target_date,
        "persistence": error.persistence,
        "forecast": error.forecast,
        "low": error.low,
        "high": error.high,
        "actual": error.actual,
        "scales": error.scales,
        "reasons": ", ".join(labels.ERROR_REASONS[reason] for reason in error.reasons) or "–",
        "link": pool_link(error.pool_id),
    }
