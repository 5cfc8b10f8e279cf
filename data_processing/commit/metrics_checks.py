"""Checks of the days that a metrics run is about to commit: SQL over its staging, its plan and the
raw rows, run inside the commit.

In: the plan, the names of its table and of the run's staging, the settings' limits. Out: queries
whose rows are the failures; nothing is read here. Days are UTC. A day is new when no good run has
written it yet; a full refresh judges the newest one at least. Shares are of at least MIN_POOLS
pools or rows, and of MIN_REMOVED_DAYS days: of a handful, half may well be missing. A pool is
observed on a day that has an accepted snapshot of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, cast

from config_spark import Settings
from data_processing.checks.catalogue import CATALOGUE, severity_of, words
from data_processing.commit.provisional_days import set_today_aside
from data_processing.commit.spikes import spike_preparation, spike_query
from data_processing.metrics.rolling_metrics import LONGEST_WINDOW_DAYS
from data_processing.planning.adopted_days import keep_rounded
from data_processing.planning.run_plan import Plan
from data_processing.raw.market_series import SERIES
from data_processing.raw.observed_days import RETIRED_INSIDE, retired_days
from data_processing.raw.pool_coverage import GONE, STAGED, calendar_changes
from database.commit_checks import BatchCheck, CommitChecks, Severity
from database.schema.merge_sql import qualified, quoted
from database.schema.tables import (
    METRIC_COLUMNS,
    market_series,
    pool_coverage,
    pools,
    value_staleness,
)

MIN_POOLS = 20

MIN_REMOVED_DAYS = 1000

ONE_DAY = timedelta(days=1)

NEW_DAYS = "new_days"

GIVEN_COLUMNS = ("actual_apy", "actual_tvl", *SERIES)
"""Columns that are as the source has them; the others need a month of history."""


_REMOVED = f"SELECT pool_id, from_day, to_day FROM {GONE}"

MANY_DAYS_REMOVED = """
    SELECT removed, known, round(removed / known::numeric, 3) AS share, first_day, last_day, such_as
    FROM (
        SELECT sum(to_day - from_day + 1)::bigint AS removed,
            min(from_day) AS first_day,
            max(to_day) AS last_day,
            (array_agg(pool_id))[1:3] AS such_as
        FROM ({removed}) AS ranges (pool_id, from_day, to_day)
    ) AS gone, (
        SELECT sum(old_last - old_first + 1)::bigint AS known
        FROM {staged}
    ) AS calendars
    WHERE removed >= {least}
        AND removed > :share * known"""
"""Metrics must not go unseen: neither with raw history that was cut away, where they are wanted to,
nor with another limit.
"""


@dataclass(frozen=True)
class _Query:
    name: str
    sql: str
    parameters: Mapping[str, Any]
    preparation: Sequence[str] = ()


def commit_checks(settings: Settings, plan: Plan, staging: str) -> CommitChecks:
    """The checks of a run's commit, but for those that are off.

    Args: staging is the run's table of pool days (pool_id, date, METRIC_COLUMNS,
    apy_staleness_days, tvl_staleness_days).
    Raises: ConfigurationError for a wrong CHECK_SEVERITIES.
    """
    first = first_new_day(plan)
    retires = plan.request.retire_missing
    queries = [
        *_queries_of_new_days(settings, plan, staging, first),
        _Query(
            "many_days_removed",
            MANY_DAYS_REMOVED.format(
                removed=f"{_REMOVED} UNION ALL {RETIRED_INSIDE}" if retires else _REMOVED,
                staged=STAGED,
                least=MIN_REMOVED_DAYS,
            ),
            {"share": settings.max_removed_days_share},
        ),
        _Query("unknown_pool", _unknown_pools(plan.table), {}),
        _Query("spike", *spike_query(settings, plan), spike_preparation(settings, plan)),
    ]
    checks = [
        _check(settings, query) for query in queries if severity_of(query.name, settings) != "off"
    ]
    new_days = (
        [(_new_days(plan.table, staging), {"first": first, "end": plan.end})] if first else []
    )
    statements = [
        *set_today_aside(plan, staging),
        keep_rounded(staging, settings),
        *calendar_changes(plan.table, staging),
    ]
    if retires:
        statements.append(retired_days(plan.table, staging))
    return CommitChecks(checks, [*((statement, {}) for statement in statements), *new_days])


def first_new_day(plan: Plan) -> date | None:
    """The first day of the plan's that no good run has written; None where there is none, or where
    the newest day is not in the interval.

    A run of some pools has no night to judge.
    """
    if plan.end is None or plan.request.pools is not None:
        return None
    known = plan.previous.end if plan.previous else None
    if plan.mode == "full_refresh":
        return min(known or plan.end, plan.end - ONE_DAY)
    if known is None or known > plan.end:
        return None
    if known < plan.end:
        return known
    return plan.end - ONE_DAY if plan.mode == "backfill" else None


def _check(settings: Settings, query: _Query) -> BatchCheck:
    severity = cast(Severity, severity_of(query.name, settings))
    return BatchCheck(
        query.name,
        CATALOGUE[query.name].level,
        severity,
        words(query.name, settings),
        query.sql,
        query.parameters,
        query.preparation,
    )


def _queries_of_new_days(
    settings: Settings, plan: Plan, staging: str, first: date | None
) -> Iterator[_Query]:
    if first is None:
        return
    missing = (
        f"SELECT day, pools_before, pools, missing, such_as FROM {NEW_DAYS} WHERE pools_before >="
        f" {MIN_POOLS} AND missing > :share * pools_before"
    )
    many, some = settings.max_missing_pools_share, settings.warn_missing_pools_share
    # a day that the one check names need not be named by the other too
    most = many if severity_of("many_pools_missing", settings) != "off" else 1.0
    yield _Query("many_pools_missing", f"{missing} ORDER BY day", {"share": many})
    yield _Query(
        "some_pools_missing",
        f"{missing} AND missing <= :most * pools_before ORDER BY day",
        {"share": some, "most": most},
    )
    fewer = (
        f"SELECT day, pools_before, pools FROM {NEW_DAYS} WHERE pools_before >= {MIN_POOLS} AND"
        " pools < :share * pools_before ORDER BY day"
    )
    yield _Query("rows_far_below_yesterday", fewer, {"share": settings.min_pools_ratio})
    yield _Query(
        "null_share",
        _null_shares(plan.table, staging),
        {"share": settings.max_null_share, "first": first, "end": plan.end},
    )


def _new_days(plan_table: str, staging: str) -> str:
    """Statement that makes NEW_DAYS: for each day from :first on, how many living pools were
    observed on it and on the day before.
    """
    observed = "(s.apy_staleness_days = 0 OR s.tvl_staleness_days = 0)"
    return f"""
    CREATE TEMPORARY TABLE {NEW_DAYS} ON COMMIT DROP AS
    WITH living AS (
        SELECT pool_id, write_from
        FROM {plan_table}
        WHERE alive
    ),
    seen AS (
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
        (array_agg(before.pool_id) FILTER (WHERE now.pool_id IS NULL))[1:3] AS such_as
    FROM seen AS now
    FULL JOIN seen AS before ON before.pool_id = now.pool_id AND before.date = now.date - 1
    WHERE coalesce(now.date, before.date + 1) >= CAST(:first AS date)
        AND coalesce(now.date, before.date + 1) < CAST(:end AS date)
    GROUP BY 1"""


def _null_shares(plan_table: str, staging: str) -> str:
    """Columns with too many nulls on the new days' observed rows.

    A metric of a pool that is younger than its window is no loss; nor is a price or gas that no run
    has ever known. The bounds of `long_ago` follow from the others: with them its rows are few
    before they are joined.
    """
    old_enough = "(p.known_from IS NOT NULL OR long_ago.date IS NOT NULL)"
    counted = {name: "true" if name in GIVEN_COLUMNS else old_enough for name in METRIC_COLUMNS}
    known = {
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
        f" {known.get(name, 'true')})"
        for name in counted
    )
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
    CROSS JOIN LATERAL (VALUES {by_column}) AS columns (column_name, nulls, rows, is_known)
    WHERE is_known
        AND rows >= {MIN_POOLS}
        AND nulls > :share * rows"""


def _unknown_pools(plan_table: str) -> str:
    """Planned pools without a row in `pools`; where that table is empty, it is not in use."""
    known = qualified(pools)
    return (
        f"SELECT p.pool_id FROM {plan_table} AS p WHERE NOT EXISTS (SELECT FROM {known} AS k WHERE"
        f" k.pool_id = p.pool_id) AND EXISTS (SELECT FROM {known}) ORDER BY p.pool_id"
    )
