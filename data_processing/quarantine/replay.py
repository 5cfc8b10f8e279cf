"""Taking quarantined rows back in, or putting them away for good: each a run of its own in the
ledger.

In: a selection of open rows, corrections, today's checks. Out: rows that pass are inserted into the
raw history as ordinary new ones, under the same pool and timestamp, so that the next metrics run
takes them in; the raw row itself stays as it came. Rows are marked, never deleted.
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
from data_processing.checks.catalogue import words
from data_processing.checks.row_checks import raw_row_checks
from data_processing.quarantine.queries import Selection, require_ids, what_to_do
from data_processing.raw.history import judged_rows, lacks_its_pool, texts_of
from data_processing.raw.observed_days import UNDECIDED, snapshot_identity
from data_processing.raw.quarantine_table import HISTORY, QUARANTINE, RAW_ROW
from database.connections.engine import checked_connection
from database.ledger.run_json import ROW_COUNTS
from database.ledger.runs import Run, ledger_row, open_run
from database.schema.check import verify_tables
from database.schema.table_use import REPLAY_USE

REPLAY_JOB, DROP_JOB = "replay_quarantine", "drop_quarantine"

SHOWN_ROWS = 100


@dataclass(frozen=True)
class Replay:
    """What is asked: rows, by whom, and corrected values by quarantine id (JSON text) for some of
    them.
    """

    selection: Selection
    by: str
    corrections: Mapping[int, str] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        return {
            "request": self.selection.public(),
            "corrections": {
                str(number): json.loads(text) for number, text in self.corrections.items()
            },
        }


def replay_rows(
    settings: Settings,
    engine: Engine,
    replay: Replay,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Judge the rows by today's checks and insert those that pass.

    Returns: the run's ledger row (a dry run: `{"job", "status": "planned", "rows"}`) with
    `outcomes` (rows by outcome) and `details`, the first SHOWN_ROWS of {id, pool_id, timestamp,
    reason, outcome, reason_now, said, replayed_row_id}. read = inserted + quarantined + unchanged:
    taken in, still failing, nothing to do for a replay.
    Raises: ConfigurationError for an id that is not there; DatabaseRefused with the GRANT
    statements where rights are missing; SchemaMismatch; RunInProgress; DatabaseError.
    """
    at = now or datetime.now(UTC)
    with checked_connection(engine) as connection:
        verify_tables(connection, REPLAY_USE)
    require_ids(engine, replay.selection.ids)
    if dry_run:
        with checked_connection(engine) as connection:
            details = _replay(connection, settings, replay, "", at)
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
        plan=replay.public(),
        code_version=settings.code_version,
    ) as run:
        with run.stage("replay"), run.connection.begin():
            details = _replay(run.connection, settings, replay, run.run_id, at)
            _commit(run, _counts(details))
    return ledger_row(engine, run.run_id) | _outcomes(details)


def drop_rows(
    settings: Settings, engine: Engine, selection: Selection, *, by: str, note: str
) -> dict[str, Any]:
    """Mark open rows as dropped, with every other reason their source row is there for; they stay
    for the record.

    Returns: the run's ledger row; read = updated + unchanged: marked now, resolved before.
    Raises: ConfigurationError for an id that is not there; DatabaseRefused with the GRANT
    statements where rights are missing; RunInProgress; DatabaseError.
    """
    with checked_connection(engine) as connection:
        verify_tables(connection, ())
    require_ids(engine, selection.ids)
    plan = {"request": selection.public(), "note": note}
    with open_run(
        engine, job=DROP_JOB, mode="drop", plan=plan, code_version=settings.code_version
    ) as run:
        with run.stage("drop"), run.connection.begin():
            asked = (
                f"SELECT source_table, source_id, resolution FROM {QUARANTINE} WHERE"
                f" {selection.condition}"
            )
            resolved = f"SELECT count(*) FROM ({asked}) AS asked WHERE resolution IS NOT NULL"
            before = run.connection.execute(text(resolved), selection.parameters).scalar_one()
            marked = run.connection.execute(
                text(
                    f"UPDATE {QUARANTINE} AS q SET resolution = 'dropped', resolved_at = now(),"
                    " resolved_by_run = :run_id, resolved_by = :by, note = :note FROM (SELECT"
                    f" DISTINCT source_table, source_id FROM ({asked}) AS asked WHERE resolution IS"
                    " NULL) AS a WHERE q.source_table = a.source_table AND q.source_id ="
                    " a.source_id AND q.resolution IS NULL"
                ),
                {**selection.parameters, "run_id": run.run_id, "by": by, "note": note},
            ).rowcount
            _commit(run, {"read": marked + before, "updated": marked, "unchanged": before})
    return ledger_row(engine, run.run_id)


