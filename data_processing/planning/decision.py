"""Decides what a metrics run recomputes: mode, interval, market series and inputs.

Reads the run ledger, the raw and market tables and each pool's coverage inside the plan's snapshot;
returns a `Decision` and creates the plan's table, one row for each pool to recompute. Days are UTC,
intervals half-open.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection

from common.jobs import CALCULATE_METRICS
from config_spark import Settings
from data_processing.checks.row_checks import (
    EARLIEST_DAY,
    RowCheck,
    changed_row_severities,
    raw_row_checks,
)
from data_processing.metrics.rolling_metrics import (
    METRIC_RULES,
    affected_days_after,
    look_back_days,
)
from data_processing.planning import changed_pools, plan_sql
from data_processing.planning.changed_pools import ChangedRange
from data_processing.planning.last_run import (
    Arrivals,
    LastRun,
    find_new_rows,
    last_good_run,
    read_arrivals,
    read_clock,
)
from data_processing.planning.run_plan import Decision
from data_processing.planning.run_request import Mode, Request
from data_processing.planning.today import add_today, extend_reads_to_now
from data_processing.raw.market_series import (
    MarketChange,
    MarketDay,
    first_change,
    read_market_series,
    stored_market_series,
)

log = logging.getLogger(__name__)

ONE_DAY = timedelta(days=1)


def metric_rules(settings: Settings) -> dict[str, Any]:
    """Return the versions and limits that decide a metric's value besides the data.

    A change of any of them makes the next run a full refresh.
    """
    limits = ("max_fill_days", "max_apy_percent", "max_tvl_usd", "max_price_usd")
    changed = changed_row_severities(settings)
    return {
        "metric_rules": METRIC_RULES,
        **{name: getattr(settings, name) for name in limits},
        **({"severities": changed} if changed else {}),
    }


def decide(
    connection: Connection,
    settings: Settings,
    request: Request,
    table: str,
    watermark: datetime,
    now: datetime,
) -> tuple[Decision, tuple[str, ...]]:
    """Choose mode and interval, and create the plan's table.

    Args:
        connection: connection of the plan's snapshot.
        settings: limits and table names.
        request: a request that `validate_request` accepted.
        table: qualified name of the plan's table.
        watermark: insertion timestamp from which the next run looks for new rows.
        now: clock of the run, UTC.

    Returns:
        The decision, and warnings on clocks and a rewritten source.
    """
    past = _read_past(connection, settings, request, watermark, now)
    now, rules = past.now, metric_rules(settings)
    mode, last = _mode_and_last_run(request, past.previous, rules)
    checks = raw_row_checks(settings, now)
    changed = _find_changes(connection, last, request, past, checks)
    run_end = _run_end(_known_end(last, request, past.covered_end), changed.newest_day)
    end = min(request.end or run_end, run_end)
    includes_today = settings.include_today and not request.is_partial and not request.until
    # values of today serve the rows of today; `complete_market` leaves them out
    market_end = now.date() + ONE_DAY if includes_today else run_end
    market, market_change = _read_market(connection, settings, last, run_end, market_end)
    reach = affected_days_after(settings.max_fill_days)
    plan_sql.create_reasons(connection, request, mode, end=end, market=market_change, reach=reach)
    # before the plan's table, which is made from the reasons
    provisional = add_today(connection, run_end=run_end, now=now) if includes_today else None
    look_back = look_back_days(settings.max_fill_days)
    plan_sql.create_plan_table(
        connection, table, run_end=run_end, look_back=look_back, checks=checks
    )
    if provisional:
        extend_reads_to_now(connection, table, now)
    decision = Decision(
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
        unused_since=changed.unused_since,
        market=market,
        previous=past.previous,
        arrivals=past.arrivals.digests,
        is_rewritten=past.is_rewritten,
    )
    return decision, past.warnings


@dataclass(frozen=True)
class _Past:
    """State of the tables before the run: clock, last good run and newest arrivals."""

    now: datetime
    covered_end: date
    previous: LastRun | None
    arrivals: Arrivals
    is_rewritten: bool
    warnings: tuple[str, ...]


def _read_past(
    connection: Connection,
    settings: Settings,
    request: Request,
    watermark: datetime,
    now: datetime,
) -> _Past:
    previous = last_good_run(connection, CALCULATE_METRICS.name)
    covered_end = plan_sql.coverage_end(connection, previous)
    now = _clamp_clock(now, covered_end)
    arrivals = read_arrivals(
        connection, previous, watermark=watermark, now=now, machine_clock=settings.now()
    )
    previous, warnings = _since_last_run(connection, previous, arrivals)
    is_rewritten = previous is not None and changed_pools.is_rewritten(connection, previous)
    if is_rewritten:
        warnings += _rewriting_warnings(request)
    return _Past(now, covered_end, previous, arrivals, is_rewritten, warnings)


def _mode_and_last_run(
    request: Request, previous: LastRun | None, rules: Mapping[str, Any]
) -> tuple[Mode, LastRun | None]:
    """Return the run's mode, and the last good run if this run continues from it."""
    if request.mode != "incremental":
        return request.mode, None
    if previous and previous.rules == rules:
        return request.mode, previous
    # no metrics, or metrics of other rules, to continue from
    return "full_refresh", None


