"""What was observed on each day, kept unrounded, so that no metric depends on raw rows that may be
pruned, rewritten or fetched again.

In: a run's staging, raw history, the plan's table, in PostgreSQL. Out: SQL alone: the identity of a
snapshot, the stored days whose raw row is gone as rows to read, and what a commit writes. A day's
row is that of its last accepted snapshot; what no longer passes a limit stays stored and is not
used. APY in percent, TVL in USD, days are UTC.
"""

from __future__ import annotations

from data_processing.raw.pool_coverage import GONE
from data_processing.raw.quarantine_table import HISTORY, QUARANTINE
from database.schema.merge_sql import qualified
from database.schema.tables import observed_days

OBSERVED = qualified(observed_days)

RETIRED = "retired_days"
"""Temporary table of a commit that takes away days whose raw rows are gone: pool_id and date."""

IS_OBSERVED = "reason IS NULL AND snapshot IS NOT NULL"
"""Staged rows of days whose last snapshot is a raw row that the run has read."""


def snapshot_identity(row: str) -> str:
    """PostgreSQL: 64 bits of a snapshot's pool, moment and content. `row` is the alias of what has
    pool_id, timestamp and raw_json_data. A row that comes again under another id has the same.
    """
    pool = f"hashtextextended(coalesce({row}.pool_id::text, '') COLLATE \"C\", 0)"
    utc = f"coalesce({row}.timestamp AT TIME ZONE 'UTC', '-infinity'::timestamp)"
    return (
        f"jsonb_hash_extended(coalesce({row}.raw_json_data, 'null'::jsonb),"
        f" timestamp_hash_extended({utc}, {pool}))"
    )


def decided(snapshot: str) -> str:
    """Select list: dropped and replaced, whether a person has put the snapshot away for good, or
    another row in its place. `snapshot` is an SQL expression of its identity.

    Where nobody ever did that is asked once and not of each row; else PostgreSQL hashes the
    decisions (half a microsecond a row), or asks the unique index where they are too many for that.
    """
    return ", ".join(
        f"(EXISTS ({rows}) AND EXISTS ({rows} AND d.source_id = {snapshot}::text)) AS {name}"
        for name, rows in _DECISIONS.items()
    )


UNDECIDED = "false AS dropped, false AS replaced"

_DECISIONS = {
    name: f"SELECT FROM {QUARANTINE} AS d WHERE d.source_table = '{HISTORY}' AND {condition}"
    for name, condition in {
        "dropped": "d.resolution = 'dropped'",
        # one that was taken in as it was is its own replacement
        "replaced": "d.resolution = 'replayed' AND d.replayed_row_id IS DISTINCT FROM d.source_id",
    }.items()
}


def stored_days(plan_table: str, *, retire_missing: bool) -> str:
    """FROM clause: stored days as `s` beside the plan as `p` that a run reads in place of raw rows:
    those of its range whose snapshot is not in raw history any more. A run that retires such days
    reads none of the days it writes.

    A snapshot that is still there speaks for itself: it may be rejected by now.
    """
    kept = " AND NOT (s.date >= p.write_from AND s.date < p.write_end)" if retire_missing else ""
    return (
        f"{OBSERVED} AS s JOIN {plan_table} AS p ON p.pool_id = s.pool_id AND s.date >="
        " (p.read_from AT TIME ZONE 'UTC')::date AND s.date < (p.read_end AT TIME ZONE 'UTC')::date"
        f" WHERE NOT EXISTS (SELECT FROM {HISTORY} AS h WHERE h.pool_id = s.pool_id AND h.timestamp"
        f" = s.timestamp AND {snapshot_identity('h')} = s.snapshot){kept}"
    )


_REPLACEMENTS = (
    f"SELECT d.replayed_row_id FROM {QUARANTINE} AS d JOIN {HISTORY} AS h ON h.pool_id = d.pool_id"
    f" AND h.timestamp = d.timestamp AND {snapshot_identity('h')}::text = d.source_id WHERE"
    f" d.source_table = '{HISTORY}' AND d.resolution = 'replayed'"
)

PLACE = (
    f"CASE WHEN s.snapshot::text IN ({_REPLACEMENTS}) THEN s.timestamp ELSE s.date::timestamp AT"
    " TIME ZONE 'UTC' END"
)
"""A stored day's place among raw rows: before all of its day, so that each of them beats it. But a
row that a replay has made keeps its moment as long as the row it replaces is there.
"""


def keep_observed(staging: str) -> str:
    """Statement that stores what the run has observed, for the days where it differs. A value that
    is carried is not that day's own.
    """
    return f"""
    INSERT INTO {OBSERVED} AS t (pool_id, date, timestamp, snapshot, apy, tvl)
    SELECT n.*
    FROM (
        SELECT pool_id, date, timestamp, snapshot,
            CASE WHEN apy_staleness_days = 0 THEN actual_apy END AS apy,
            CASE WHEN tvl_staleness_days = 0 THEN actual_tvl END AS tvl
        FROM {staging}
        WHERE {IS_OBSERVED}
    ) AS n
    LEFT JOIN {OBSERVED} AS t ON t.pool_id = n.pool_id AND t.date = n.date
    WHERE t.pool_id IS NULL
        OR (t.snapshot, t.apy, t.tvl) IS DISTINCT FROM (n.snapshot, n.apy, n.tvl)
    ON CONFLICT (pool_id, date) DO UPDATE
    SET timestamp = excluded.timestamp,
        snapshot = excluded.snapshot,
        apy = excluded.apy,
        tvl = excluded.tvl"""


def retired_days(plan_table: str, staging: str) -> str:
    """Statement that makes RETIRED: the stored days of the plan's intervals for which the run found
    no raw row: neither one it used nor, under their own identity, one it rejected.
    """
    return f"""
    CREATE TEMPORARY TABLE {RETIRED} ON COMMIT DROP AS
    SELECT s.pool_id, s.date
    FROM {OBSERVED} AS s
    JOIN {plan_table} AS p ON p.pool_id = s.pool_id
        AND s.date >= p.write_from
        AND s.date < p.write_end
    WHERE NOT EXISTS (
        SELECT FROM {staging} AS found
        WHERE found.pool_id = s.pool_id
            AND found.date = s.date
            AND found.snapshot IS NOT NULL
    )
    AND NOT EXISTS (
        SELECT FROM {staging} AS found
        WHERE found.pool_id = s.pool_id
            AND found.snapshot = s.snapshot
            AND found.reason IS NOT NULL
    )"""


FORGET_RETIRED = f"""
    DELETE FROM {OBSERVED} AS s
    USING {RETIRED} AS r
    WHERE r.pool_id = s.pool_id
        AND r.date = s.date"""

RETIRED_INSIDE = f"""
    SELECT pool_id, date, date
    FROM {RETIRED} AS r
    WHERE NOT EXISTS (
        SELECT FROM {GONE} AS g
        WHERE g.pool_id = r.pool_id
            AND r.date BETWEEN g.from_day AND g.to_day
    )"""
"""Retired days inside a calendar, as ranges: they keep a row and lose what was observed."""
