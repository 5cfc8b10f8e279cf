"""Replays quarantined rows, or drops them: each a run of its own in the ledger.

A replay validates open rows by the current checks and inserts those that pass into raw history as
new rows of the same pool and timestamp, so that the next metrics run reads them. The rejected raw
row stays as it is; quarantined rows are marked, never deleted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from config_spark import Settings
from data_processing.checks.catalogue import check_message
from data_processing.checks.row_checks import raw_row_checks
from data_processing.quarantine.queries import Selection, remedy, require_ids
from data_processing.raw.history import json_fields, lacks_its_pool, validated_rows
from data_processing.raw.observed_days import UNDECIDED, snapshot_identity
from data_processing.raw.quarantine_table import HISTORY, QUARANTINE, RAW_ROW
from database.connections.engine import checked_connection
from database.ledger.run_json import ROW_COUNTS
from database.ledger.run_records import read_run
from database.ledger.runs import Run, open_run
from database.schema.check import verify_tables
from database.schema.table_use import REPLAY_USE

REPLAY_JOB, DROP_JOB = "replay_quarantine", "drop_quarantine"

LISTED_ROWS = 100


@dataclass(frozen=True)
class Replay:
    """A request to replay rows.

    Attributes:
        selection: selects the rows.
        by: current user.
        corrections: corrected values as JSON text, by quarantine id.
    """

    selection: Selection
    by: str
    corrections: Mapping[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for the run ledger."""
        corrections = {str(row_id): json.loads(text) for row_id, text in self.corrections.items()}
        return {"request": self.selection.to_json(), "corrections": corrections}


