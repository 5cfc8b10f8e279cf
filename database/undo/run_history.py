"""Reads runs of the run ledger, with the tables that they changed. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, select

from common.errors import ConfigurationError
from database.connections.engine import checked_connection
from database.ledger.run_records import RunRecord
from database.schema.own_tables import run_changes, run_ledger

LISTED = (
    "run_id",
    "job",
    "status",
    "mode",
    "start",
    "end",
    "as_of",
    "engine",
    "started_at",
    "rows",
    "seconds",
    "error",
    "is_undoable",
)
"""Keys of a run in `runs list`."""

MORE = ("started_at", "finished_at", "code_version", "cost_usd", "batch_id", "watermark", "plan")
MORE_OF_UNDO = ("is_undoable", "undone_at", "undone_by")


def list_runs(engine: Engine, *, job: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the newest runs, with the keys LISTED.

    Args:
        engine: engine of the database.
        job: only runs of this job; None for all.
        limit: maximum number of runs.
    """
    newest = select(run_ledger).order_by(run_ledger.c.started_at.desc()).limit(limit)
    if job:
        newest = newest.where(run_ledger.c.job == job)
    with checked_connection(engine) as connection:
        rows = connection.execute(newest).mappings().all()
    return [_listed(row) for row in rows]


def _listed(row: RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in LISTED}


def show_run(engine: Engine, run_id: str) -> dict[str, Any]:
    """Return everything that is recorded of a run: the keys of a job's `--json`, the plan, the
    undo, and `changes` (table, kind, rows).

    Raises:
        ConfigurationError: there is no such run.
    """
    with checked_connection(engine) as connection:
        row = find_run(connection, run_id)
        changes = connection.execute(
            select(run_changes.c.table_name, run_changes.c.kind, run_changes.c.rows)
            .where(run_changes.c.run_id == run_id)
            .order_by(run_changes.c.id)
        ).all()
    return {
        **RunRecord.from_row(row).to_json(),
        **{name: row[name] for name in (*MORE, *MORE_OF_UNDO)},
        "changes": [
            {"table": change.table_name, "kind": change.kind, "rows": change.rows}
            for change in changes
        ],
    }


def find_run(connection: Connection, run_id: str) -> Mapping[Any, Any]:
    """Return the ledger row of a run.

    Raises:
        ConfigurationError: there is no such run.
    """
    query = select(run_ledger).where(run_ledger.c.run_id == run_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise ConfigurationError(f"there is no run {run_id}: `runs list` shows the runs")
    return dict(row)
