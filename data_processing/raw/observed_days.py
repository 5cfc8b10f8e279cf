"""Reads and writes `yieldspark.observed_days` by SQL: the values observed on each day, unrounded,
so that no metric depends on raw rows that may be pruned, rewritten or fetched again.

A row has the values of the day's last accepted snapshot. A value that no longer passes a limit
stays stored and is not used. APY in percent, TVL in USD, days are UTC.
"""

from __future__ import annotations

from data_processing.raw.pool_coverage import REMOVED_DAYS
from data_processing.raw.quarantine_table import HISTORY, QUARANTINE
from database.ledger.runs import Run
from database.schema.merge_sql import qualified
from database.schema.own_tables import observed_days
from database.undo.replaced_rows import begin_change, delete_rows, end_change, insert_replaced

OBSERVED = qualified(observed_days)

RETIRED = "retired_days"
"""Temporary table of the run's transaction: pool_id and date of stored days without raw rows that
the run removes.
"""

KEY_COLUMNS, VALUE_COLUMNS = ("pool_id", "date"), ("timestamp", "snapshot", "apy", "tvl")

_INSERT = f"INSERT INTO {OBSERVED} AS t ({', '.join((*KEY_COLUMNS, *VALUE_COLUMNS))})"

IS_OBSERVED = "reason IS NULL AND snapshot IS NOT NULL"
"""Condition for staged days whose last snapshot is a raw row that the run has read."""


def snapshot_identity(row: str) -> str:
    """Return an SQL expression: 64 bits of a snapshot's pool, moment and content.

    A row that is inserted again under another id has the same identity.

    Args:
        row: alias of a table with pool_id, timestamp and raw_json_data.
    """
    # COLLATE "C": the hash must not depend on the collation of the database
    pool = f"hashtextextended(coalesce({row}.pool_id::text, '') COLLATE \"C\", 0)"
    utc = f"coalesce({row}.timestamp AT TIME ZONE 'UTC', '-infinity'::timestamp)"
    return (
        f"jsonb_hash_extended(coalesce({row}.raw_json_data, 'null'::jsonb),"
        f" timestamp_hash_extended({utc}, {pool}))"
    )


def decided(snapshot: str) -> str:
    """Return a select list: `dropped` and `replaced`, the decisions of people on a snapshot.

    Args:
        snapshot: an SQL expression of the snapshot's identity.
    """
    # The first EXISTS is answered once: without decisions no row is looked up. Otherwise PostgreSQL
    # hashes the decisions (half a microsecond a row), or uses the unique index if there are many.
    return ",\n        ".join(
        f"(EXISTS ({rows}) AND EXISTS ({rows} AND d.source_id = {snapshot}::text)) AS {name}"
        for name, rows in _DECISIONS.items()
    )


UNDECIDED = "false AS dropped, false AS replaced"

_DECISIONS = {
    name: f"SELECT FROM {QUARANTINE} AS d WHERE d.source_table = '{HISTORY}' AND {condition}"
    for name, condition in {
        "dropped": "d.resolution = 'dropped'",
        # a row that was replayed unchanged is its own replacement
        "replaced": "d.resolution = 'replayed' AND d.replayed_row_id IS DISTINCT FROM d.source_id",
    }.items()
}


def stored_days(plan_table: str, *, retire_missing: bool) -> str:
    """Return a FROM clause: the stored days `s` that a run reads in place of raw rows.

    They are the days in the read range of the plan `p` whose snapshot is not in raw history. A
    snapshot that is still there is read as a raw row, because it may be rejected now.

    Args:
        plan_table: the plan's table.
        retire_missing: leave out the days that the run writes.
    """
    not_retired = ""
    if retire_missing:
        not_retired = """
        AND NOT (s.date >= p.write_from AND s.date < p.write_end)"""
    return f"""{OBSERVED} AS s
    JOIN {plan_table} AS p ON p.pool_id = s.pool_id
        AND s.date >= (p.read_from AT TIME ZONE 'UTC')::date
        AND s.date >= (SELECT min((read_from AT TIME ZONE 'UTC')::date) FROM {plan_table})
        AND s.date < (p.read_end AT TIME ZONE 'UTC')::date
    WHERE NOT EXISTS (
            SELECT FROM {HISTORY} AS h
            WHERE h.pool_id = s.pool_id
                AND h.timestamp = s.timestamp
                AND {snapshot_identity("h")} = s.snapshot
        ){not_retired}"""


_REPLACEMENTS = f"""
            SELECT d.replayed_row_id
            FROM {QUARANTINE} AS d
            JOIN {HISTORY} AS h ON h.pool_id = d.pool_id
                AND h.timestamp = d.timestamp
                AND {snapshot_identity("h")}::text = d.source_id
            WHERE d.source_table = '{HISTORY}'
                AND d.resolution = 'replayed'"""

