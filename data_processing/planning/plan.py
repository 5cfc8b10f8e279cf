"""What a metrics run will do, decided by SQL before any Spark session exists.

In: the ledger, the raw tables, the market tables and the calendars an earlier run wrote. Out: a
`Plan`, and beside it in the database a table with a row for each pool to recompute. Days are
UTC, intervals half-open. Nothing is computed or written here but that table.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from common.errors import CheckUnfinished, ConfigurationError
from common.jobs import CALCULATE_METRICS
from config_spark import Settings
from data_processing.checks.row_checks import EARLIEST_DAY, changed_row_severities, raw_row_checks
from data_processing.metrics.rolling_metrics import METRIC_RULES, look_back_days, reach_days
from data_processing.planning import changed_pools as touched_pools
from data_processing.planning import plan_sql
from data_processing.planning.adopted_days import adopt_days
from data_processing.planning.last_run import (
    Arrivals,
    LastRun,
    find_new_rows,
    last_good_run,
    read_arrivals,
    read_clock,
)
from data_processing.planning.plan_statistics import plan_facts, rows_to_quarantine
from data_processing.planning.run_plan import Plan
from data_processing.planning.run_request import Request
from data_processing.planning.today import add_today, read_until_now
from data_processing.planning.unread_rows import (
    Reading,
    count_days,
    known_after,
    unread_days,
    unread_sentence,
)
from data_processing.raw.market_series import (
    first_change,
    read_market_series,
    stored_market_series,
)
from data_processing.raw.rows_without_pool import count_rows_without_pool
from database.connections.engine import checked_connection
from database.connections.time_limit import WARN_SECONDS, limited
from database.ledger.estimates import estimate_run
from database.schema.check import verify_tables
from database.schema.metrics_table import require_same_metrics_table, written_metrics_table
from database.schema.table_use import METRICS_USE

log = logging.getLogger(__name__)

JOB = CALCULATE_METRICS.name

ONE_DAY = timedelta(days=1)

COUNTED_ROWS = 200_000
"""Up to so many rows a plan counts what takes a pass over them (missing days) in every run, beyond
it in a dry run only.
"""


def metric_rules(settings: Settings) -> dict[str, Any]:
    """What decides a row's values besides the data: a change of any makes the next run a
    full one.
    """
    limits = ("max_fill_days", "max_apy_percent", "max_tvl_usd", "max_price_usd")
    changed = changed_row_severities(settings)
    return {
        "metric_rules": METRIC_RULES,
        **{name: getattr(settings, name) for name in limits},
        **({"severities": changed} if changed else {}),
    }


def refuse_wrong_use(
    settings: Settings, engine: Engine, request: Request, now: datetime | None = None
) -> None:
    """Stop what must not become a run: no ledger row of it would be in the way of `--retry last`.

    Raises: ConfigurationError for an end in the future, an unknown pool, tables in another schema
    than the last good run's, or another metrics table without a full refresh of all pools;
    SchemaMismatch; DatabaseError.
    """
    today = (now or datetime.now(UTC)).date()
    if request.end and request.end > today:
        raise ConfigurationError(
            f"--end {request.end} is in the future: the last complete UTC day is {today - ONE_DAY},"
            f" so give {today} or an earlier day"
        )
    with checked_connection(engine) as connection:
        plan_sql.require_same_schema(connection, JOB, settings.db_schema)
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
) -> Plan:
    """Decide what to recompute.

    Args: table is the qualified name of the plan's table, which stays for the run to read; a dry
    run rolls it back. now (UTC) is this machine's clock unless given. `refuse_wrong_use` has let
    the request through.
    Raises: SchemaMismatch where the owner's tables are not as expected; DatabaseRefused with the
    GRANT statements where rights are missing; DatabaseError.
    """
    with checked_connection(engine) as connection:
        watermark, hidden = plan_sql.read_watermark(connection)
    if hidden:
        log.warning(
            "role %s can't see when other sessions' transactions began: rows of the last day are"
            " looked at again. Grant it pg_read_all_stats",
            engine.url.username,
        )
        watermark -= ONE_DAY
    with checked_connection(
        engine.execution_options(isolation_level="REPEATABLE READ")
    ) as connection:
        verify_tables(connection, METRICS_USE)
        if adopted := adopt_days(connection, JOB):
            log.info("%d days without a raw row: what their metrics say is kept, rounded", adopted)
        plan = _decide(connection, settings, request, table, watermark, now or datetime.now(UTC))
        plan = _with_facts(connection, settings, plan, dry_run=dry_run)
        if dry_run or not plan.is_empty:
            plan = _with_day_counts(connection, settings, plan)
        if dry_run:
            connection.rollback()
    return plan


def _decide(
    connection: Connection,
    settings: Settings,
    request: Request,
    table: str,
    watermark: datetime,
    now: datetime,
) -> Plan:
    """Choose mode and interval, and make the plan's table."""
    rules = metric_rules(settings)
    previous = last_good_run(connection, JOB)
    reached = plan_sql.days_reached(connection, previous)
    now = _not_behind(now, reached)
    today = now.date()
    arrivals = read_arrivals(connection, previous, watermark=watermark, now=now)
    previous, warnings = _since_last_run(connection, previous, arrivals)
    rewritten = previous is not None and touched_pools.is_rewritten(connection, previous)
    if rewritten:
        warnings += _warn_of_rewriting(request)
    last = (
        previous if request.mode == "incremental" and previous and previous.rules == rules else None
    )
    mode = "full_refresh" if request.mode == "incremental" and last is None else request.mode
    # days that a run has written since the retried one failed may have changed with these: no later
    # run would notice
    before = min(today, max(request.until, reached)) if request.until else today
    checks = raw_row_checks(settings, now)
    touched_pools.find_touched_pools(
        connection, last, request, before=before, now=now, checks=checks
    )
    touched = touched_pools.touched_bounds(connection)
    known_end = last.end if last else None if request.retire_missing else reached
    run_end = _run_end(known_end, touched.newest_day)
    end = min(request.end or run_end, run_end)
    includes_today = settings.include_today and not request.is_partial and not request.until
    market_end = today + ONE_DAY if includes_today else run_end
    market = read_market_series(connection, settings, EARLIEST_DAY, market_end)
    change = (
        first_change(stored_market_series(connection), market, before=run_end) if last else None
    )
    reach = reach_days(settings.max_fill_days)
    plan_sql.find_reasons(connection, request, mode, end=end, market=change, reach=reach)
    provisional = add_today(connection, run_end=run_end, now=now) if includes_today else None
    plan_sql.make_plan_table(
        connection,
        table,
        run_end=run_end,
        look_back=look_back_days(settings.max_fill_days),
        checks=checks,
    )
    if provisional:
        read_until_now(connection, table, now)
    return Plan(
        request,
        mode,
        now,
        watermark,
        rules,
        settings.db_schema,
        settings.metrics_table,
        table,
        end=end if end > EARLIEST_DAY else None,
        since=last.new_from if last else None,
        provisional_from=provisional,
        unused_since=touched.unused_since,
        market=market,
        previous=previous,
        seen=arrivals.seen,
        warnings=warnings,
        is_rewritten=rewritten,
    )


