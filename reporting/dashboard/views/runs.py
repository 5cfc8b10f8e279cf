"""Page Runs: the run ledger, and one run's plan, stages, cost, checks and changes; a running one is
read again every few seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from reporting.dashboard import charts
from reporting.dashboard.connection import connected
from reporting.dashboard.page_parts import (
    PAGE_ROWS,
    Pager,
    commands,
    escaped,
    one_line,
    select_hint,
    selectable_table,
    shell_word,
    table,
    texts,
    tiles,
    utc,
)
from reporting.figures.run_history import (
    LedgerRun,
    RunKey,
    earlier_stages,
    ledger_run,
    run_changes,
    run_choices,
    run_page,
)
from reporting.report import formatting

REFRESH_SECONDS = 5
ALL = "all"
RUNNING = "running"
# the sign says the status without its colour
STATUS_SIGNS = {
    "succeeded": "✓",
    "nothing_to_do": "✓",
    "failed": "✗",
    "blocked": "✗",
    "cancelled": "–",
    RUNNING: "…",
}
ROW_COUNTS = ("read", "inserted", "updated", "unchanged", "removed", "quarantined")


def show() -> None:
    """Show the page."""
    st.title("Runs")
    jobs, statuses = run_choices(connected().engine)
    if not jobs:
        st.info("No job has run yet. Load history, then run both jobs:")
        commands("load FILE...", "calculate_metrics", "forecast_pools")
        return
    st.caption("Times are UTC, durations in seconds, costs in USD.")
    with st.container(horizontal=True):
        job = st.selectbox("Job", [ALL, *jobs], key="run_job", width=240)
        status = st.selectbox(
            "Status", [ALL, *statuses], format_func=_status, key="run_status", width=200
        )
    pager = Pager("runs", (job, status))
    listed = run_page(
        connected().engine,
        job=None if job == ALL else job,
        status=None if status == ALL else status,
        after=pager.after,
        limit=PAGE_ROWS + 1,
    )
    runs = listed[:PAGE_ROWS]
    if not runs:
        st.write("No run matches.")
        return
    chosen = _show_ledger(runs)
    last = runs[-1]
    pager.buttons(RunKey(last.started_at, last.run_id) if len(listed) > PAGE_ROWS else None)
    wanted = _wanted(runs, chosen)
    if any(run.status == RUNNING for run in runs) or (wanted and wanted.status == RUNNING):
        st.fragment(_show_run, run_every=REFRESH_SECONDS)(wanted.run_id if wanted else "")
    elif wanted:
        _show_run(wanted.run_id)


def _wanted(runs: Sequence[LedgerRun], chosen: int | None) -> LedgerRun | None:
    """The selected run; without one that of the link `?run=ID`, a running one, or the newest."""
    if chosen is not None:
        st.query_params["run"] = runs[chosen].run_id
        return runs[chosen]
    if linked := st.query_params.get("run"):
        if run := ledger_run(connected().engine, linked):
            return run
        st.warning(f"The run ledger has no run {escaped(linked)}. Select one above.")
    return next((run for run in runs if run.status == RUNNING), runs[0])


def _show_ledger(runs: Sequence[LedgerRun]) -> int | None:
    rows = pd.DataFrame([_cells(run) for run in runs])
    number = {
        name: st.column_config.NumberColumn(f"{name}, rows", format="localized")
        for name in ROW_COUNTS
    }
    chosen = selectable_table(
        texts(rows, "job", "status", "mode", "engine", "run_id", "as_of", "seconds", "cost_usd"),
        {
            "started": st.column_config.TextColumn("started, UTC"),
            "job": "job",
            "status": "status",
            "mode": "mode",
            "as_of": "as-of day, UTC",
            "seconds": st.column_config.TextColumn("duration, s", alignment="right"),
            "cost_usd": st.column_config.TextColumn("cost, USD", alignment="right"),
            **number,
            "engine": "engine",
            "run_id": "run id",
        },
        key="run_table",
        # no empty rows below a few runs; many scroll, so that the chosen one stays in sight
        height=min(38 + 35 * len(runs), 420),
    )
    select_hint("its plan, stages, checks and changes")
    return chosen


def _cells(run: LedgerRun) -> dict[str, Any]:
    return {
        "started": utc(run.started_at),
        "job": run.job,
        "status": _status(run.status),
        "mode": run.mode,
        "as_of": run.as_of,
        "seconds": None if run.seconds is None else f"{run.seconds:,.1f}",
        "cost_usd": None if run.cost_usd is None else f"{run.cost_usd:,.4f}",
        "engine": run.engine,
        "run_id": run.run_id,
        **{name: run.rows.get(name) for name in ROW_COUNTS},
    }


def _status(status: str) -> str:
    if status == ALL:
        return ALL
    return f"{STATUS_SIGNS.get(status, '')} {one_line(status).replace('_', ' ')}".strip()


def _show_run(run_id: str) -> None:
    # read again: a running one has changed since the page was shown
    run = ledger_run(connected().engine, run_id)
    if run is None:
        return
    st.header(f"Run {escaped(run.run_id)}")
    ended = f"to {utc(run.finished_at)}" if run.finished_at else "not ended"
    st.caption(
        f"{escaped(run.job)}, {escaped(_status(run.status))}; {utc(run.started_at)} {ended} (UTC);"
        f" version {escaped(run.code_version)}"
        + (f"; batch {escaped(run.batch_id)}" if run.batch_id else "")
    )
    if run.error:
        st.error(escaped(run.error), icon=":material/error:")
    if run.status == RUNNING:
        _show_progress(run)
    _show_facts(run)
    _show_stages(run.stages)
    _show_checks(run.checks)
    if run.plan:
        with st.expander("Plan: what the run set out to do, and the limits of its rows"):
            st.json(dict(run.plan), expanded=1)


def _show_progress(run: LedgerRun) -> None:
    usual = earlier_stages(connected().engine, run.run_id)
    done = [stage for stage in usual if stage in run.stages]
    share, remaining = progress(run.stages, usual, run.age_seconds)
    names = ", ".join(stage.replace("_", " ") for stage in run.stages) or "none yet"
    text = f"{formatting.duration(run.age_seconds)} since the start; stages that ended: {names}"
    if usual:
        text += f" ({len(done)} of {len(usual)} of the last run like it"
        text += f"; about {formatting.duration(remaining)} left)" if remaining else ")"
        st.progress(share, text=escaped(text))
    else:
        st.info(escaped(text))


def progress(
    stages: Mapping[str, float], usual: Mapping[str, float], age_seconds: float
) -> tuple[float, float]:
    """Return the share of a run that is done, 0 to 1, and the seconds that are left.

    Args:
        stages: seconds of the stages that have ended.
        usual: seconds of all stages of the last run like it.
        age_seconds: time since the start.
    """
    total = sum(usual.values())
    if not total:
        return 0.0, 0.0
    ended = sum(seconds for stage, seconds in usual.items() if stage in stages)
    # the time since the last stage counts, but never as a whole stage
    current = next((usual[stage] for stage in usual if stage not in stages), 0.0)
    inside = min(max(age_seconds - sum(stages.values()), 0.0), 0.95 * current)
    return min((ended + inside) / total, 1.0), max(total - ended - inside, 0.0)


def _show_facts(run: LedgerRun) -> None:
    days = f"{run.start} to {run.end}, the last excluded" if run.start and run.end else "–"
    tiles(
        [
            ("Duration", formatting.duration(run.seconds), run.mode or ""),
            (
                "Cost",
                "–" if run.cost_usd is None else f"\\${run.cost_usd:,.4f}",
                "USD" if run.cost_usd is not None else "none is recorded: no cloud, or no bill yet",
            ),
            ("As-of day" if run.as_of else "Days", str(run.as_of or days), "UTC"),
        ]
    )
    st.subheader("What it changed")
    if run.undone_at:
        st.info(
            f"Undone on {utc(run.undone_at)} UTC by {escaped(run.undone_by)}: the rows that it"
            " replaced were restored."
        )
    changes = {
        f"rows {name}": count for name, count in run.rows.items() if isinstance(count, int)
    } | run_changes(connected().engine, run.run_id)
    rows = pd.DataFrame({"change": list(changes), "rows": list(changes.values())})
    table(
        texts(rows, "change"),
        {
            "change": "change",
            "rows": st.column_config.NumberColumn("rows", format="localized"),
        },
        height="content",
    )
    if run.is_undoable and not run.undone_at:
        st.write("The rows that it replaced are kept. Show what changed, or restore them:")
        word = shell_word(run.run_id)
        commands(f"runs diff {word}", f"undo {word} --dry-run", f"undo {word}")


def _show_stages(stages: Mapping[str, float]) -> None:
    st.subheader("Stages")
    if not stages:
        st.write("No stage has ended yet.")
        return
    rows = pd.DataFrame(
        {"stage": [one_line(name) for name in stages], "seconds": list(stages.values())}
    )
    longest = max(stages, key=lambda name: stages[name])
    charts.show(
        charts.bars(
            rows, category="stage", value="seconds", title="stage", unit="duration, seconds"
        ),
        f"Seconds by stage, in the order they ran; the longest is {one_line(longest)} with"
        f" {stages[longest]:,.1f} s.",
    )


def _show_checks(checks: Sequence[Mapping[str, Any]]) -> None:
    st.subheader("Checks")
    if not checks:
        st.write("The run recorded no checks.")
        return
    rows = pd.DataFrame(
        {
            "check": check["name"],
            "result": _result(check),
            "severity": check.get("severity"),
            "found": check.get("found"),
        }
        for check in checks
    )
    table(
        texts(rows, "check", "result", "severity", "found"),
        {
            "check": "check",
            "result": "result",
            "found": st.column_config.TextColumn("found", width=420),
            "severity": "severity",
        },
        height="content",
    )


def _result(check: Mapping[str, Any]) -> str:
    if check.get("passed"):
        return "✓ passed"
    return "✗ blocks" if check.get("severity") == "fail" else "! warns"
