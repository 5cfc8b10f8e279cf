"""Updates the resolutions of quarantined rows in every metrics run, inside its commit.

Reads `yieldspark.quarantine`, the raw rows behind it and the current checks. Sets `resolution` to
`accepted` for an open row whose source row is in use, and to NULL for an accepted row that fails
again. `replayed` and `dropped` are decisions of people: they stay, for every reason of the source
row. Rows are never deleted.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.checks.row_checks import IN_FUTURE, NOT_IN_POOLS, raw_row_checks
from data_processing.planning.run_plan import Plan
from data_processing.raw.history import (
    RAW_ROW_COLUMNS,
    STORED_DAY_COLUMNS,
    TABLE,
    midnight,
    validated_rows,
)
from data_processing.raw.observed_days import OBSERVED, snapshot_identity
from data_processing.raw.quarantine_table import ACCEPT, QUARANTINE, RAW_ROW, REOPEN

VERDICTS = "resolution_verdicts"
"""Temporary table of the run's transaction: source_id and the current reason, NULL if accepted."""


def update_resolutions(
    connection: Connection, settings: Settings, plan: Plan, run_id: str, *, staging: str
) -> None:
    """Update the resolutions by the rows that the run is about to commit.

    A partial run only repeats earlier decisions and leaves the rest to the next run. A row that is
    gone from raw history, and whose value is not in use, stays as it is.

    Args:
        connection: the run's transaction.
        settings: limits and severities of the checks.
        plan: the run's plan.
        run_id: stored as the run that resolved a row.
        staging: the run's staging table, with the rows that it rejected.
    """
    connection.execute(text(_REPEAT_DECISIONS), {"run_id": run_id})
    if plan.is_partial or plan.decision.end is None:
        return
    checks = raw_row_checks(settings, plan.decision.now)
    rows = validated_rows(_snapshots(plan, plan.decision.end), checks, also=("source_id",))
    connection.exec_driver_sql(f"""
    CREATE TEMPORARY TABLE {VERDICTS} ON COMMIT DROP AS
    SELECT DISTINCT source_id, reason
    FROM ({rows}) AS rows""")
    accepted = f"""
    UPDATE {QUARANTINE} AS q
    SET {ACCEPT}
    FROM {VERDICTS} AS v
    WHERE q.source_table = '{TABLE}'
        AND q.source_id = v.source_id
        AND v.reason IS NULL
        AND q.resolution IS NULL
        AND (q.reason <> '{NOT_IN_POOLS}' OR {_is_in_use(plan, staging)})"""
    connection.execute(text(accepted), {"run_id": run_id})
    connection.exec_driver_sql(f"""
    UPDATE {QUARANTINE} AS q
    SET {REOPEN}
    FROM {VERDICTS} AS v
    WHERE q.source_table = '{TABLE}'
        AND q.source_id = v.source_id
        AND v.reason IS NOT NULL
        AND q.resolution = 'accepted'""")


def _snapshots(plan: Plan, end: date) -> str:
    """Return a SELECT of the snapshots behind the entries that may change, with source_id."""
    # other reasons change with a limit, and a changed limit makes a full refresh
    candidates = f"resolution IS NULL AND reason IN ('{IN_FUTURE}', '{NOT_IN_POOLS}')"
    if plan.decision.mode == "full_refresh":
        candidates = "resolution IS NULL OR resolution = 'accepted'"
    # the stored value of a row that is gone may be in use
    return f"""
        WITH entries AS MATERIALIZED (
            SELECT DISTINCT source_id, pool_id, timestamp
            FROM {QUARANTINE}
            WHERE {RAW_ROW}
                AND ({candidates})
        )
        SELECT {RAW_ROW_COLUMNS}, e.source_id
        FROM entries AS e
        JOIN {TABLE} AS h ON h.pool_id = e.pool_id
            AND h.timestamp = e.timestamp
            AND {snapshot_identity("h")}::text = e.source_id
        WHERE h.timestamp < {midnight(end)}
        UNION ALL
        SELECT {STORED_DAY_COLUMNS}, e.source_id
        FROM entries AS e
        JOIN {OBSERVED} AS s ON s.pool_id = e.pool_id
            AND s.snapshot::text = e.source_id"""


def _is_in_use(plan: Plan, staging: str) -> str:
    """Return a condition on `q`: the run wrote the row's day and did not reject the row."""
    # a pool may appear in `pools` after the plan or the read; its rows are left to the next run
    return f"""(
        EXISTS (
            SELECT FROM {plan.decision.table} AS p
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


_REPEAT_DECISIONS = f"""
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
"""For a source row that was replayed or dropped, and that this run rejects for another reason."""
