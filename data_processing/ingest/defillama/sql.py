"""Builds the SQL of DefiLlama's rows: statements that hold no connection.

A statement inserts only new rows and updates only rows that differ. Its row count, or its column
`inserted`, is the number of written rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Executable, func, select
from sqlalchemy.dialects.postgresql import insert

from data_processing.ingest.column_limits import ColumnTypes, cut
from data_processing.ingest.pool_descriptions import PLACEHOLDERS, POOL_ID
from data_processing.raw.quarantine_table import REOPEN
from database.schema.merge_sql import qualified
from database.schema.own_tables import quarantine
from database.schema.owner_tables import pools, raw_pool_history, raw_prices

HISTORY = qualified(raw_pool_history)
PRICES = qualified(raw_prices)

# arrays: a chart has thousands of points, and one statement stores them
_DIFFERENT_SNAPSHOTS = """
    SELECT timestamp, CAST(document AS jsonb) AS document, min(position) AS position
    FROM unnest(CAST(:timestamps AS timestamptz[]), CAST(:documents AS text[]))
        WITH ORDINALITY AS u (timestamp, document, position)
    GROUP BY 1, 2"""

_STORED = f"""EXISTS (
        SELECT FROM {HISTORY} AS h
        WHERE h.pool_id = :pool_id
            AND h.timestamp = n.timestamp
            AND h.raw_json_data = n.document
    )"""

# in the order of the chart: of two snapshots of one moment the later id is used
INSERT_SNAPSHOTS = f"""
WITH n AS MATERIALIZED ({_DIFFERENT_SNAPSHOTS}
),
stored AS MATERIALIZED (
    SELECT n.position
    FROM n
    WHERE {_STORED}
),
inserted AS (
    INSERT INTO {HISTORY} (pool_id, timestamp, raw_json_data)
    SELECT :pool_id, n.timestamp, n.document
    FROM n
    WHERE n.position NOT IN (SELECT position FROM stored)
    ORDER BY n.position
    RETURNING pool_id
)
SELECT
    (SELECT count(*) FROM n) AS different,
    (SELECT count(*) FROM stored) AS stored,
    (SELECT count(*) FROM inserted) AS inserted
"""
"""Parameters: pool_id, timestamps, documents. An identical snapshot is stored once, a changed one
next to it. `different` = `stored` + `inserted`, unless a trigger of the table drops rows.
"""

COUNT_STORED = f"SELECT count(*) FROM ({_DIFFERENT_SNAPSHOTS}) AS n WHERE {_STORED}"
"""Counts the different snapshots that are in the table; parameters of INSERT_SNAPSHOTS."""

_CLOSES = "unnest(CAST(:days AS date[]), CAST(:closes AS numeric[])) AS n (day, close)"

_DOCUMENT = "jsonb_build_object('USD', jsonb_build_object('close', n.close))"

_OF_ANOTHER_SOURCE = f"""EXISTS (
    SELECT FROM {PRICES} AS o
    WHERE o.symbol = :symbol
        AND (o.data_timestamp AT TIME ZONE 'UTC')::date = n.day
        AND o.raw_json_data IS DISTINCT FROM jsonb_build_object(
            'USD', jsonb_build_object('close', o.raw_json_data -> 'USD' -> 'close')
        )
)"""

MERGE_CLOSES = f"""
INSERT INTO {PRICES} AS p (data_timestamp, symbol, raw_json_data)
SELECT n.day::timestamp AT TIME ZONE 'UTC', :symbol, {_DOCUMENT}
FROM {_CLOSES}
WHERE NOT {_OF_ANOTHER_SOURCE}
ON CONFLICT (data_timestamp, symbol) DO UPDATE
SET raw_json_data = excluded.raw_json_data,
    insertion_timestamp = now()
WHERE p.raw_json_data IS DISTINCT FROM excluded.raw_json_data
"""
"""Parameters: symbol, days, closes. A changed close counts as newly inserted, so that the metrics
job reads it. A day with other fields (open, high, ..) belongs to another source and stays.
"""

COUNT_MISSING_CLOSES = f"""
SELECT count(*)
FROM {_CLOSES}
WHERE NOT {_OF_ANOTHER_SOURCE}
    AND NOT EXISTS (
        SELECT FROM {PRICES} AS p
        WHERE p.symbol = :symbol
            AND p.data_timestamp = n.day::timestamp AT TIME ZONE 'UTC'
            AND p.raw_json_data = {_DOCUMENT}
    )
"""
"""Counts the closes that are not in the table after MERGE_CLOSES; the same parameters."""

QUARANTINE = f"""
INSERT INTO {qualified(quarantine)} AS q
    (run_id, source_table, source_id, pool_id, reason, raw_json_data)
VALUES (:run_id, '{HISTORY}', :source_id, :pool_id, :reason, CAST(:document AS jsonb))
ON CONFLICT (source_table, source_id, reason) DO UPDATE
SET run_id = excluded.run_id,
    raw_json_data = excluded.raw_json_data,
    quarantined_at = now(),
    {REOPEN}
WHERE q.raw_json_data IS DISTINCT FROM excluded.raw_json_data
"""
"""Parameters: run_id, source_id, pool_id, reason, document. A point that is refused again stays one
row.
"""


def upsert_pool(
    pool_id: str, described: Mapping[str, Any] | None, required: ColumnTypes
) -> Executable:
    """Return the statement that inserts or updates a pool; NULL never replaces a value.

    Args:
        pool_id: the pool.
        described: descriptions of a listed pool. A pool that is not listed (None) is inserted as
            inactive, or keeps its descriptions.
        required: required descriptions; a new pool that lacks one gets a placeholder.
    """
    values = dict(described or {})
    stored = pools.alias("known")
    # PostgreSQL rejects a NULL before it looks for a conflict, so the stored value is repeated
    required_values = {
        name: func.coalesce(
            values.get(name),
            select(stored.c[name]).where(stored.c.pool_id == pool_id).scalar_subquery(),
            cut(pool_id if PLACEHOLDERS[name] == POOL_ID else PLACEHOLDERS[name], type_),
        )
        for name, type_ in required.items()
    }
    new = insert(pools).values(
        pool_id=pool_id,
        is_active=described is not None,
        last_updated=func.now(),
        **(values | required_values),
    )
    updates: dict[str, Any] = {
        name: func.coalesce(new.excluded[name], pools.c[name]) for name in values
    }
    if described is not None:
        updates["is_active"] = True
    updates["last_updated"] = func.now()
    return new.on_conflict_do_update(index_elements=[pools.c.pool_id], set_=updates)