def _find_changes(
    connection: Connection,
    last: LastRun | None,
    request: Request,
    past: _Past,
    checks: Sequence[RowCheck],
) -> ChangedRange:
    """Create the table of changed pools and return the range of their changes."""
    before = past.now.date()
    if request.until:
        # days that another run has written since the retried run failed may have changed with the
        # retried days, and no later run would notice
        before = min(before, max(request.until, past.covered_end))
    changed_pools.create_changed_pools(
        connection, last, request, before=before, now=past.now, checks=checks
    )
    return changed_pools.changed_range(connection)


def _read_market(
    connection: Connection, settings: Settings, last: LastRun | None, run_end: date, end: date
) -> tuple[tuple[MarketDay, ...], MarketChange | None]:
    """Return the market series up to `end`, and its first change before `run_end`."""
    market = read_market_series(connection, settings, EARLIEST_DAY, end)
    if last is None:
        return market, None
    return market, first_change(stored_market_series(connection), market, before=run_end)


def _known_end(last: LastRun | None, request: Request, covered_end: date) -> date | None:
    if last:
        return last.end
    # a run that removes days may end before the last one did
    return None if request.retire_missing else covered_end


def _run_end(known_end: date | None, newest_day: date | None) -> date:
    """Return the day after the newest known or changed day."""
    ends = [known_end, newest_day + ONE_DAY if newest_day else None]
    return max(filter(None, ends), default=EARLIEST_DAY)


def _since_last_run(
    connection: Connection, previous: LastRun | None, arrivals: Arrivals
) -> tuple[LastRun | None, tuple[str, ...]]:
    """Return the last run with the moment from which on rows are new, and warnings."""
    if previous is None:
        return None, ()
    new_from, warning = find_new_rows(previous, arrivals, read_clock(connection))
    if warning is None:
        return replace(previous, new_from=new_from), ()
    log.warning("%s", warning)
    return replace(previous, new_from=new_from), (warning,)


def _rewriting_warnings(request: Request) -> tuple[str, ...]:
    # a run of some days or pools recomputes those alone
    if request.start or request.pools is not None:
        return ()
    log.warning("%s", changed_pools.REWRITTEN_SOURCE)
    return (changed_pools.REWRITTEN_SOURCE,)


def _clamp_clock(now: datetime, covered_end: date) -> datetime:
    """Return this machine's clock, or the start of the day that an earlier run has reached."""
    earliest = datetime.combine(covered_end, time(), UTC)
    if now < earliest:
        log.warning(
            "this machine's clock says %s, but an earlier run has seen the end of %s: taken as %s."
            " Set the clock",
            now,
            covered_end - ONE_DAY,
            earliest,
        )
    return max(now, earliest)
