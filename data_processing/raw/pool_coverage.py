"""Which days each pool has, and on which of them something was not observed: kept beside the
metrics, changed in their commit.

In: the plan's table (pool_id, write_from, write_end: the days a run decides about) and the run's
staging (the days it found), both in PostgreSQL.
Out: `yieldspark.pool_coverage`, `yieldspark.value_staleness`, and the days that a pool's calendar
no longer has taken out of the metrics table: it went inactive, or a tighter limit took its first
or last snapshots. Values of other jobs (forecasts, filters, groups) are never touched.
"""

from __future__ import annotations

from sqlalchemy import Connection

from database.schema.merge_sql import qualified, quoted
from database.schema.metrics_table import REGCLASS, metrics_name
from database.schema.tables import METRIC_COLUMNS, pool_coverage, value_staleness

AGES = qualified(value_staleness)
CALENDARS = qualified(pool_coverage)

STAGED, GONE = "staged_calendars", "gone_days"


def calendar_changes(plan_table: str, staging: str) -> list[str]:
    """Statements that make the temporary tables STAGED and GONE, before anything is merged: checks
    look at them, and `keep_calendars` goes by them.

    STAGED has a row for each planned pool: what it had (old_*), what was decided about (write_*),
    what was found there (new_*, NULL for nothing). GONE has the days, as ranges, that were in a
    calendar and are not found again: mostly none, which PostgreSQL knows of a table alone.
    """
    observed = "max(date) FILTER (WHERE apy_staleness_days = 0 OR tvl_staleness_days = 0)"
    return [
        f"""
    CREATE TEMPORARY TABLE {STAGED} ON COMMIT DROP AS
    SELECT p.pool_id, p.write_from, p.write_end, s.new_first, s.new_last, s.new_observed,
        c.first_day AS old_first, c.last_day AS old_last, c.last_observed_day AS old_observed
    FROM {plan_table} AS p
    LEFT JOIN (
        SELECT pool_id, min(date) AS new_first, max(date) AS new_last, {observed} AS new_observed
        FROM {staging}
        GROUP BY pool_id
    ) AS s ON s.pool_id = p.pool_id
    LEFT JOIN {CALENDARS} AS c ON c.pool_id = p.pool_id""",
        f"ANALYZE {STAGED}",
        f"""
    CREATE TEMPORARY TABLE {GONE} ON COMMIT DROP AS
    SELECT pool_id, from_day, to_day
    FROM (
        SELECT *,
            greatest(old_first, write_from) AS decided_from,
            least(old_last, write_end - 1) AS decided_to
        FROM {STAGED}
        WHERE old_first IS NOT NULL
    ) AS decided, LATERAL (
        SELECT decided_from AS from_day, least(decided_to, new_first - 1) AS to_day
        UNION ALL
        SELECT greatest(decided_from, new_last + 1), decided_to
        WHERE new_last IS NOT NULL
    ) AS ends
    WHERE from_day <= to_day""",
        f"ANALYZE {GONE}",
    ]


def keep_calendars(connection: Connection, staging: str) -> int:
    """Make calendars and ages say what this run found; returns the number of days that are in no
    calendar any more.

    Args: staging has pool_id, date, apy_staleness_days, tvl_staleness_days; a pool's staged days
    have no gap. Its ages are merged by the caller, who has run `calendar_changes` before.
    """
    retired = int(
        connection.exec_driver_sql(
            f"SELECT coalesce(sum(to_day - from_day + 1), 0) FROM {GONE}"
        ).scalar_one()
    )
    if retired:
        retire_days(connection, GONE)
    connection.exec_driver_sql(_observed_since(staging))
    _store(connection)
    return retired


_MADE_BY_DATABASE = f"""
    SELECT attname::text
    FROM pg_attribute
    WHERE attrelid = {REGCLASS}
        AND attnum > 0
        AND NOT attisdropped
        AND (
            attidentity <> ''
            OR attgenerated <> ''
            OR pg_get_serial_sequence(attrelid::regclass::text, attname) IS NOT NULL
        )"""
"""Columns that are filled in every row, the owner's serial id for one: no value of another job."""


