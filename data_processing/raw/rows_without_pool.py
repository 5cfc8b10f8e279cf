"""Quarantines raw rows without a pool id, if the owner's column allows NULL.

No run can read them for a pool, so this is done in SQL alone. Each row is quarantined once, however
often it is inserted.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.checks.catalogue import check_message
from data_processing.raw.history import TABLE
from data_processing.raw.observed_days import snapshot_identity
from data_processing.raw.quarantine_table import QUARANTINE
from database.ledger.check_result import CheckResult
from database.ledger.runs import Run

log = logging.getLogger(__name__)

NO_POOL = "pool_id_missing"

SOURCE_ID = "no pool|"
"""Prefix of the snapshot's identity in `source_id`. Such a row can't be replayed, because it has no
pool.
"""

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
"""`_MAY_BE_NULL` is answered once: no row is read if the column is NOT NULL."""


def count_rows_without_pool(connection: Connection) -> int:
    """Return how many rows a run quarantines because they have no pool id."""
    counted = connection.exec_driver_sql(f"SELECT count(*) FROM ({_NEW_ROWS}) AS new_rows")
    return int(counted.scalar_one())


def quarantine_rows_without_pool(connection: Connection, settings: Settings, run: Run) -> None:
    """Quarantine the rows without a pool id, and count them as read and quarantined.

    Args:
        connection: the caller's transaction.
        settings: limits, for the message.
        run: the open run.
    """
    insert = f"""
    INSERT INTO {QUARANTINE} (run_id, source_table, source_id, timestamp, reason, raw_json_data)
    SELECT :run_id, '{TABLE}', source_id, timestamp, '{NO_POOL}', raw_json_data
    FROM ({_NEW_ROWS}) AS new_rows"""
    rows = connection.execute(text(insert), {"run_id": run.run_id}).rowcount
    if not rows:
        return
    log.warning("check %s: %d rows, not used", NO_POOL, rows)
    # Spark does not see these rows, so its counts lack them
    for name in ("read", "quarantined"):
        run.rows[name] += rows
    message = f"{check_message(NO_POOL, settings)}: {rows:,} rows, not used"
    run.checks.append(CheckResult(NO_POOL, False, "fail", message, "row", failing=rows))
