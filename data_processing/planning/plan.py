"""Plans a metrics run in SQL, before any Spark session exists.

Reads the run ledger, the raw and market tables and each pool's coverage; returns a `Plan` and
creates a table with a row for each pool to recompute. Days are UTC, intervals half-open. Computes
no metric and writes nothing but that table.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, Engine

from common.errors import CheckUnfinished, ConfigurationError
from common.jobs import CALCULATE_METRICS
from config_spark import Settings
from data_processing.checks.row_checks import EARLIEST_DAY, raw_row_checks
from data_processing.metrics.rolling_metrics import affected_days_after
from data_processing.planning import plan_sql
from data_processing.planning.adopted_days import adopt_days
from data_processing.planning.decision import ONE_DAY, decide
from data_processing.planning.plan_statistics import (
    PlanStatistics,
    read_statistics,
    rows_to_quarantine,
)
from data_processing.planning.run_plan import Decision, Plan
from data_processing.planning.run_request import Request
from data_processing.planning.unread_rows import (
    ReadWindow,
    count_days,
    day_counts_after,
    unread_days,
    unread_message,
)
from data_processing.raw.rows_without_pool import count_rows_without_pool
from database.connections.engine import checked_connection
from database.connections.time_limit import WARN_SECONDS, statement_time_limit
from database.ledger.estimates import estimate_run
from database.schema.check import verify_tables
from database.schema.metrics_table import last_metrics_table, require_same_metrics_table
from database.schema.table_use import METRICS_USE
from spark.executor_choice import IN_PROCESS_RAW_ROWS, choose_executor

log = logging.getLogger(__name__)

JOB = CALCULATE_METRICS.name

COUNTED_ROWS = 200_000
"""Up to this number of raw rows, every run counts missing days, which takes a pass over them. Above
it, only a dry run does.
"""


def validate_request(
    settings: Settings, engine: Engine, request: Request, now: datetime | None = None
) -> None:
    """Reject a request before it becomes a run, so that `--retry last` never finds it.

    Args:
        settings: limits and schema.
        engine: the database.
        request: mode, days and pools.
        now: clock of the run, UTC; default is this machine's.

    Raises:
        ConfigurationError: the end is in the future, a pool is unknown, the tables are in another
            schema than those of the last good run, or another metrics table is named without a full
            refresh of all pools.
        SchemaMismatch: the owner's tables are not as expected.
        DatabaseError: the database refused a statement.
    """
    today = (now or settings.now()).date()
    if request.end and request.end > today:
        raise ConfigurationError(
            f"--end {request.end} is in the future: the last complete UTC day is {today - ONE_DAY},"
            f" so give {today} or an earlier day"
        )
    with checked_connection(engine) as connection:
        plan_sql.require_same_schema(connection, JOB, settings.db_schema)
        # a full refresh of all pools may fill another table
        if not (request.full_refresh and request.pools is None):
            require_same_metrics_table(connection)
        if request.pools:
            verify_tables(connection, METRICS_USE)
            plan_sql.require_known_pools(connection, request.pools)


def plan_metrics(
    settings: Settings,
    engine: Engine,
    request: Request,
    *,
    table: str,
    now: datetime | None = None,
    dry_run: bool = False,
    prefers_spark: bool = False,
) -> Plan:
    """Decide what to recompute.

    Args:
        settings: limits and table names.
        engine: the database.
        request: a request that `validate_request` accepted.
        table: qualified name of the plan's table, which stays for the run to read.
        now: clock of the run, UTC; default is this machine's.
        dry_run: roll the plan's table back, and count the rows to quarantine.
        prefers_spark: whether EXECUTOR=auto is Spark, whatever the number of rows.

    Raises:
        SchemaMismatch: the owner's tables are not as expected.
        DatabaseRefused: rights are missing; the message has the GRANT statements.
        DatabaseError: the database refused a statement.
    """
    # before the plan's snapshot: see `read_watermark`
    with checked_connection(engine) as connection:
        watermark, is_hidden = plan_sql.read_watermark(connection)
    if is_hidden:
        log.warning(
            "role %s can't see when other sessions' transactions began: rows of the last day are"
            " looked at again. Grant it pg_read_all_stats",
            engine.url.username,
        )
        watermark -= ONE_DAY
    # one snapshot: all queries of the plan see the same rows
    with checked_connection(
        engine.execution_options(isolation_level="REPEATABLE READ")
    ) as connection:
        verify_tables(connection, METRICS_USE)
        if adopted := adopt_days(connection, JOB):
            log.info(
                "%d days have no raw row: their stored metrics are adopted as they are, rounded",
                adopted,
            )
        decision, warnings = decide(
            connection, settings, request, table, watermark, now or settings.now()
        )
        plan = Plan(request, decision, warnings=warnings)
        plan = replace(plan, statistics=_statistics(connection, settings, plan, dry_run=dry_run))
        plan = _with_executor(connection, settings, plan, prefers_spark=prefers_spark)
        if dry_run or not plan.is_empty:
            plan = _with_day_counts(connection, settings, plan)
        if dry_run:
            # takes the plan's table back as well
            connection.rollback()
    return plan


def _may_change_every_row(connection: Connection, decision: Decision) -> bool:
    """Return whether the stored rows have other rules or were written by another job."""
    return (
        decision.previous is None
        or decision.previous.rules != decision.rules
        or last_metrics_table(connection) != decision.metrics_table
    )


def _statistics(
    connection: Connection, settings: Settings, plan: Plan, *, dry_run: bool
) -> PlanStatistics:
    decision = plan.decision
    is_full = decision.mode == "full_refresh"
    statistics = read_statistics(
        connection,
        decision.table,
        plan.out_of_range_rows,
        reach=affected_days_after(settings.max_fill_days),
        rules_changed=is_full and _may_change_every_row(connection, decision),
        counted_rows=None if dry_run else COUNTED_ROWS,
        retire_missing=plan.request.retire_missing,
    )
    if dry_run:
        bad = rows_to_quarantine(
            connection,
            decision.table,
            plan.out_of_range_rows,
            raw_row_checks(settings, decision.now),
        )
        if not plan.is_partial:
            bad += count_rows_without_pool(connection)
        statistics = replace(statistics, rows_to_quarantine=bad)
    return statistics


def _with_executor(
    connection: Connection, settings: Settings, plan: Plan, *, prefers_spark: bool
) -> Plan:
    """Add the executor, and the estimates from its past runs."""
    statistics = plan.statistics
    if plan.is_empty:
        return replace(plan, statistics=replace(statistics, estimated_cost_usd=0.0))
    executor = choose_executor(
        settings,
        statistics.rows_to_read,
        limit=IN_PROCESS_RAW_ROWS,
        prefers_spark=prefers_spark,
    )
    rows = statistics.rows_to_read + statistics.days
    seconds, cost = estimate_run(connection, JOB, rows=rows, executor=executor.name)
    statistics = replace(
        statistics,
        estimated_seconds=seconds,
        estimated_cost_usd=0.0 if settings.environment == "local" else cost,
    )
    return replace(plan, statistics=statistics, executor=executor)


def _with_day_counts(connection: Connection, settings: Settings, plan: Plan) -> Plan:
    """Add the day counts after the run, and a warning if it leaves raw rows unread."""
    decision = plan.decision
    end, last = decision.end or EARLIEST_DAY, decision.previous
    start = {"full_refresh": EARLIEST_DAY, "backfill": plan.request.start}.get(decision.mode)
    # a run of some pools reads no day completely
    window = ReadWindow(
        None if plan.request.pools else start,
        end,
        max(end, last.end) if last and decision.mode == "backfill" else end,
        affected_days_after(settings.max_fill_days),
    )
    try:
        with statement_time_limit(connection, WARN_SECONDS):
            counts = count_days(connection, last, end=end)
    except CheckUnfinished as error:
        warning = f"rows that no run reads were not looked for: {error}"
        log.warning("%s", warning)
        return replace(plan, day_counts=None, warnings=(*plan.warnings, warning))
    day_counts = day_counts_after(counts, last, window, is_partial=plan.is_partial)
    unread = unread_days(counts, last, window)
    warnings = plan.warnings
    if unread:
        warning = unread_message(unread, window)
        log.warning("%s", warning)
        warnings = (*warnings, warning)
    rows_unread = sum(day.unread for day in unread)
    return replace(
        plan,
        statistics=replace(plan.statistics, rows_unread=rows_unread),
        day_counts=day_counts,
        warnings=warnings,
    )
