"""Defines the checks of the days that a metrics run is about to commit: SQL over staging, the
plan's table and raw rows.

Returns queries whose rows are the failures; runs nothing. A day is new if no good run has written
it; a full refresh checks at least the newest day. A pool is observed on a day that has an accepted
snapshot of its own. Days are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, cast

from config_spark import Settings
from data_processing.checks.catalogue import CATALOGUE, check_message, severity_of
from data_processing.commit.spikes import spike_preparation, spike_query
from data_processing.metrics.rolling_metrics import LONGEST_WINDOW_DAYS
from data_processing.planning.run_plan import Plan
from data_processing.raw.market_series import SERIES
from data_processing.raw.observed_days import RETIRED_DAYS_IN_COVERAGE
from data_processing.raw.pool_coverage import REMOVED_DAYS, STAGED_COVERAGE
from database.commit_checks import BatchCheck, CommitChecks
from database.ledger.check_result import Severity
from database.schema.merge_sql import qualified, quoted
from database.schema.own_tables import market_series, pool_coverage, value_staleness
from database.schema.owner_tables import METRIC_COLUMNS, pools

# a share of a handful is noise, so smaller numbers pass
MIN_POOLS = 20
"""Pools or rows from which on a share is checked."""

MIN_REMOVED_DAYS = 1000
"""Removed days from which on their share is checked."""

ONE_DAY = timedelta(days=1)

NEW_DAYS = "new_days"

SOURCE_COLUMNS = ("actual_apy", "actual_tvl", *SERIES)
"""Columns with values of the source; the others need a month of history."""

_REMOVED = f"SELECT pool_id, from_day, to_day FROM {REMOVED_DAYS}"

MANY_DAYS_REMOVED = """
    SELECT removed, known, round(removed / known::numeric, 3) AS share, first_day, last_day, such_as
    FROM (
        SELECT sum(to_day - from_day + 1)::bigint AS removed,
            min(from_day) AS first_day,
            max(to_day) AS last_day,
            (array_agg(DISTINCT pool_id ORDER BY pool_id))[1:3] AS such_as
        FROM ({removed}) AS ranges (pool_id, from_day, to_day)
    ) AS removed_days, (
        SELECT sum(old_last - old_first + 1)::bigint AS known
        FROM {staged}
    ) AS coverage
    WHERE removed >= {least}
        AND removed > :share * known"""
"""Pruned raw history or a tighter limit must not remove metrics without a notice."""


@dataclass(frozen=True)
class _Query:
    """Query of one check; `name` is that of the catalogue."""

    name: str
    sql: str
    parameters: Mapping[str, Any]
    preparation: Sequence[str] = ()


def commit_checks(settings: Settings, plan: Plan, staging: str) -> CommitChecks:
    """Return the checks of a run's commit, except those that are switched off.

    `stage_changes` must run before them.

    Args:
        settings: limits and severities.
        plan: the run's plan.
        staging: the run's table of pool days: pool_id, date, METRIC_COLUMNS, apy_staleness_days,
            tvl_staleness_days.

    Raises:
        ConfigurationError: CHECK_SEVERITIES is wrong.
    """
    table = plan.decision.table
    first = first_new_day(plan)
    removed = _REMOVED
    if plan.request.retire_missing:
        # retired days inside the coverage keep their row, so REMOVED_DAYS lacks them
        removed = f"{_REMOVED} UNION ALL {RETIRED_DAYS_IN_COVERAGE}"
    queries = [
        *_new_day_queries(settings, plan, staging, first),
        _Query(
            "many_days_removed",
            MANY_DAYS_REMOVED.format(
                removed=removed, staged=STAGED_COVERAGE, least=MIN_REMOVED_DAYS
            ),
            {"share": settings.max_removed_days_share},
        ),
        _Query("unknown_pool", _unknown_pools(table), {}),
        _Query("spike", *spike_query(settings, plan), spike_preparation(settings, plan)),
    ]
    checks = [
        _check(settings, query) for query in queries if severity_of(query.name, settings) != "off"
    ]
    preparation = []
    if first:
        interval = {"first": first, "end": plan.decision.end}
        preparation.append((_create_new_days(table, staging), interval))
    return CommitChecks(checks, preparation)


def first_new_day(plan: Plan) -> date | None:
    """Return the first day of the plan that no good run has written.

    Args:
        plan: the run's plan.

    Returns:
        The day; None if there is none, if the interval leaves out the newest day, or if the run is
        of some pools only.
    """
    end, previous, mode = plan.decision.end, plan.decision.previous, plan.decision.mode
    if end is None or plan.request.pools is not None:
        return None
    known_end = previous.end if previous else None
    if mode == "full_refresh":
        return min(known_end or end, end - ONE_DAY)
    if known_end is None or known_end > end:
        return None
    if known_end < end:
        return known_end
    # no day is new: a backfill checks the newest one, a correction none
    return end - ONE_DAY if mode == "backfill" else None


def _check(settings: Settings, query: _Query) -> BatchCheck:
    # the caller leaves out checks that are `off`
    severity = cast(Severity, severity_of(query.name, settings))
    return BatchCheck(
        query.name,
        CATALOGUE[query.name].level,
        severity,
        check_message(query.name, settings),
        query.sql,
        query.parameters,
        query.preparation,
    )


def _new_day_queries(
    settings: Settings, plan: Plan, staging: str, first: date | None
) -> Iterator[_Query]:
    if first is None:
        return
    missing = f"""
    SELECT day, pools_before, pools, missing, such_as
    FROM {NEW_DAYS}
    WHERE pools_before >= {MIN_POOLS}
        AND missing > :share * pools_before"""
    many, some = settings.max_missing_pools_share, settings.warn_missing_pools_share
    # the warning leaves out days that the failing check names already
    most = many if severity_of("many_pools_missing", settings) != "off" else 1.0
    yield _Query("many_pools_missing", f"{missing} ORDER BY day", {"share": many})
    yield _Query(
        "some_pools_missing",
        f"{missing} AND missing <= :most * pools_before ORDER BY day",
        {"share": some, "most": most},
    )
    yield _Query(
        "rows_far_below_yesterday",
        f"""
    SELECT day, pools_before, pools
    FROM {NEW_DAYS}
    WHERE pools_before >= {MIN_POOLS}
        AND pools < :share * pools_before
    ORDER BY day""",
        {"share": settings.min_pools_ratio},
    )
    yield _Query(
        "null_share",
        _null_shares(plan.decision.table, staging),
        {"share": settings.max_null_share, "first": first, "end": plan.decision.end},
    )


def _create_new_days(plan_table: str, staging: str) -> str:
    """Return a statement that creates NEW_DAYS: for each day from :first on, how many active pools
    were observed on it and on the day before.
    """
    observed = "(s.apy_staleness_days = 0 OR s.tvl_staleness_days = 0)"
    return f"""
    CREATE TEMPORARY TABLE {NEW_DAYS} ON COMMIT DROP AS
    WITH living AS (
        SELECT pool_id, write_from
        FROM {plan_table}
        WHERE alive
    ),
    observations AS (
        SELECT s.pool_id, s.date
        FROM {staging} AS s
        JOIN living AS p ON p.pool_id = s.pool_id
        WHERE s.date >= CAST(:first AS date) - 1
            AND {observed}
        UNION ALL
        SELECT p.pool_id, CAST(:first AS date) - 1
        FROM living AS p
        JOIN {qualified(pool_coverage)} AS c ON c.pool_id = p.pool_id
        WHERE p.write_from >= CAST(:first AS date)
            AND CAST(:first AS date) - 1 BETWEEN c.first_day AND c.last_day
            AND NOT EXISTS (
                SELECT FROM {qualified(value_staleness)} AS a
                WHERE a.pool_id = p.pool_id
                    AND a.date = CAST(:first AS date) - 1
                    AND a.apy_staleness_days IS DISTINCT FROM 0
                    AND a.tvl_staleness_days IS DISTINCT FROM 0
            )
    )
    SELECT coalesce(now.date, before.date + 1) AS day,
        count(before.pool_id) AS pools_before,
        count(now.pool_id) AS pools,
        count(*) FILTER (WHERE now.pool_id IS NULL) AS missing,
        (
            array_agg(before.pool_id ORDER BY before.pool_id) FILTER (WHERE now.pool_id IS NULL)
        )[1:3] AS such_as
    FROM observations AS now
    FULL JOIN observations AS before
        ON before.pool_id = now.pool_id AND before.date = now.date - 1
    WHERE coalesce(now.date, before.date + 1) >= CAST(:first AS date)
        AND coalesce(now.date, before.date + 1) < CAST(:end AS date)
    GROUP BY 1"""


def _null_shares(plan_table: str, staging: str) -> str:
    """Return a query of columns with too many nulls on the observed rows of the new days."""
    # a metric of a pool that is younger than its window is null by definition
    old_enough = "(p.known_from IS NOT NULL OR long_ago.date IS NOT NULL)"
    counted = {name: "true" if name in SOURCE_COLUMNS else old_enough for name in METRIC_COLUMNS}
    # so is a price or gas that no run has known
    has_value = {
        name: f"EXISTS (SELECT FROM {qualified(market_series)} WHERE {name} IS NOT NULL)"
        for name in SERIES
    }
    aggregates = ", ".join(
        f"count(*) FILTER (WHERE {rows} AND s.{quoted(name)} IS NULL) AS {quoted('nulls_' + name)},"
        f" count(*) FILTER (WHERE {rows}) AS {quoted('rows_' + name)}"
        for name, rows in counted.items()
    )
    by_column = ", ".join(
        f"('{name}', {quoted('nulls_' + name)}, {quoted('rows_' + name)},"
        f" {has_value.get(name, 'true')})"
        for name in counted
    )
    # the bounds of `long_ago` follow from those of `s`; they reduce its rows before the join
    return f"""
    SELECT column_name, nulls, rows, round(nulls / rows::numeric, 3) AS share
    FROM (
        SELECT {aggregates}
        FROM {staging} AS s
        JOIN {plan_table} AS p ON p.pool_id = s.pool_id
        LEFT JOIN {staging} AS long_ago ON long_ago.pool_id = s.pool_id
            AND long_ago.date = s.date - {LONGEST_WINDOW_DAYS + 1}
            AND long_ago.date >= CAST(:first AS date) - {LONGEST_WINDOW_DAYS + 1}
            AND long_ago.date < CAST(:end AS date) - {LONGEST_WINDOW_DAYS + 1}
        WHERE s.date >= CAST(:first AS date)
            AND (s.apy_staleness_days = 0 OR s.tvl_staleness_days = 0)
    ) AS counts
    CROSS JOIN LATERAL (VALUES {by_column}) AS columns (column_name, nulls, rows, has_value)
    WHERE has_value
        AND rows >= {MIN_POOLS}
        AND nulls > :share * rows"""


def _unknown_pools(plan_table: str) -> str:
    """Return a query of planned pools without a row in `pools`."""
    # an empty `pools` is not in use
    return f"""
    SELECT p.pool_id
    FROM {plan_table} AS p
    WHERE NOT EXISTS (SELECT FROM {qualified(pools)} AS k WHERE k.pool_id = p.pool_id)
        AND EXISTS (SELECT FROM {qualified(pools)})
    ORDER BY p.pool_id"""
