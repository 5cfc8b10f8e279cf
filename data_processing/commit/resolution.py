"""What became of quarantined rows, kept true by every metrics run: who was let in after all, and
who is back.

In: `yieldspark.quarantine`, the raw rows behind it and today's checks, inside a run's commit. Out:
`resolution` NULL for an open row, `accepted` for one whose source row is in use by now (a looser
limit, a timestamp that is no longer in the future, a pool that `pools` has by now). A row that is
gone from raw history, and whose value is not in use, stays as it is. `replayed` and `dropped` are
people's decisions: they stay, for every reason the same source row is met with. No row is ever
deleted.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.checks.row_checks import IN_FUTURE, NOT_IN_POOLS, raw_row_checks
from data_processing.planning.run_plan import Plan
from data_processing.raw.history import STORED_TEXTS, TABLE, TEXTS, judged_rows, midnight
from data_processing.raw.observed_days import OBSERVED, snapshot_identity
from data_processing.raw.quarantine_table import ACCEPT, QUARANTINE, RAW_ROW, REOPEN


def settle(
    connection: Connection, settings: Settings, plan: Plan, run_id: str, *, staging: str
) -> None:
    """Bring resolutions up to date with what a run that is about to commit takes in; not for a
    partial one, which leaves rows to the next. `staging` has the rows that the run rejected.
    """
    connection.execute(text(_AS_DECIDED_BEFORE), {"run_id": run_id})
    if plan.is_partial or plan.end is None:
        return
    candidates = f"resolution IS NULL AND reason IN ('{IN_FUTURE}', '{NOT_IN_POOLS}')"
    if plan.mode == "full_refresh":
        candidates = "resolution IS NULL OR resolution = 'accepted'"
    entries = (
        f"SELECT DISTINCT source_id, pool_id, timestamp FROM {QUARANTINE} WHERE {RAW_ROW} AND"
        f" ({candidates})"
    )
    # of a row that is gone, the stored value may be in use
    snapshots = (
        f"WITH entries AS MATERIALIZED ({entries}) SELECT {TEXTS}, e.source_id FROM entries AS e"
        f" JOIN {TABLE} AS h ON h.pool_id = e.pool_id AND h.timestamp = e.timestamp AND"
        f" {snapshot_identity('h')}::text = e.source_id WHERE h.timestamp < {midnight(plan.end)}"
        f" UNION ALL SELECT {STORED_TEXTS}, e.source_id FROM entries AS e JOIN {OBSERVED} AS s ON"
        " s.pool_id = e.pool_id AND s.snapshot::text = e.source_id"
    )
    rows = judged_rows(snapshots, raw_row_checks(settings, plan.now), also=("source_id",))
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE settled ON COMMIT DROP AS SELECT DISTINCT source_id, reason"
        f" FROM ({rows}) AS j"
    )
    accepted = (
        f"UPDATE {QUARANTINE} AS q SET {ACCEPT} FROM settled AS s WHERE q.source_table = '{TABLE}'"
        " AND q.source_id = s.source_id AND s.reason IS NULL AND q.resolution IS NULL AND"
        f" (q.reason <> '{NOT_IN_POOLS}' OR {_taken_in(plan, staging)})"
    )
    connection.execute(text(accepted), {"run_id": run_id})
    connection.exec_driver_sql(
        f"UPDATE {QUARANTINE} AS q SET {REOPEN} FROM settled AS s WHERE q.source_table = '{TABLE}'"
        " AND q.source_id = s.source_id AND s.reason IS NOT NULL AND q.resolution = 'accepted'"
    )


def _taken_in(plan: Plan, staging: str) -> str:
    """Condition on `q`: the run wrote the row's day and did not reject the row. A pool may come
    into `pools` after the run was planned, or after it read: its rows are left to the next run.
    """
    return f"""(
        EXISTS (
            SELECT FROM {plan.table} AS p
            WHERE p.pool_id = q.pool_id
                AND q.timestamp >= p.write_from::timestamp AT TIME ZONE 'UTC'
                AND q.timestamp < p.write_end::timestamp AT TIME ZONE 'UTC'
        )
        AND NOT EXISTS (
            SELECT FROM {staging} AS rejected
            WHERE rejected.reason = '{NOT_IN_POOLS}'
                AND rejected.snapshot::text = q.source_id
        )
    )"""


_AS_DECIDED_BEFORE = f"""
UPDATE {QUARANTINE} AS q
SET resolution = d.resolution,
    resolved_at = now(),
    resolved_by_run = :run_id,
    resolved_by = d.resolved_by,
    replayed_row_id = d.replayed_row_id,
    note = d.note
FROM {QUARANTINE} AS d
WHERE q.run_id = :run_id
    AND q.resolution IS NULL
    AND d.source_table = q.source_table
    AND d.source_id = q.source_id
    AND d.resolution IN ('replayed', 'dropped')
"""
"""A source row that was replayed or dropped, met by this run with another reason."""
