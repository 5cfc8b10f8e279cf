"""Keeps the coverage of each pool (first, last and last observed day) and the staleness of values
that were not observed on their day.

Reads the plan's table (the days that a run decides about) and the run's staging (its days). Writes
`yieldspark.pool_coverage` and `yieldspark.value_staleness` in the run's commit, and removes days
that a pool no longer has from the metrics table, without touching values of other jobs.
"""

from __future__ import annotations

from sqlalchemy import Connection

from database.ledger.runs import Run
from database.schema.merge_sql import qualified, quoted
from database.schema.metrics_table import metrics_name, no_value_of_other_jobs
from database.schema.own_tables import pool_coverage, value_staleness
from database.schema.owner_tables import METRIC_COLUMNS
from database.undo.replaced_rows import delete_rows, update_rows

STALENESS = qualified(value_staleness)
COVERAGE = qualified(pool_coverage)

STAGED_COVERAGE, REMOVED_DAYS = "staged_coverage", "removed_days"
"""Temporary tables of the run's transaction."""

KEY = ("pool_id", "date")


def coverage_changes(plan_table: str, staging: str) -> list[str]:
    """Return statements that create STAGED_COVERAGE and REMOVED_DAYS, before anything is merged.

    STAGED_COVERAGE has a row for each planned pool: its coverage before the run (old_*), the days
    that the run decides about (write_*), and the days in staging (new_*, NULL without any).
    REMOVED_DAYS has the covered days, as ranges, that the run decides about and does not find. The
    checks read both tables, and `update_coverage` applies them.

    Args:
        plan_table: the plan's table.
        staging: the run's staging table.
    """
    observed = "max(date) FILTER (WHERE apy_staleness_days = 0 OR tvl_staleness_days = 0)"
    return [
        f"""
    CREATE TEMPORARY TABLE {STAGED_COVERAGE} ON COMMIT DROP AS
    SELECT p.pool_id, p.write_from, p.write_end, s.new_first, s.new_last, s.new_observed,
        c.first_day AS old_first, c.last_day AS old_last, c.last_observed_day AS old_observed
    FROM {plan_table} AS p
    LEFT JOIN (
        SELECT pool_id, min(date) AS new_first, max(date) AS new_last, {observed} AS new_observed
        FROM {staging}
        GROUP BY pool_id
    ) AS s ON s.pool_id = p.pool_id
    LEFT JOIN {COVERAGE} AS c ON c.pool_id = p.pool_id""",
        f"ANALYZE {STAGED_COVERAGE}",
        f"""
    CREATE TEMPORARY TABLE {REMOVED_DAYS} ON COMMIT DROP AS
    SELECT pool_id, from_day, to_day
    FROM (
        SELECT *,
            greatest(old_first, write_from) AS decided_from,
            least(old_last, write_end - 1) AS decided_to
        FROM {STAGED_COVERAGE}
        WHERE old_first IS NOT NULL
    ) AS decided, LATERAL (
        SELECT decided_from AS from_day, least(decided_to, new_first - 1) AS to_day
        UNION ALL
        SELECT greatest(decided_from, new_last + 1), decided_to
        WHERE new_last IS NOT NULL
    ) AS ends
    WHERE from_day <= to_day""",
        # mostly empty, which PostgreSQL only knows of an analyzed table
        f"ANALYZE {REMOVED_DAYS}",
    ]


def update_coverage(run: Run, staging: str) -> int:
    """Update coverage and staleness, and remove the days of REMOVED_DAYS.

    The statements of `coverage_changes` have run, and the staleness of staging has been merged.

    Args:
        run: the open run, in its transaction.
        staging: has pool_id, date, apy_staleness_days and tvl_staleness_days; a pool's days
            have no gap.

    Returns:
        Number of days that are no longer covered.
    """
    removed = int(
        run.connection.exec_driver_sql(
            f"SELECT coalesce(sum(to_day - from_day + 1), 0) FROM {REMOVED_DAYS}"
        ).scalar_one()
    )
    if removed:
        retire_days(run, REMOVED_DAYS)
    _delete_staleness(run, staging)
    _store(run.connection)
    return removed


