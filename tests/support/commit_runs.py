"""Databases for tests of commit checks: complete pools, new raw rows and the staging of a run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any

from sqlalchemy import Engine

from config_spark import Settings
from data_processing.commit.metrics_checks import commit_checks
from data_processing.commit.staged_changes import stage_changes
from data_processing.planning.plan import JOB, plan_metrics
from data_processing.planning.run_plan import Plan
from data_processing.planning.run_request import Request
from database.commit_checks import run_checks
from database.ledger.check_result import Acceptance
from database.ledger.runs import Run, open_run
from database.schema.merge_sql import create_staging
from database.schema.owner_tables import METRIC_COLUMNS
from database.staging import staging_name
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_plans import add_calendar, add_run
from tests.support.metrics_store import execute, put_rows, rows_of

NOW = datetime(2024, 6, 3, 6, tzinfo=UTC)
TODAY = NOW.date()
DAY = timedelta(days=1)
NEWEST = TODAY - DAY
FIRST = NEWEST - 5 * DAY
POOLS = [f"pool-{number:02d}" for number in range(40)]


def at(day: date, hour: float = 12) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)


def history(pools: list[str], first: date, end: date, **document: Any) -> list[RawRow]:
    days = (end - first).days
    days_of_pools = product((first + number * DAY for number in range(days)), pools)
    return [
        RawRow(0, pool, at(day), document or {"apy": 5.0, "tvlUsd": 1e6})
        for day, pool in days_of_pools
    ]


def numbered(rows: list[RawRow]) -> list[RawRow]:
    return [
        RawRow(number, row.pool_id, row.timestamp, row.document)
        for number, row in enumerate(rows, start=1)
    ]


class DailyRun:
    """A database whose pools are complete up to `written`, with newer raw rows, and a run that
    plans, stages and checks them.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings, self.engine = settings, engine

    def store_history(self, pools: list[str] = POOLS, *, written: date = NEWEST) -> None:
        put_rows(self.engine, numbered(history(pools, FIRST, written)))
        execute(
            self.engine,
            "INSERT INTO pools (pool_id) SELECT unnest(CAST(:pools AS text[]))",
            pools=pools,
        )
        execute(
            self.engine,
            "INSERT INTO yieldspark.market_series (date) SELECT d::date FROM generate_series(DATE"
            " '2018-01-01', :last, interval '1 day') AS d",
            last=TODAY,
        )
        for pool in pools:
            add_calendar(self.engine, pool, FIRST, written - DAY)
        add_run(self.engine, self.settings, datetime.now(UTC), written)

    def insert_rows(self, rows: list[RawRow]) -> None:
        start = rows_of(
            self.engine, "SELECT coalesce(max(id), 0) AS id FROM raw_defillama_pool_history"
        )[0]["id"]
        put_rows(
            self.engine,
            [
                RawRow(start + number, row.pool_id, row.timestamp, row.document)
                for number, row in enumerate(rows, start=1)
            ],
        )

    def run_checks(
        self,
        request: Request | None = None,
        *,
        acceptance: Acceptance | None = None,
        nulls: dict[str, float] | None = None,
    ) -> dict[str, Any]:
        """Plan, stage the planned days and run the checks.

        Returns the entries by name, and raises the errors of the checks.
        """
        with open_run(self.engine, job=JOB, mode="incremental") as run:
            run.acceptance = acceptance
            plan = plan_metrics(
                self.settings,
                self.engine,
                request or Request(),
                table=staging_name(run, "plan"),
                now=NOW,
            )
            self._stage(run, plan, nulls or {})
            with run.connection.begin():
                staging = staging_name(run, 0)
                stage_changes(run.connection, settings=self.settings, plan=plan, staging=staging)
                run_checks(run, commit_checks(self.settings, plan, staging))
            run.nothing_to_do()
        return {result.name: result.to_json() for result in run.checks}

    def _stage(self, run: Run, plan: Plan, nulls: dict[str, float]) -> None:
        """Stage a row for each planned day, observed where there is a raw row.

        `nulls` is the share of pools in which a column is null.
        """
        metric_types = dict.fromkeys(METRIC_COLUMNS, "double precision")
        types = {
            "pool_id": "text",
            "date": "date",
            **metric_types,
            "apy_staleness_days": "integer",
            "tvl_staleness_days": "integer",
            "snapshot": "bigint",
            "reason": "text",
        }
        staging = staging_name(run, 0)
        number = "coalesce(substring(p.pool_id FROM '^pool-([0-9]+)$')::integer, 99)"
        values = ", ".join(
            f"CASE WHEN {number} >= {nulls.get(name, 0.0) * len(POOLS)} THEN 1.0 END"
            for name in METRIC_COLUMNS
        )
        first_day = (
            "SELECT min(timestamp AT TIME ZONE 'UTC')::date FROM raw_defillama_pool_history AS h"
            " WHERE h.pool_id = p.pool_id"
        )
        execute(self.engine, create_staging(staging, types))
        execute(
            self.engine,
            f"INSERT INTO {staging} SELECT p.pool_id, d::date, {values}, CASE WHEN seen THEN 0 ELSE"
            " 1 END, CASE WHEN seen THEN 0 ELSE 1 END, CASE WHEN seen THEN 1 END, NULL, 0, 0 FROM"
            f" {plan.decision.table} AS p CROSS JOIN"
            f" LATERAL generate_series(greatest(p.write_from, ({first_day})), p.write_end - 1,"
            " interval '1 day') AS d CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM"
            " raw_defillama_pool_history AS h WHERE h.pool_id = p.pool_id AND (h.timestamp AT TIME"
            " ZONE 'UTC')::date = d) AS seen) AS s",
        )


def failing(entries: dict[str, Any]) -> set[str]:
    return {name for name, entry in entries.items() if not entry["passed"]}
