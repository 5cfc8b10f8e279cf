"""Lists quarantined rows, and shows why one was rejected and whether it passes the current checks.

Reads `yieldspark.quarantine`; returns dicts of plain JSON values. Timestamps are text, because
PostgreSQL's range exceeds Python's. Changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from common.errors import ConfigurationError
from config_spark import Settings
from data_processing.checks.catalogue import check_message
from data_processing.checks.row_checks import NOT_IN_POOLS, TIMESTAMP_MISSING, raw_row_checks
from data_processing.raw.history import json_fields, lacks_its_pool, validated_rows
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
    """Selects quarantined rows.

    Attributes:
        ids: quarantine ids; empty for all.
        reason: name of a check; None for all.
        pool_id: one pool; None for all.
        since: quarantined on this UTC day or later.
        resolved: include resolved rows. Rows selected by id are always included.
    """

    ids: tuple[int, ...] = ()
    reason: str | None = None
    pool_id: str | None = None
    since: date | None = None
    resolved: bool = False

    @property
    def condition(self) -> str:
        """SQL condition with the parameters of `parameters`."""
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
        """Parameters of `condition`."""
        return {
            "ids": list(self.ids),
            "reason": self.reason,
            "pool_id": self.pool_id,
            "since": self.since,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the used criteria as plain JSON values, for the run ledger."""
        criteria = {"ids": list(self.ids), "reason": self.reason, "pool": self.pool_id}
        return {name: value for name, value in criteria.items() if value}


def list_rows(engine: Engine, selection: Selection, *, limit: int) -> dict[str, Any]:
    """List quarantined rows.

    Args:
        engine: the database.
        selection: selects the rows.
        limit: largest number of rows to return.

    Returns:
        {counts: [{source_table, reason, resolution, rows}], the most first; rows: the newest
        `limit`; total}.

    Raises:
        DatabaseError: the database refused a statement or the connection was lost.
    """
    counts_query = f"""
    SELECT source_table, reason, resolution, count(*) AS rows
    FROM {QUARANTINE}
    WHERE {selection.condition}
    GROUP BY 1, 2, 3
    ORDER BY rows DESC, 1, 2, 3"""
    # ordered by the table's column: the select list has a text of the same name
    rows_query = f"""
    SELECT {COLUMNS}
    FROM {QUARANTINE}
    WHERE {selection.condition}
    ORDER BY {QUARANTINE}.quarantined_at DESC, id DESC
    LIMIT :limit"""
    parameters = selection.parameters
    with checked_connection(engine) as connection:
        counts = connection.execute(text(counts_query), parameters).mappings().all()
        rows = connection.execute(text(rows_query), parameters | {"limit": limit}).mappings().all()
    return {
        "counts": [dict(row) for row in counts],
        "rows": [dict(row) for row in rows],
        "total": sum(row["rows"] for row in counts),
    }


def show_row(
    engine: Engine, settings: Settings, row_id: int, *, now: datetime | None = None
) -> dict[str, Any]:
    """Show one quarantined row.

    Args:
        engine: the database.
        settings: limits and severities of the checks.
        row_id: quarantine id.
        now: current time, UTC; default is this machine's.

    Returns:
        The row with raw_json_data, as text if Python cannot read it; `message`, that of its
        reason; `raw_rows`, its ids in the raw table; `passes_now` and `reason_now` by the current
        checks, None if it can't be replayed; `what_to_do`.

    Raises:
        ConfigurationError: quarantine has no such id.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    require_ids(engine, [row_id])
    query = f"""
    SELECT {COLUMNS}, raw_json_data::text AS raw_json_data, {RAW_ROW} AS is_raw
    FROM {QUARANTINE}
    WHERE id = :id"""
    reason, raw_rows = None, []
    with checked_connection(engine) as connection:
        row = dict(connection.execute(text(query), {"id": row_id}).mappings().one())
        is_raw = row.pop("is_raw")
        if is_raw:
            reason = _reason_now(connection, settings, row_id, now or datetime.now(UTC))
            raw_rows = list(connection.execute(text(_RAW_ROWS), {"id": row_id}).scalars())
    return row | {
        "raw_json_data": _document(row["raw_json_data"]),
        "raw_rows": raw_rows,
        "message": check_message(row["reason"], settings),
        "passes_now": reason is None if is_raw else None,
        "reason_now": reason,
        "what_to_do": remedy(row),
    }


def _document(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    # nested too deeply, or an integer of more digits than Python reads
    except (RecursionError, ValueError):
        return text


_RAW_ROWS = f"""
SELECT h.id
FROM {QUARANTINE} AS q
JOIN {HISTORY} AS h ON h.pool_id = q.pool_id
    AND h.timestamp IS NOT DISTINCT FROM q.timestamp
    AND {snapshot_identity("h")}::text = q.source_id
WHERE q.id = :id
ORDER BY h.id
"""


def remedy(row: dict[str, Any]) -> str:
    """Return the next step for a quarantined row.

    Args:
        row: source_table, source_id and reason.
    """
    if row["source_table"] != HISTORY:
        return "correct the source and `load` it; the next metrics run sees that it is good"
    if row["source_id"].startswith(SOURCE_ID):
        return "`load` or `ingest` it again with its pool id"
    # a number is a snapshot's identity; `load` and `ingest` write file or pool, and position
    if not re.fullmatch("-?[0-9]{1,19}", row["source_id"]):
        return (
            "it never came into the raw table: correct the file or the source and `load` or"
            " `ingest` it again"
        )
    if row["reason"] == TIMESTAMP_MISSING:
        return "`load` or `ingest` it again with its timestamp"
    if row["reason"] == NOT_IN_POOLS:
        return "add its pool to `pools`; the next metrics run uses the row"
    return (
        "`quarantine replay` it under other limits or with a corrected value, or `quarantine"
        " drop` it"
    )


def require_ids(engine: Engine, ids: Sequence[int]) -> None:
    """Require that quarantine has the ids, before a run is opened.

    Args:
        engine: the database.
        ids: quarantine ids.

    Raises:
        ConfigurationError: ids are missing; the message names the first of them.
    """
    query = text(f"""
    SELECT requested.id
    FROM unnest(CAST(:ids AS bigint[])) AS requested (id)
    WHERE NOT EXISTS (
        SELECT FROM {QUARANTINE} AS q
        WHERE q.id = requested.id
    )""")
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
    # UNDECIDED: the question is whether the values pass, whatever people decided
    row = f"""
        SELECT id, timestamp,
            {json_fields("raw_json_data")},
            {lacks_its_pool("q.pool_id")} AS not_in_pools,
            {UNDECIDED}
        FROM {QUARANTINE} AS q
        WHERE id = {row_id:d}"""
    verdict = validated_rows(row, raw_row_checks(settings, now))
    reason: str | None = connection.exec_driver_sql(
        f"SELECT reason FROM ({verdict}) AS verdict"
    ).scalar_one()
    return reason