def replay_rows(
    settings: Settings,
    engine: Engine,
    replay: Replay,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Validate rows by the current checks and insert those that pass.

    Args:
        settings: limits and severities of the checks.
        engine: the database.
        replay: rows and corrections.
        dry_run: report the outcome and write nothing.
        now: current time, UTC; default is this machine's.

    Returns:
        The run's ledger row (a dry run: `{"job", "status": "planned", "rows"}`) with `outcomes`
        (rows by outcome) and `details`, the first LISTED_ROWS of {id, pool_id, timestamp, reason,
        outcome, reason_now, message, replayed_row_id}. read = inserted + quarantined + unchanged:
        replayed, still failing, nothing to replay.

    Raises:
        ConfigurationError: quarantine has no such id.
        DatabaseRefused: rights are missing; the message has the GRANT statements.
        SchemaMismatch: a table is not as expected.
        RunInProgress: another run of the job holds the lock.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    at = now or datetime.now(UTC)
    with checked_connection(engine) as connection:
        verify_tables(connection, REPLAY_USE)
    require_ids(engine, replay.selection.ids)
    if dry_run:
        with checked_connection(engine) as connection:
            details = _replay(connection, settings, replay, "", at)
            # a dry run makes all changes and takes them back
            connection.rollback()
        return {
            "job": REPLAY_JOB,
            "status": "planned",
            "rows": _counts(details),
            **_outcomes(details),
        }
    with open_run(
        engine,
        job=REPLAY_JOB,
        mode="replay",
        plan=replay.to_json(),
        code_version=settings.code_version,
    ) as run:
        with run.stage("replay"), run.connection.begin():
            details = _replay(run.connection, settings, replay, run.run_id, at)
            _commit(run, _counts(details))
    return read_run(engine, run.run_id).to_json() | _outcomes(details)


def drop_rows(
    settings: Settings, engine: Engine, selection: Selection, *, by: str, note: str
) -> dict[str, Any]:
    """Mark open rows as dropped, with every other reason of their source row.

    Args:
        settings: code version.
        engine: the database.
        selection: selects the rows.
        by: current user.
        note: reason of the user.

    Returns:
        The run's ledger row; read = updated + unchanged: marked now, resolved before.

    Raises:
        ConfigurationError: quarantine has no such id.
        DatabaseRefused: rights are missing; the message has the GRANT statements.
        RunInProgress: another run of the job holds the lock.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    with checked_connection(engine) as connection:
        verify_tables(connection, ())
    require_ids(engine, selection.ids)
    plan = {"request": selection.to_json(), "note": note}
    with open_run(
        engine, job=DROP_JOB, mode="drop", plan=plan, code_version=settings.code_version
    ) as run:
        with run.stage("drop"), run.connection.begin():
            selected = f"""
            SELECT source_table, source_id, resolution
            FROM {QUARANTINE}
            WHERE {selection.condition}"""
            resolved = f"SELECT count(*) FROM ({selected}) AS s WHERE resolution IS NOT NULL"
            before = run.connection.execute(text(resolved), selection.parameters).scalar_one()
            marked = run.connection.execute(
                text(f"""
                UPDATE {QUARANTINE} AS q
                SET resolution = 'dropped',
                    resolved_at = now(),
                    resolved_by_run = :run_id,
                    resolved_by = :by,
                    note = :note
                FROM (
                    SELECT DISTINCT source_table, source_id
                    FROM ({selected}) AS s
                    WHERE resolution IS NULL
                ) AS open_rows
                WHERE q.source_table = open_rows.source_table
                    AND q.source_id = open_rows.source_id
                    AND q.resolution IS NULL"""),
                {**selection.parameters, "run_id": run.run_id, "by": by, "note": note},
            ).rowcount
            _commit(run, {"read": marked + before, "updated": marked, "unchanged": before})
    return read_run(engine, run.run_id).to_json()


def _commit(run: Run, counts: Mapping[str, int]) -> None:
    run.rows |= counts
    run.status = "succeeded"
    run.write(run.connection, finished=True)


def _replay(
    connection: Connection, settings: Settings, replay: Replay, run_id: str, now: datetime
) -> list[dict[str, Any]]:
    """Replay the rows that pass; return the outcome of each selected row, by id."""
    corrections = json.dumps(
        [
            {"id": row_id, "values": json.loads(values)}
            for row_id, values in replay.corrections.items()
        ]
    )
    # locks the rows; count(*) so that they are not sent
    locked = f"""
    SELECT count(*)
    FROM (
        SELECT FROM {QUARANTINE}
        WHERE {replay.selection.condition}
        FOR UPDATE
    ) AS locked"""
    connection.execute(text(locked), replay.selection.parameters)
    connection.execute(
        text(_candidates(replay.selection)),
        {**replay.selection.parameters, "corrections": corrections},
    )
    replayable = f"""
        SELECT id, timestamp,
            {json_fields("document")},
            {lacks_its_pool("candidates.pool_id")} AS not_in_pools,
            {UNDECIDED}
        FROM candidates
        WHERE replayable"""
    verdicts = validated_rows(replayable, raw_row_checks(settings, now))
    connection.exec_driver_sql(f"""
    CREATE TEMPORARY TABLE verdicts ON COMMIT DROP AS
    SELECT id, reason AS reason_now
    FROM ({verdicts}) AS v""")
    connection.execute(text(REPLAY_SQL), {"run_id": run_id, "by": replay.by})
    outcomes = connection.exec_driver_sql(OUTCOMES_SQL).mappings()
    return [_detail(dict(row), settings) for row in outcomes]


def _candidates(selection: Selection) -> str:
    """Return the statement that creates the temporary table `candidates`: the selected rows, each
    with the JSON that a replay inserts.
    """
    replayable = f"({RAW_ROW} AND resolution IS NULL)"
    # a source row may be quarantined for several reasons: one of them, the leader, is replayed. A
    # correction replaces single fields of the raw JSON, or all of it if it is no object
    return f"""
    CREATE TEMPORARY TABLE candidates ON COMMIT DROP AS
    SELECT q.*,
        {replayable} AS replayable,
        row_number() OVER (
            PARTITION BY source_table, source_id
            ORDER BY {replayable} DESC, c.values IS NULL, q.id DESC
        ) = 1 AS leader,
        CASE
            WHEN c.values IS NULL THEN raw_json_data
            WHEN jsonb_typeof(raw_json_data) = 'object' THEN raw_json_data || c.values
            ELSE c.values
        END AS document
    FROM (
        SELECT *
        FROM {QUARANTINE}
        WHERE {selection.condition}
    ) AS q
    LEFT JOIN jsonb_to_recordset(CAST(:corrections AS jsonb)) AS c (id bigint, values jsonb)
        ON c.id = q.id"""


REPLAY_SQL = f"""
WITH passing AS (
    SELECT c.*
    FROM candidates AS c
    JOIN verdicts AS v ON v.id = c.id
    WHERE c.leader
        AND v.reason_now IS NULL
),
inserted AS (
    INSERT INTO {HISTORY} (pool_id, timestamp, raw_json_data)
    SELECT p.pool_id, p.timestamp, p.document
    FROM passing AS p
    LEFT JOIN {HISTORY} AS h ON h.pool_id = p.pool_id
        AND h.timestamp = p.timestamp
        AND {snapshot_identity("h")}::text = p.source_id
    GROUP BY p.pool_id, p.timestamp, p.document
    ORDER BY max(h.id) NULLS FIRST, max(p.id)
    RETURNING id, pool_id, timestamp, raw_json_data
)
UPDATE {QUARANTINE} AS q
SET resolution = 'replayed',
    resolved_at = now(),
    resolved_by_run = :run_id,
    resolved_by = :by,
    replayed_row_id = {snapshot_identity("i")}::text
FROM passing AS p
JOIN inserted AS i ON i.pool_id = p.pool_id
    AND i.timestamp = p.timestamp
    AND i.raw_json_data = p.document
WHERE q.source_table = p.source_table
    AND q.source_id = p.source_id
    AND q.resolution IS NULL
"""
"""Rows are inserted in the order of their source rows, as far as these exist: of two snapshots of
one moment the later row is used.
"""

OUTCOMES_SQL = f"""
SELECT c.id, c.pool_id, c.timestamp::text AS timestamp, c.reason, c.source_table, c.source_id,
    c.replayable, c.resolution AS resolved_before, v.reason_now, q.resolution,
    q.replayed_row_id
FROM candidates AS c
JOIN {QUARANTINE} AS q ON q.id = c.id
LEFT JOIN verdicts AS v ON v.id = c.id
ORDER BY c.id
"""


def _detail(row: dict[str, Any], settings: Settings) -> dict[str, Any]:
    if row["resolved_before"]:
        outcome, message = "already_resolved", f"{row['resolved_before']} before"
    elif not row["replayable"]:
        outcome, message = "not_replayable", remedy(row)
    elif row["resolution"] == "replayed":
        outcome, message = "replayed", "the next metrics run uses it"
    elif row["reason_now"] is None:
        outcome, message = (
            "still_failing",
            "another entry of the same raw row decides, and that one fails",
        )
    else:
        outcome, message = "still_failing", check_message(row["reason_now"], settings)
    columns = ("id", "pool_id", "timestamp", "reason", "reason_now", "replayed_row_id")
    return {name: row[name] for name in columns} | {"outcome": outcome, "message": message}


def _counts(details: list[dict[str, Any]]) -> dict[str, int]:
    # a set: several entries of one raw row insert one row
    replayed = len({row["replayed_row_id"] for row in details if row["outcome"] == "replayed"})
    failing = sum(row["outcome"] == "still_failing" for row in details)
    return dict.fromkeys(ROW_COUNTS, 0) | {
        "read": len(details),
        "inserted": replayed,
        "quarantined": failing,
        "unchanged": len(details) - replayed - failing,
    }


def _outcomes(details: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "outcomes": dict(Counter(row["outcome"] for row in details)),
        "details": details[:LISTED_ROWS],
    }
