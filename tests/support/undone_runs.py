"""Digests of the tables that runs write, and undo of the last run, for tests of `undo`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from config_spark import Settings
from database.connections.engine import make_engine
from database.undo.undo import undo_run
from tests.support.metrics_store import rows_of

WRITTEN = """
SELECT format('%I.%I', schemaname, tablename) AS name
FROM pg_tables
WHERE tablename = 'pool_daily_metrics'
    OR (
        schemaname = 'yieldspark'
        AND tablename NOT IN ('alembic_version', 'run_ledger')
    )
ORDER BY 1
"""
"""Every table that a run writes but the ledger, with what it keeps for `undo`."""


def contents(engine: Engine) -> dict[str, list[str]]:
    """Return all rows of the tables that runs write, as sorted texts, by table."""
    tables = {}
    for table in rows_of(engine, WRITTEN):
        rows = rows_of(engine, f"SELECT t::text AS row FROM {table['name']} t")
        tables[table["name"]] = sorted(row["row"] for row in rows)
    return tables


def last_run_id(engine: Engine, job: str = "calculate_metrics") -> str:
    newest = (
        "SELECT run_id FROM yieldspark.run_ledger WHERE job = :job ORDER BY started_at DESC LIMIT 1"
    )
    return str(rows_of(engine, newest, job=job)[0]["run_id"])


def undo_in_process(settings: Settings, run_id: str) -> dict[str, Any]:
    """Undo a run; for processes that are killed meanwhile."""
    return undo_run(make_engine(settings), run_id, by="tester@host")
