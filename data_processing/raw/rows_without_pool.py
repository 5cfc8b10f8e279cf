"""Raw rows without a pool id, where the owner's column allows NULL: no run can read them for a
pool, so SQL alone puts them into quarantine.

In: raw history. Out: rows of `yieldspark.quarantine`, each once however often it comes, and their
number in the run.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.checks.catalogue import words
from data_processing.raw.history import TABLE
from data_processing.raw.observed_days import snapshot_identity
from data_processing.raw.quarantine_table import QUARANTINE
from database.ledger.runs import Run

log = logging.getLogger(__name__)

NO_POOL = "pool_id_missing"

SOURCE_ID = "no pool|"
"""What stands before the snapshot's identity in `source_id`: a replay has no pool to put it to."""

_MAY_BE_NULL = f"""EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('{TABLE}')
        AND attname = 'pool_id'
        AND NOT attnotnull
)"""

_NEW_ROWS = f"""
SELECT DISTINCT ON (source_id) source_id, timestamp, raw_json_data
FROM (
    SELECT '{SOURCE_ID}' || {snapshot_identity("h")} AS source_id, h.timestamp, h.raw_json_data
    FROM {TABLE} AS h
    WHERE {_MAY_BE_NULL}
        AND h.pool_id IS NULL
) AS without_pool
WHERE NOT EXISTS (
    SELECT FROM {QUARANTINE} AS q
    WHERE q.source_table = '{TABLE}'
        AND q.source_id = without_pool.source_id
        AND q.reason = '{NO_POOL}'
)
"""
"""A column that is NOT NULL is asked for once, and no row is looked at."""


def count_rows_without_pool(connection: Connection) -> int:
    """How many a run would put into quarantine."""
    counted = connection.exec_driver_sql(f"SELECT count(*) FROM ({_NEW_ROWS}) AS new_rows")
    return int(counted.scalar_one())


def quarantine_rows_without_pool(connection: Connection, settings: Settings, run: Run) -> None:
    """Inside the caller's transaction; the run counts them as read and quarantined."""
    insert = (
        f"INSERT INTO {QUARANTINE} (run_id, source_table, source_id, timestamp, reason,"
        f" raw_json_data) SELECT :run_id, '{TABLE}', source_id, timestamp, '{NO_POOL}',"
        f" raw_json_data FROM ({_NEW_ROWS}) AS new_rows"
    )
    rows = connection.execute(text(insert), {"run_id": run.run_id}).rowcount
    if not rows:
        return
    log.warning("check %s: %d rows, not used", NO_POOL, rows)
    for name in ("read", "quarantined"):
        run.rows[name] += rows
    entry = {"name": NO_POOL, "level": "row", "severity": "fail", "passed": False, "failing": rows}
    run.checks.append(entry | {"found": f"{words(NO_POOL, settings)}: {rows:,} rows, not used"})
