"""Looking at quarantined rows: which there are, why, and whether one would pass today's limits.

In: `yieldspark.quarantine`. Out: plain dicts that are JSON as they are (timestamps as text, because
PostgreSQL's reach further than Python's). Nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from common.errors import ConfigurationError
from config_spark import Settings
from data_processing.checks.catalogue import words
from data_processing.checks.row_checks import NO_TIMESTAMP, NOT_IN_POOLS, raw_row_checks
from data_processing.raw.history import judged_rows, lacks_its_pool, texts_of
from data_processing.raw.observed_days import UNDECIDED, snapshot_identity
from data_processing.raw.quarantine_table import HISTORY, QUARANTINE, RAW_ROW
from data_processing.raw.rows_without_pool import SOURCE_ID
from database.connections.engine import checked_connection

COLUMNS = (
    "id, source_table, source_id, pool_id, timestamp::text AS timestamp, reason, run_id,"
    " quarantined_at::text AS quarantined_at, resolution, resolved_at::text AS resolved_at,"
    " resolved_by, resolved_by_run, replayed_row_id, note"
)


@dataclass(frozen=True)
class Selection:
    """Which quarantined rows: by id, reason and pool, open ones unless `resolved`; `since`: put
    there on that UTC day or later.
    """

    ids: tuple[int, ...] = ()
    reason: str | None = None
    pool_id: str | None = None
    since: date | None = None
    resolved: bool = False

    @property
    def condition(self) -> str:
        parts = ["true" if self.resolved or self.ids else "resolution IS NULL"]
        parts += ["id = ANY(:ids)"] if self.ids else []
        parts += ["reason = :reason"] if self.reason else []
        parts += ["pool_id = :pool_id"] if self.pool_id else []
        parts += (
            ["quarantined_at >= CAST(:since AS timestamp) AT TIME ZONE 'UTC'"] if self.since else []
        )
        return " AND ".join(parts)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "ids": list(self.ids),
            "reason": self.reason,
            "pool_id": self.pool_id,
            "since": self.since,
        }

    def public(self) -> dict[str, Any]:
        """What the ledger keeps: what was asked for, and nothing that was not."""
        asked = {"ids": list(self.ids), "reason": self.reason, "pool": self.pool_id}
        return {name: value for name, value in asked.items() if value}


def list_rows(engine: Engine, selection: Selection, *, limit: int) -> dict[str, Any]:
    """{counts: [{source_table, reason, resolution, rows}] the most first, rows: the newest `limit`,
    total}. Raises: DatabaseError.
    """
    counted = (
        f"SELECT source_table, reason, resolution, count(*) AS rows FROM {QUARANTINE} WHERE"
        f" {selection.condition} GROUP BY 1, 2, 3 ORDER BY rows DESC, 1, 2, 3"
    )
    listed = (
        f"SELECT {COLUMNS} FROM {QUARANTINE} WHERE {selection.condition} ORDER BY"
        f" {QUARANTINE}.quarantined_at DESC, id DESC LIMIT :limit"
    )
    with checked_connection(engine) as connection:
        counts = [
            dict(row) for row in connection.execute(text(counted), selection.parameters).mappings()
        ]
        rows = [
            dict(row)
            for row in connection.execute(
                text(listed), {**selection.parameters, "limit": limit}
            ).mappings()
        ]
    return {"counts": counts, "rows": rows, "total": sum(row["rows"] for row in counts)}


def show_row(
    engine: Engine, settings: Settings, row_id: int, *, now: datetime | None = None
) -> dict[str, Any]:
    """One row with its raw_json_data, `words` for its reason, the ids that it has in the raw table
    now (`raw_rows`), and today's verdict: `passes_now`, `reason_now`; None where it can't be
    replayed.

    Raises: ConfigurationError for an id that is not there; DatabaseError.
    """
    require_ids(engine, [row_id])
    with checked_connection(engine) as connection:
        query = (
            f"SELECT {COLUMNS}, raw_json_data, {RAW_ROW} AS is_raw FROM {QUARANTINE} WHERE id = :id"
        )
        row = dict(connection.execute(text(query), {"id": row_id}).mappings().one())
        is_raw = row.pop("is_raw")
        reason = (
            _reason_now(connection, settings, row_id, now or datetime.now(UTC)) if is_raw else None
        )
        raw_rows = (
            connection.execute(text(_RAW_ROWS), {"id": row_id}).scalars().all() if is_raw else []
        )
    row["raw_rows"] = list(raw_rows)
    verdict = {"passes_now": reason is None if is_raw else None, "reason_now": reason}
    return row | {"words": words(row["reason"], settings), **verdict, "what_to_do": what_to_do(row)}


_RAW_ROWS = f"""
SELECT h.id
FROM {QUARANTINE} AS q
JOIN {HISTORY} AS h ON h.pool_id = q.pool_id
    AND h.timestamp IS NOT DISTINCT FROM q.timestamp
    AND {snapshot_identity("h")}::text = q.source_id
WHERE q.id = :id
ORDER BY h.id
"""


def what_to_do(row: dict[str, Any]) -> str:
    """How such a row is put right."""
    if row["source_table"] != HISTORY:
        return "correct the source and `load` it; the next metrics run sees that it is good"
    if row["source_id"].startswith(SOURCE_ID):
        return "`load` or `ingest` it again with its pool id"
    if not re.fullmatch("-?[0-9]{1,19}", row["source_id"]):
        return (
            "it never came into the raw table: correct the file or the source and `load` or"
            " `ingest` it again"
        )
    if row["reason"] == NO_TIMESTAMP:
        return "`load` or `ingest` it again with its timestamp"
    if row["reason"] == NOT_IN_POOLS:
        return "add its pool to `pools`; the next metrics run takes the row in"
    return (
        "`quarantine replay` it under other limits or with a corrected value, or `quarantine"
        " drop` it"
    )


def require_ids(engine: Engine, ids: Sequence[int]) -> None:
    """Before a run is opened: an id that is none is wrong use. Raises: ConfigurationError naming
    what quarantine does not have.
    """
    query = text(
        "SELECT asked.id FROM unnest(CAST(:ids AS bigint[])) AS asked (id) WHERE NOT EXISTS"
        f" (SELECT FROM {QUARANTINE} AS q WHERE q.id = asked.id)"
    )
    with checked_connection(engine) as connection:
        missing = connection.execute(query, {"ids": list(ids)}).scalars().all()
    if missing:
        raise ConfigurationError(
            f"quarantine has no row {', '.join(map(str, missing[:5]))}: `quarantine list` shows"
            " the ids"
        )


def _reason_now(
    connection: Connection, settings: Settings, row_id: int, now: datetime
) -> str | None:
    row = (
        f"SELECT id, timestamp, {texts_of('raw_json_data')}, {lacks_its_pool('q.pool_id')} AS"
        f" not_in_pools, {UNDECIDED} FROM {QUARANTINE} AS q WHERE id = {row_id:d}"
    )
    verdict = judged_rows(row, raw_row_checks(settings, now))
    reason: str | None = connection.exec_driver_sql(
        f"SELECT reason FROM ({verdict}) AS j"
    ).scalar_one()
    return reason