def _run_end(known_end: date | None, newest_day: date | None) -> date:
    """The day after the newest one that is known or touched: no run ends before the last did,
    unless it retires days.
    """
    ends = [known_end, newest_day + ONE_DAY if newest_day else None]
    return max(filter(None, ends), default=EARLIEST_DAY)


def _since_last_run(
    connection: Connection, previous: LastRun | None, arrivals: Arrivals
) -> tuple[LastRun | None, tuple[str, ...]]:
    """The last run with the moment from which on rows are new, and what to warn of."""
    if previous is None:
        return None, ()
    new_from, warning = find_new_rows(previous, arrivals, read_clock(connection))
    if warning is None:
        return replace(previous, new_from=new_from), ()
    log.warning("%s", warning)
    return replace(previous, new_from=new_from), (warning,)


def _warn_of_rewriting(request: Request) -> tuple[str, ...]:
    """A run of some days or pools recomputes these alone."""
    if request.start or request.pools is not None:
        return ()
    log.warning("%s", touched_pools.REWRITTEN)
    return (touched_pools.REWRITTEN,)


def _not_behind(now: datetime, reached: date) -> datetime:
    """This machine's clock, or the begin of the day that a run has reached already: for that one it
    was later than this clock says.
    """
    earliest = datetime.combine(reached, time(), UTC)
    if now < earliest:
        log.warning(
            "this machine's clock says %s, but an earlier run has seen the end of %s: taken as %s."
            " Set the clock",
            now,
            reached - ONE_DAY,
            earliest,
        )
    return max(now, earliest)


def _may_change_every_row(connection: Connection, plan: Plan) -> bool:
    """Whether the stored rows are of other rules, or the table's rows are of another job."""
    return (
        plan.previous is None
        or plan.previous.rules != plan.rules
        or written_metrics_table(connection) != plan.metrics_table
    )


def _with_facts(connection: Connection, settings: Settings, plan: Plan, *, dry_run: bool) -> Plan:
    facts = plan_facts(
        connection,
        plan.table,
        plan.impossible_rows,
        reach=reach_days(settings.max_fill_days),
        rules_changed=plan.mode == "full_refresh" and _may_change_every_row(connection, plan),
        counted_rows=None if dry_run else COUNTED_ROWS,
        retire_missing=plan.request.retire_missing,
    )
    plan = replace(plan, **facts)
    if dry_run:
        bad = rows_to_quarantine(
            connection, plan.table, plan.impossible_rows, raw_row_checks(settings, plan.now)
        )
        if not plan.is_partial:
            bad += count_rows_without_pool(connection)
        plan = replace(plan, rows_to_quarantine=bad)
    if plan.is_empty:
        return replace(plan, estimated_cost_usd=0.0)
    seconds, cost = estimate_run(connection, JOB, rows=plan.rows_to_read + plan.days)
    return replace(
        plan,
        estimated_seconds=seconds,
        estimated_cost_usd=0.0 if settings.environment == "local" else cost,
    )


def _with_day_counts(connection: Connection, settings: Settings, plan: Plan) -> Plan:
    """The plan with what its run will know of each day, and a warning of rows that it leaves
    unread.
    """
    end, last = plan.end or EARLIEST_DAY, plan.previous
    start = {"full_refresh": EARLIEST_DAY, "backfill": plan.request.start}.get(plan.mode)
    reading = Reading(
        None if plan.request.pools else start,
        end,
        max(end, last.end) if last and plan.mode == "backfill" else end,
        reach_days(settings.max_fill_days),
    )
    try:
        with limited(connection, WARN_SECONDS):
            counts = count_days(connection, last, end=end)
    except CheckUnfinished as error:
        warning = f"rows that no run reads were not looked for: {error}"
        log.warning("%s", warning)
        return replace(plan, known_snapshots=None, warnings=(*plan.warnings, warning))
    known = known_after(counts, last, reading, is_partial=plan.is_partial)
    unread = unread_days(counts, last, reading)
    if not unread:
        return replace(plan, rows_unread=0, known_snapshots=known)
    warning = unread_sentence(unread, reading)
    log.warning("%s", warning)
    return replace(
        plan,
        rows_unread=sum(one.unread for one in unread),
        known_snapshots=known,
        warnings=(*plan.warnings, warning),
    )