PLACE = f"""CASE
            WHEN s.snapshot::text IN ({_REPLACEMENTS}) THEN s.timestamp
            ELSE s.date::timestamp AT TIME ZONE 'UTC'
        END"""
"""Position of a stored day `s` among raw rows: before all of its day, so that each of them takes
precedence. The row of a replay keeps its moment as long as the row that it replaces is there.
"""


def store_observed_days(run: Run, staging: str) -> None:
    """Store the observed values of the run, for the days that differ.

    A carried value is not an observation of its day.

    Args:
        run: the open run, in its transaction.
        staging: the run's staging table.
    """
    key, values = KEY_COLUMNS, VALUE_COLUMNS
    # only runs write the table, one at a time
    if not run.connection.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {OBSERVED})").scalar_one():
        change_id = begin_change(run, OBSERVED, "filled", key, values)
        first = f"{_INSERT} {_observed_values(staging)}"
        end_change(run, change_id, run.connection.exec_driver_sql(first).rowcount)
        return
    change_id = begin_change(run, OBSERVED, "written", key, values)
    kept = ""
    if change_id is not None:
        key_values, before = [f"n.{name}" for name in key], [f"old_{name}" for name in values]
        kept = f""",
    kept AS ({insert_replaced(change_id, "n", key_values, before, exists="is_stored")})"""
    old_values = ", ".join(f"t.{name} AS old_{name}" for name in values)
    changed = run.connection.exec_driver_sql(f"""
    WITH n AS MATERIALIZED (
        SELECT n.*, t.pool_id IS NOT NULL AS is_stored, {old_values}
        FROM ({_observed_values(staging)}) AS n
        LEFT JOIN {OBSERVED} AS t ON t.pool_id = n.pool_id AND t.date = n.date
        WHERE t.pool_id IS NULL
            OR (t.snapshot, t.apy, t.tvl) IS DISTINCT FROM (n.snapshot, n.apy, n.tvl)
    ){kept}
    {_INSERT}
    SELECT pool_id, date, timestamp, snapshot, apy, tvl
    FROM n
    ON CONFLICT (pool_id, date) DO UPDATE
    SET timestamp = excluded.timestamp,
        snapshot = excluded.snapshot,
        apy = excluded.apy,
        tvl = excluded.tvl""")
    end_change(run, change_id, changed.rowcount)


def _observed_values(staging: str) -> str:
    return f"""
        SELECT pool_id, date, timestamp, snapshot,
            CASE WHEN apy_staleness_days = 0 THEN actual_apy END AS apy,
            CASE WHEN tvl_staleness_days = 0 THEN actual_tvl END AS tvl
        FROM {staging}
        WHERE {IS_OBSERVED}"""


def create_retired_days(plan_table: str, staging: str) -> str:
    """Return a statement that creates RETIRED: stored days for which the run found no raw row.

    The run neither used a raw row of the day nor rejected one under the stored identity.

    Args:
        plan_table: the plan's table; its write intervals are decided.
        staging: the run's staging table.
    """
    return f"""
    CREATE TEMPORARY TABLE {RETIRED} ON COMMIT DROP AS
    SELECT s.pool_id, s.date
    FROM {OBSERVED} AS s
    JOIN {plan_table} AS p ON p.pool_id = s.pool_id
        AND s.date >= p.write_from
        AND s.date < p.write_end
    WHERE NOT EXISTS (
        SELECT FROM {staging} AS used
        WHERE used.pool_id = s.pool_id
            AND used.date = s.date
            AND used.snapshot IS NOT NULL
    )
    AND NOT EXISTS (
        SELECT FROM {staging} AS rejected
        WHERE rejected.pool_id = s.pool_id
            AND rejected.snapshot = s.snapshot
            AND rejected.reason IS NOT NULL
    )"""


def delete_retired_days(run: Run) -> None:
    """Delete the stored days of RETIRED, in the run's transaction."""
    is_retired = "r.pool_id = t.pool_id AND r.date = t.date"
    delete_rows(run, OBSERVED, KEY_COLUMNS, is_retired, using=f"{RETIRED} AS r")


RETIRED_DAYS_IN_COVERAGE = f"""
    SELECT pool_id, date, date
    FROM {RETIRED} AS r
    WHERE NOT EXISTS (
        SELECT FROM {REMOVED_DAYS} AS g
        WHERE g.pool_id = r.pool_id
            AND r.date BETWEEN g.from_day AND g.to_day
    )"""
"""Retired days inside a pool's coverage, as ranges: they keep their row and lose the observed
values.
"""