def retire_days(run: Run, days: str) -> None:
    """Set the metrics of days to NULL, and delete rows without values of another job.

    Args:
        run: the open run, in its transaction.
        days: a table of pool_id, from_day and to_day (inclusive).
    """
    metrics = metrics_name(run.connection)
    nulls = ", ".join(f"{quoted(name)} = NULL" for name in METRIC_COLUMNS)
    same_day = "t.pool_id = d.pool_id AND t.date BETWEEN d.from_day AND d.to_day"
    using = f"{days} AS d"
    delete_rows(run, STALENESS, KEY, same_day, using=using)
    is_ours = no_value_of_other_jobs(run.connection, metrics, KEY, METRIC_COLUMNS)
    delete_rows(run, metrics, KEY, f"{same_day} AND {is_ours}", using=using)
    # the rows that stay have another job's values
    update_rows(run, metrics, KEY, METRIC_COLUMNS, nulls, same_day, using=using)


def _delete_staleness(run: Run, staging: str) -> None:
    """Delete the staleness of days with two observed values."""
    # a pool that is new has no staleness yet
    condition = """p.old_first IS NOT NULL
        AND t.pool_id = p.pool_id
        AND t.date >= p.write_from
        AND t.date < p.write_end
        AND s.pool_id = t.pool_id
        AND s.date = t.date
        AND s.apy_staleness_days = 0
        AND s.tvl_staleness_days = 0"""
    using = f"{STAGED_COVERAGE} AS p, {staging} AS s"
    delete_rows(run, STALENESS, KEY, condition, using=using)


def _observed_before(day: str) -> str:
    """Return a SELECT of the newest day before `day` in the old coverage with an observation."""
    return f"""
    SELECT max(d.date)::date
    FROM generate_series(old_first, {day} - 1, interval '1 day') AS d (date)
    WHERE NOT EXISTS (
        SELECT FROM {STALENESS} AS o
        WHERE o.pool_id = {STAGED_COVERAGE}.pool_id
            AND o.date = d.date::date
            AND o.apy_staleness_days IS DISTINCT FROM 0
            AND o.tvl_staleness_days IS DISTINCT FROM 0
    )"""


def _store(connection: Connection) -> None:
    """Store the old days outside of the decided interval and the new ones inside."""
    # `greatest` and `least` ignore NULLs. The walk over days of `_observed_before` is only for
    # pools whose last observed day was inside and is gone.
    connection.exec_driver_sql(f"""
    CREATE TEMPORARY TABLE new_coverage ON COMMIT DROP AS
    SELECT pool_id,
        least(old_first_before, new_first, old_first_after) AS first_day,
        greatest(old_last_before, new_last, old_last_after) AS last_day,
        CASE
            WHEN old_observed < write_from OR old_observed >= write_end
                THEN greatest(old_observed, new_observed)
            ELSE coalesce(new_observed, ({_observed_before("write_from")}), write_from - 1)
        END AS last_observed_day
    FROM {STAGED_COVERAGE}, LATERAL (
        SELECT
            CASE WHEN old_first < write_from THEN old_first END AS old_first_before,
            CASE WHEN old_first < write_from THEN least(old_last, write_from - 1) END
                AS old_last_before,
            CASE WHEN old_last >= write_end THEN greatest(old_first, write_end) END
                AS old_first_after,
            CASE WHEN old_last >= write_end THEN old_last END AS old_last_after
    ) AS outside""")
    connection.exec_driver_sql(f"""
    DELETE FROM {COVERAGE} AS c
    USING new_coverage AS n
    WHERE n.pool_id = c.pool_id
        AND n.first_day IS NULL""")
    connection.exec_driver_sql(f"""
    INSERT INTO {COVERAGE} AS c
    SELECT *
    FROM new_coverage
    WHERE first_day IS NOT NULL
    ON CONFLICT (pool_id) DO UPDATE
    SET first_day = excluded.first_day,
        last_day = excluded.last_day,
        last_observed_day = excluded.last_observed_day
    WHERE (c.first_day, c.last_day, c.last_observed_day)
        IS DISTINCT FROM (excluded.first_day, excluded.last_day, excluded.last_observed_day)""")
