"""Alerts of a soak: those that fired, by the conditions of terraform/monitoring.tf over the points,
and those that should have, by what happened.

What should fire is derived from executions, rows and tables, never from the points.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, text

from benchmarks.processes import PROJECT
from benchmarks.soak.nights import Night
from benchmarks.soak.world import ENGINE, World
from common.events import METRICS_NOT_EMITTED
from common.jobs import CALCULATE_METRICS, FORECAST_POOLS, job_names
from database.schema.own_tables import GOOD
from emulator.services.alert_conditions import Alerts, Points, counted_entries, firing
from workflows.spec.release_paths import VALIDATE

PLAN = PROJECT / "tests" / "support" / "terraform_inventory.json"
"""Conditions of the plan of terraform/, with the default limits; a test compares it with the plan.
"""

DATA_AGE_LIMIT, NO_SUCCESS_LIMIT = timedelta(hours=26), timedelta(hours=26)
QUARANTINE_LIMIT, PERSISTENCE_LIMIT, MODEL_AGE_LIMIT = 0.05, 0.9, 21
COVERAGE_LIMITS, COVERAGE_DAYS, MIN_COVERAGE_DAYS = (0.7, 0.9), 14, 7

FORECAST_ALERTS = frozenset({"persistence-share", "model-age", "interval-coverage"})

EXECUTION_LENGTH = 36

KILLED = "the driver ended without closing the run"
"""Error in the ledger of a run whose driver was killed; such a run writes no point."""


@dataclass(frozen=True)
class LedgerRun:
    """A run of the ledger, with the night that it belongs to."""

    night: int
    job: str
    status: str
    error: str | None
    as_of: date | None
    run_id: str
    rows: Mapping[str, int]
    batch_id: str

    @property
    def is_good(self) -> bool:
        return self.status in GOOD


RUNS = text("""
    SELECT job, status, error, as_of, run_id, rows, batch_id
    FROM yieldspark.run_ledger
    ORDER BY started_at
""")


def ledger_runs(connection: Connection, nights: Sequence[Night]) -> list[LedgerRun]:
    """Return the runs of the nights, in order of their start."""
    night_of = {execution.name: night.number for night in nights for execution in night.executions}
    runs = []
    for row in connection.execute(RUNS).mappings():
        # a batch's id ends with the execution, a UUID
        execution = (row["batch_id"] or "")[-EXECUTION_LENGTH:]
        if execution in night_of:
            runs.append(LedgerRun(night=night_of[execution], **row))
    return runs


def fired_alerts(world: World, nights: Sequence[Night], end: datetime) -> list[set[str]]:
    """Return the alerts that fired in each night, until the next one begins.

    Args:
        world: its points and the workflow's log.
        nights: the nights.
        end: end of the last night.
    """
    plan = json.loads(PLAN.read_text(encoding="utf-8"))
    alerts: Alerts = plan["alerts"]
    points: Points = {**world.cloud.monitoring.points, **_log_points(world, plan["log_metrics"])}
    return [firing(alerts, points, *interval) for interval in _intervals(nights, end)]


def _intervals(nights: Sequence[Night], end: datetime) -> Iterator[tuple[datetime, datetime]]:
    ends = [*(night.since for night in nights[1:]), end]
    for night, following in zip(nights, ends, strict=True):
        yield night.since, following - timedelta(microseconds=1)


def _log_points(world: World, filters: Mapping[str, str]) -> dict[Any, Any]:
    """Return the points of the metrics that count log entries."""
    return {
        (f"logging.googleapis.com/user/{name}", ()): [
            (logged.at, float(counted_entries(condition, [logged.entry]))) for logged in world.log
        ]
        for name, condition in filters.items()
    }


def batches_without_points(world: World) -> frozenset[str]:
    """Return the batches whose points were not all written within the time of a run's emission, as
    on a machine with too much other work.
    """
    event = METRICS_NOT_EMITTED.name.encode()
    outputs = world.cloud.dataproc.outputs()
    return frozenset(batch_id for batch_id, output in outputs.items() if event in output)


def expected_alerts(
    world: World,
    nights: Sequence[Night],
    end: datetime,
    without_points: frozenset[str] = frozenset(),
) -> list[set[str]]:
    """Return the alerts that should have fired in each night.

    Args:
        world: its tables.
        nights: the nights.
        end: end of the last night.
        without_points: batches whose runs wrote no point.
    """
    # those of forecasts are there since the night was over
    expected = [set(night.expected) for night in nights]
    for night, alerts in zip(nights, expected, strict=True):
        if any(execution.failed for execution in night.executions):
            alerts.add("workflow-failed")
        if night.fault.is_costly:
            alerts.add("cost")
    with world.engine.connect() as connection:
        runs = ledger_runs(connection, nights)
        for run in runs:
            if run.job == VALIDATE and not run.is_good:
                expected[run.night].add("validation-failed")
            if run.batch_id in without_points:
                if run.job == FORECAST_POOLS.name:
                    expected[run.night] -= FORECAST_ALERTS
            elif run.job == CALCULATE_METRICS.name and _is_flooded(connection, run):
                expected[run.night].add("quarantine-share")
    for number in _nights_of_old_data(nights, runs, without_points):
        expected[number].add("data-age")
    with_points = [run for run in runs if run.batch_id not in without_points]
    for number in _nights_without_success(nights, with_points, end):
        expected[number].add("no-success")
    return expected


NEWLY_REJECTED = text("""
    SELECT count(DISTINCT source_id)
    FROM yieldspark.quarantine
    WHERE run_id = :run_id
        AND source_table = 'raw_defillama_pool_history'