def retire_days(connection: Connection, gone: str) -> None:
    """Empty the days of the table `gone` (pool_id, from_day, to_day); a row goes only when nothing
    else is in it.
    """
    metrics = metrics_name(connection)
    nulls = ", ".join(f"{quoted(name)} = NULL" for name in METRIC_COLUMNS)
    ours = ", ".join(
        f"'{name}'" for name in ("pool_id", "date", "is_filtered_out", *METRIC_COLUMNS)
    )
    nothing_else = (
        f"t.is_filtered_out IS NOT TRUE AND jsonb_strip_nulls(to_jsonb(t) - ARRAY[{ours}] -"
        f" ARRAY({_MADE_BY_DATABASE})) = '{{}}'"
    )
    same_day = "t.pool_id = gone.pool_id AND t.date BETWEEN gone.from_day AND gone.to_day"
    connection.exec_driver_sql(f"DELETE FROM {AGES} AS t USING {gone} AS gone WHERE {same_day}")
    connection.exec_driver_sql(
        f"DELETE FROM {metrics} AS t USING {gone} AS gone WHERE {same_day} AND {nothing_else}"
    )
    connection.exec_driver_sql(
        f"UPDATE {metrics} AS t SET {nulls} FROM {gone} AS gone WHERE {same_day}"
    )


def _observed_since(staging: str) -> str:
    """Ages go for days that have both values of their own now. A pool that is new had none."""
    return f"""
    DELETE FROM {AGES} AS o
    USING {STAGED} AS p, {staging} AS s
    WHERE p.old_first IS NOT NULL
        AND o.pool_id = p.pool_id
        AND o.date >= p.write_from
        AND o.date < p.write_end
        AND s.pool_id = o.pool_id
        AND s.date = o.date
        AND s.apy_staleness_days = 0
        AND s.tvl_staleness_days = 0"""


def _observed_before(day: str) -> str:
    """SELECT of the newest day of the old calendar before `day` on which something was observed. A
    walk over days, for the few pools that need it.
    """
    return f"""
    SELECT max(d.date)::date
    FROM generate_series(old_first, {day} - 1, interval '1 day') AS d (date)
    WHERE NOT EXISTS (
        SELECT FROM {AGES} AS o
        WHERE o.pool_id = {STAGED}.pool_id
            AND o.date = d.date::date
            AND o.apy_staleness_days IS DISTINCT FROM 0
            AND o.tvl_staleness_days IS DISTINCT FROM 0
    )"""


def _store(connection: Connection) -> None:
    """The old days outside of what was decided about, and the new ones inside. `greatest` and
    `least` leave NULLs out.

    Where the last observed day was inside and is no longer one, an earlier one is.
    """
    connection.exec_driver_sql(f"""
    CREATE TEMPORARY TABLE new_calendars ON COMMIT DROP AS
    SELECT pool_id,
        least(old_first_before, new_first, old_first_after) AS first_day,
        greatest(old_last_before, new_last, old_last_after) AS last_day,
        CASE
            WHEN old_observed < write_from OR old_observed >= write_end
                THEN greatest(old_observed, new_observed)
            ELSE coalesce(new_observed, ({_observed_before("write_from")}), write_from - 1)
        END AS last_observed_day
    FROM {STAGED}, LATERAL (
        SELECT
            CASE WHEN old_first < write_from THEN old_first END AS old_first_before,
            CASE WHEN old_first < write_from THEN least(old_last, write_from - 1) END
                AS old_last_before,
            CASE WHEN old_last >= write_end THEN greatest(old_first, write_end) END
                AS old_first_after,
            CASE WHEN old_last >= write_end THEN old_last END AS old_last_after
    ) AS kept""")
    connection.exec_driver_sql(
        f"DELETE FROM {CALENDARS} AS c USING new_calendars AS n WHERE n.pool_id = c.pool_id AND"
        " n.first_day IS NULL"
    )
    connection.exec_driver_sql(
        f"""
    INSERT INTO {CALENDARS} AS c
    SELECT * FROM new_calendars
    WHERE first_day IS NOT NULL
    ON CONFLICT (pool_id) DO UPDATE
    SET first_day = excluded.first_day,
        last_day = excluded.last_day,
        last_observed_day = excluded.last_observed_day
    WHERE (c.first_day, c.last_day, c.last_observed_day)
        IS DISTINCT FROM (excluded.first_day, excluded.last_day, excluded.last_observed_day)"""
    )