def _commit(run: Run, counts: Mapping[str, int]) -> None:
    run.rows |= counts
    run.status = "succeeded"
    run.write(run.connection, finished=True)


def _replay(
    connection: Connection, settings: Settings, replay: Replay, run_id: str, now: datetime
) -> list[dict[str, Any]]:
    """Take in what passes; returns the fate of each row asked for, by id."""
    corrections = json.dumps(
        [
            {"id": number, "values": json.loads(values)}
            for number, values in replay.corrections.items()
        ]
    )
    locked = (
        f"SELECT count(*) FROM (SELECT FROM {QUARANTINE} WHERE {replay.selection.condition} FOR"
        " UPDATE) AS locked"
    )
    connection.execute(text(locked), replay.selection.parameters)
    connection.execute(
        text(_candidates(replay.selection)),
        {**replay.selection.parameters, "corrections": corrections},
    )
    replayable = (
        f"SELECT id, timestamp, {texts_of('document')}, {lacks_its_pool('candidates.pool_id')} AS"
        f" not_in_pools, {UNDECIDED} FROM candidates WHERE replayable"
    )
    verdicts = judged_rows(replayable, raw_row_checks(settings, now))
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE verdicts ON COMMIT DROP AS SELECT id, reason AS reason_now FROM"
        f" ({verdicts}) AS j"
    )
    connection.execute(text(_TAKE_IN), {"run_id": run_id, "by": replay.by})
    return [_detail(dict(row), settings) for row in connection.exec_driver_sql(_FATES).mappings()]


def _candidates(selection: Selection) -> str:
    """Statement that makes the temporary table `candidates`: the rows asked for, each with the JSON
    it would come back with.

    A source row that is there for several reasons comes back once: by its corrected or else its
    newest entry that is open, the `leader`.
    """
    replayable = f"({RAW_ROW} AND resolution IS NULL)"
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


_TAKE_IN = f"""
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
"""In the order the source rows came, as far as they are there: of two snapshots of one moment the
later row counts.
"""

_FATES = f"""
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
        outcome, said = "already_resolved", f"{row['resolved_before']} before"
    elif not row["replayable"]:
        outcome, said = "not_replayable", what_to_do(row)
    elif row["resolution"] == "replayed":
        outcome, said = "taken_in", "the next metrics run takes it in"
    elif row["reason_now"] is None:
        outcome, said = (
            "still_failing",
            "another entry of the same raw row decides, and that one fails",
        )
    else:
        outcome, said = "still_failing", words(row["reason_now"], settings)
    shown = {
        name: row[name]
        for name in ("id", "pool_id", "timestamp", "reason", "reason_now", "replayed_row_id")
    }
    return shown | {"outcome": outcome, "said": said}


def _counts(details: list[dict[str, Any]]) -> dict[str, int]:
    taken_in = len({row["replayed_row_id"] for row in details if row["outcome"] == "taken_in"})
    failing = sum(row["outcome"] == "still_failing" for row in details)
    return dict.fromkeys(ROW_COUNTS, 0) | {
        "read": len(details),
        "inserted": taken_in,
        "quarantined": failing,
        "unchanged": len(details) - taken_in - failing,
    }


def _outcomes(details: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "outcomes": dict(Counter(row["outcome"] for row in details)),
        "details": details[:SHOWN_ROWS],
    }
