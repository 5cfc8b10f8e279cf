"""What a metrics run will do, decided by SQL before any Spark session exists.

In: the ledger, the raw tables, the market tables and the rows an earlier run wrote. Out: a frozen `Plan`, and beside it in the database a table
with a row for each pool to recompute. Days are UTC, intervals half-open. Nothing is computed or written here but that table.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine

from config_spark import Settings
from data_processing import plan_sql
from data_processing.market_series import MarketDay, first_changed_day, read_market_series, stored_market_series
from data_processing.quality_checks import EARLIEST_DAY, raw_row_checks
from data_processing.raw_history import impossible_rows
from data_processing.rolling_metrics import METRIC_RULES, look_back_days
from database.connection import checked_connection
from database.schema_check import verify_tables
from database.tables import OWNER_TABLES
from product_errors import ConfigurationError

log = logging.getLogger(__name__)

JOB = "calculate_pool_metrics"

ONE_DAY = timedelta(days=1)

REASONS = {"incremental": plan_sql.CHANGES, "backfill": plan_sql.INTERVAL, "full_refresh": plan_sql.ALL_POOLS}

Mode = Literal["incremental", "backfill", "full_refresh"]


@dataclass(frozen=True)
class Request:
    """What the caller asked for. Raises: ConfigurationError for an interval that is none."""

    full_refresh: bool = False
    start: date | None = None
    end: date | None = None

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None):
            raise ConfigurationError("--start and --end go together: give both days, as YYYY-MM-DD, or neither")
        if self.start and self.end and self.start >= self.end:
            raise ConfigurationError(f"--start {self.start} is not before --end {self.end}; the interval is half-open, [start, end)")
        if self.start and self.full_refresh:
            raise ConfigurationError("--full-refresh recomputes every day: leave out --start and --end, or leave out --full-refresh")

    @property
    def mode(self) -> Mode:
        """The mode asked for; a plan may widen an incremental one."""
        return "full_refresh" if self.full_refresh else "backfill" if self.start else "incremental"


@dataclass(frozen=True)
class Plan:
    """One run: which days of which pools, why, and what it reads.

    `end` is exclusive: the run's end, or the backfill's. `since` is the last good run's watermark: raw rows inserted before it are known.
    `watermark` is what the next run starts from. `rows_to_quarantine` is only counted when asked for. `market` is the series the run uses and stores.
    """

    mode: Mode
    now: datetime
    watermark: datetime
    rules: Mapping[str, Any]
    table: str
    start: date | None = None
    end: date | None = None
    since: datetime | None = None
    pools: int = 0
    days: int = 0
    rows_to_read: int = 0
    rows_to_quarantine: int | None = None
    reasons: Mapping[str, int] | None = None
    market: tuple[MarketDay, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.pools == 0 and self.rows_to_read == 0

    @property
    def impossible_rows(self) -> str | None:
        """The condition for raw rows of no possible day, which a backfill leaves alone."""
        return None if self.mode == "backfill" else impossible_rows(self.now, self.since)

    def public(self) -> dict[str, Any]:
        """What the ledger keeps and a dry run prints: plain JSON values."""
        names = ("mode", "start", "end", "since", "watermark", "pools", "days", "rows_to_read", "rows_to_quarantine")
        values = {name: getattr(self, name) for name in names}
        return {
            **{name: value.isoformat() if isinstance(value, date) else value for name, value in values.items()},
            "reasons": dict(self.reasons or {}),
            "rules": dict(self.rules),
        }


def metric_rules(settings: Settings) -> dict[str, Any]:
    """What decides a row's values besides the data: a change of any makes the next run a full one."""
    limits = ("max_fill_days", "max_apy_percent", "max_tvl_usd", "max_price_usd")
    return {"metric_rules": METRIC_RULES, **{name: getattr(settings, name) for name in limits}}


def plan_metrics(settings: Settings, engine: Engine, request: Request, *, table: str, now: datetime | None = None, dry_run: bool = False) -> Plan:
    """Decide what to recompute.

    Args: table is the qualified name of the plan's table, which stays for the run to read; a dry run rolls it back. now (UTC) is this machine's
    clock unless given.
    Raises: ConfigurationError for an end in the future; SchemaMismatch where the owner's tables are not as expected; DatabaseError.
    """
    with checked_connection(engine) as connection:
        watermark, hidden = plan_sql.read_watermark(connection)
    if hidden:
        log.warning(
            "role %s can't see when other sessions' transactions began: rows of the last day are looked at again. Grant it pg_read_all_stats",
            engine.url.username,
        )
        watermark -= ONE_DAY
    with checked_connection(engine.execution_options(isolation_level="REPEATABLE READ")) as connection:
        verify_tables(connection, OWNER_TABLES)
        plan = _decide(connection, settings, request, table, watermark, now or datetime.now(UTC))
        plan = _with_facts(connection, settings, plan, count_rejected=dry_run)
        if dry_run:
            connection.rollback()
    return plan


def _decide(connection: Connection, settings: Settings, request: Request, table: str, watermark: datetime, now: datetime) -> Plan:
    """Choose mode and interval, and make the plan's table."""
    today = now.date()
    if request.end and request.end > today:
        raise ConfigurationError(
            f"--end {request.end} is in the future: the last complete UTC day is {today - ONE_DAY}, so give {today} or an earlier day"
        )
    rules = metric_rules(settings)
    last = plan_sql.last_good_run(connection, JOB) if request.mode == "incremental" else None
    last = last if last and last.rules == rules else None
    mode = "full_refresh" if request.mode == "incremental" and last is None else request.mode
    plan_sql.find_touched_pools(connection, last, today)
    newest = plan_sql.newest_touched_day(connection)
    run_end = max(filter(None, [last.end if last else None, newest + ONE_DAY if newest else None]), default=EARLIEST_DAY)
    end = min(request.end or run_end, run_end)
    market = read_market_series(connection, settings, EARLIEST_DAY, run_end)
    market_from = first_changed_day(stored_market_series(connection), market, before=last.end) if last else None
    plan_sql.make_plan_table(
        connection,
        table,
        REASONS[mode],
        start=request.start,
        end=end,
        run_end=run_end,
        market_from=market_from,
        look_back=look_back_days(settings.max_fill_days),
        checks=raw_row_checks(settings, now),
    )
    return Plan(mode, now, watermark, rules, table, end=end if end > EARLIEST_DAY else None, since=last.watermark if last else None, market=market)


def _with_facts(connection: Connection, settings: Settings, plan: Plan, *, count_rejected: bool) -> Plan:
    facts = plan_sql.plan_facts(connection, plan.table, plan.impossible_rows)
    if count_rejected:
        facts["rows_to_quarantine"] = plan_sql.rows_to_quarantine(connection, plan.table, plan.impossible_rows, raw_row_checks(settings, plan.now))
    return replace(plan, **facts)
