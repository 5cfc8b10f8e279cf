"""Raw rows, calendars and runs from which the metrics job plans, and its plan."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from config_spark import Settings
from data_processing.planning.decision import metric_rules
from data_processing.planning.plan import JOB, plan_metrics
from data_processing.planning.run_plan import Plan
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_store import execute, rows_of

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
TODAY = NOW.date()
TABLE = "yieldspark.a_plan"


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def raw(number: int, pool: str, day: date, **document: Any) -> RawRow:
    return RawRow(
        number, pool, midnight(day) + timedelta(hours=9), document or {"apy": 1.0, "tvlUsd": 2.0}
    )


def add_calendar(
    engine: Engine, pool: str, first: date, last: date, observed: date | None = None
) -> None:
    """Store a pool's calendar as an earlier run leaves it: observed up to `observed`, carried or
    unknown after it.
    """
    execute(
        engine,
        "INSERT INTO yieldspark.pool_coverage VALUES (:pool, :first, :last, :observed)",
        pool=pool,
        first=first,
        last=last,
        observed=observed or last,
    )


def add_run(
    engine: Engine, settings: Settings, watermark: datetime, end: date, **other: Any
) -> None:
    """Add a row of the ledger: a successful incremental run, unless `other` changes it."""
    values = {
        "run_id": f"r{watermark:%H%M%S%f}",
        "status": "succeeded",
        "mode": "incremental",
        "rules": metric_rules(settings),
    } | other
    execute(
        engine,
        "INSERT INTO yieldspark.run_ledger (run_id, job, status, mode, code_version, watermark,"
        " \"end\", plan, rows, stages, checks) VALUES (:run_id, :job, :status, :mode, 'x',"
        " :watermark, :end, CAST(:plan AS jsonb), '{}', '{}', '[]')",
        job=JOB,
        watermark=watermark,
        end=end,
        plan=json.dumps(
            {
                name: values.pop(name)
                for name in ("rules", "request", "unused_since", "seen")
                if name in values
            }
        ),
        **values,
    )


def planned(
    database: Settings, request: Request | None = None, now: datetime = NOW
) -> tuple[Plan, dict[str, dict[str, Any]]]:
    """Return the plan and its table by pool."""
    engine = make_engine(database)
    execute(engine, f"DROP TABLE IF EXISTS {TABLE}")
    plan = plan_metrics(database, engine, request or Request(), table=TABLE, now=now)
    return plan, {row["pool_id"]: row for row in rows_of(engine, f"SELECT * FROM {TABLE}")}