""")


def _is_flooded(connection: Connection, run: LedgerRun) -> bool:
    rejected = int(connection.execute(NEWLY_REJECTED, {"run_id": run.run_id}).scalar_one())
    return rejected > QUARANTINE_LIMIT * run.rows["read"]


def _nights_of_old_data(
    nights: Sequence[Night],
    runs: Sequence[LedgerRun],
    without_points: frozenset[str],
) -> Iterator[int]:
    """Yield the nights with a run at whose end the newest stored day was too long over."""
    # before the first good run there is no stored day, and no point
    newest: date | None = None
    for run in runs:
        if run.job not in job_names():
            continue
        night = nights[run.night]
        if run.job == CALCULATE_METRICS.name and run.is_good:
            assert night.newest_day is not None, "it is set when the rows arrive"
            newest = night.newest_day
        known = newest if run.job == CALCULATE_METRICS.name else run.as_of
        # all runs of a night end within minutes of one of its starts
        age = night.since.date() - known - timedelta(days=1) if known else timedelta(0)
        has_points = run.error != KILLED and run.batch_id not in without_points
        if has_points and age + timedelta(hours=2, minutes=20) > DATA_AGE_LIMIT:
            yield run.night


def _nights_without_success(
    nights: Sequence[Night], runs: Sequence[LedgerRun], end: datetime
) -> Iterator[int]:
    """Yield the nights in which a job's last success becomes too old."""
    ends = {execution.name: execution.ended for night in nights for execution in night.executions}
    for job in (CALCULATE_METRICS.name, FORECAST_POOLS.name):
        good = [run for run in runs if run.job == job and run.is_good]
        # without a first success, there is no absence
        times = sorted(_ended(nights[run.night], ends) for run in good)
        for last, following in pairwise([*times, end]):
            if following - last > NO_SUCCESS_LIMIT:
                yield _night_at(nights, last + NO_SUCCESS_LIMIT)


def _ended(night: Night, ends: Mapping[str, datetime]) -> datetime:
    return max(ends[execution.name] for execution in night.executions)


def _night_at(nights: Sequence[Night], moment: datetime) -> int:
    return max(night.number for night in nights if night.since <= moment)


FORECASTS = text("""
    SELECT avg((apy_fallback_reason IS NOT NULL)::int)::float8 AS persistence,
        max(model_version) AS version
    FROM yieldspark.forecasts
    WHERE as_of = :as_of
        AND engine = :engine
""")

FITTED = text("SELECT min(as_of) FROM yieldspark.promotion WHERE challenger = :version")

COVERAGE = text("""
    SELECT avg((actual BETWEEN low AND high)::int)::float8 AS coverage
    FROM yieldspark.forecast_evaluation
    WHERE target_date > CAST(:as_of AS date) - :days
        AND target_date <= :as_of
        AND engine = :engine
        AND source = 'production'
        AND actual IS NOT NULL
        AND low IS NOT NULL
    GROUP BY target
    HAVING count(DISTINCT target_date) >= :least
""")


def forecast_alerts(world: World, night: Night) -> list[str]:
    """Return the alerts that the forecasts must cause after a night, before later corrections of
    its actual values.
    """
    with world.engine.connect() as connection:
        runs = [run for run in ledger_runs(connection, [night]) if run.job == FORECAST_POOLS.name]
        # a run that was killed writes no point, and one that failed early knows no day
        ended = [run for run in runs if run.as_of and run.status != "running"]
        return sorted({alert for run in ended for alert in _of_forecasts(connection, run)})


def _of_forecasts(connection: Connection, run: LedgerRun) -> Iterator[str]:
    values = {"as_of": run.as_of, "engine": ENGINE}
    row = connection.execute(FORECASTS, values).one()
    if (row.persistence or 0.0) > PERSISTENCE_LIMIT:
        yield "persistence-share"
    fitted = connection.execute(FITTED, {"version": row.version}).scalar()
    if fitted and run.as_of and (run.as_of - fitted).days > MODEL_AGE_LIMIT:
        yield "model-age"
    window = values | {"days": COVERAGE_DAYS, "least": MIN_COVERAGE_DAYS}
    low, high = COVERAGE_LIMITS
    shares = connection.execute(COVERAGE, window).scalars()
    if any(not low <= share <= high for share in shares):
        yield "interval-coverage"
