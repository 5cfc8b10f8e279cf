"""Builds the SQL that merges validated rows into the raw tables: strings from pure functions, no
connection.

Reads rows of `validation_sql.VALIDATED`. Every `merge_*` returns one row (inserted, updated). Gas
in gwei; everything else in the units of the source.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Table

from data_processing.ingest.column_limits import ColumnTypes
from data_processing.ingest.loading.validation_sql import INCOMING, VALIDATED
from data_processing.ingest.pool_descriptions import placeholder
from data_processing.raw.quarantine_table import REOPEN
from database.schema.merge_sql import qualified
from database.schema.own_tables import quarantine
from database.schema.owner_tables import gas_fees_daily, pools, raw_pool_history, raw_prices


def merge_history(rows: str) -> str:
    """Insert the new rows of history: an identical snapshot is stored once, a changed one next to
    it.

    Args:
        rows: SELECT of row_number, pool_id, timestamp, document.
    """
    # in the order of the file: of two snapshots of a moment the later id is used
    return f"""
    WITH merged AS (
        INSERT INTO {qualified(raw_pool_history)} (pool_id, timestamp, raw_json_data)
        SELECT pool_id, timestamp, document
        FROM ({rows}) AS n
        WHERE NOT {STORED_HISTORY}
        GROUP BY pool_id, timestamp, document
        ORDER BY min(row_number)
        RETURNING pool_id
    )
    SELECT count(*) AS inserted, 0 AS updated
    FROM merged"""


STORED_HISTORY = f"""EXISTS (
        SELECT FROM {qualified(raw_pool_history)} AS h
        WHERE h.pool_id = n.pool_id
            AND h.timestamp = n.timestamp
            AND h.raw_json_data = n.document
    )"""


def add_unknown_pools(rows: str, required: ColumnTypes) -> str:
    """Insert a row of `pools` for each pool without one.

    Args:
        rows: SELECT with pool_id.
        required: required descriptions, which get placeholders.
    """
    names = "".join(f", {name}" for name in required)
    values = "".join(f", {placeholder(name, 'pool_id', required)}" for name in required)
    return f"""
    INSERT INTO {qualified(pools)} (pool_id, is_active{names})
    SELECT pool_id, true{values}
    FROM (
        SELECT DISTINCT pool_id
        FROM ({rows}) AS n
    ) AS n
    ON CONFLICT (pool_id) DO NOTHING"""


def merge_prices(rows: str) -> str:
    """Store the closes of days: insert new ones, correct changed ones.

    The last row of a day is its close. If another source stamped that row later than midnight, it
    is corrected in its place if its close differs, and keeps the fields that `rows` lacks.

    Args:
        rows: SELECT of timestamp (a midnight), symbol, document.
    """
    prices = qualified(raw_prices)
    # ours are stamped at midnight
    is_foreign = "l.data_timestamp > n.timestamp"
    usd = "l.raw_json_data -> 'USD'"
    return _counted(
        f"""
        INSERT INTO {prices} AS p (data_timestamp, symbol, raw_json_data)
        SELECT coalesce(l.data_timestamp, n.timestamp),
            coalesce(l.symbol, n.symbol),
            CASE
                WHEN {is_foreign} AND jsonb_typeof({usd}) = 'object'
                    THEN jsonb_set(
                        l.raw_json_data,
                        '{{USD}}',
                        ({usd}) || jsonb_strip_nulls(n.document -> 'USD')
                    )
                ELSE n.document
            END
        FROM ({rows}) AS n
        LEFT JOIN LATERAL (
            SELECT p.*
            FROM {prices} AS p
            WHERE upper(p.symbol) = n.symbol
                AND p.data_timestamp >= n.timestamp
                AND p.data_timestamp < n.timestamp + interval '1 day'
            ORDER BY p.data_timestamp DESC, p.symbol DESC
            LIMIT 1
        ) AS l ON true
        WHERE {is_foreign} IS NOT TRUE
            OR {usd} -> 'close' IS DISTINCT FROM n.document -> 'USD' -> 'close'
        ON CONFLICT (data_timestamp, symbol) DO UPDATE
        SET raw_json_data = excluded.raw_json_data,
            insertion_timestamp = now()
        WHERE p.raw_json_data IS DISTINCT FROM excluded.raw_json_data""",
        raw_prices,
    )


def merge_gas(rows: str) -> str:
    """Store the gas of days: insert new values, correct changed ones.

    Args:
        rows: SELECT of date, gwei.
    """
    return _counted(
        f"""
        INSERT INTO {qualified(gas_fees_daily)} AS g (date, actual_avg_gas_gwei)
        SELECT date, gwei
        FROM ({rows}) AS n
        ON CONFLICT (date) DO UPDATE
        SET actual_avg_gas_gwei = excluded.actual_avg_gas_gwei
        WHERE g.actual_avg_gas_gwei IS DISTINCT FROM excluded.actual_avg_gas_gwei""",
        gas_fees_daily,
    )


def missing_rows(rows: str, stored: str) -> str:
    """Count the rows that the table lacks after the merge, because a trigger dropped or changed
    them, and name the pool of one.

    Args:
        rows: SELECT of the rows.
        stored: one of the conditions below.
    """
    return f"""
    SELECT count(*) AS missing, min(to_jsonb(n) ->> 'pool_id') AS pool_id
    FROM ({rows}) AS n
    WHERE NOT {stored}"""


def stored_prices() -> str:
    """Return a condition on `n`: the close of the day is stored."""
    return f"""EXISTS (
        SELECT FROM {qualified(raw_prices)} AS p
        WHERE upper(p.symbol) = n.symbol
            AND p.data_timestamp >= n.timestamp
            AND p.data_timestamp < n.timestamp + interval '1 day'
            AND p.raw_json_data #> '{{USD,close}}' = n.document #> '{{USD,close}}'
    )"""


def stored_gas(types: ColumnTypes) -> str:
    """Return a condition on `n`: the gas of the day is stored, rounded as the column rounds it."""
    return f"""EXISTS (
        SELECT FROM {qualified(gas_fees_daily)} AS g
        WHERE g.date = n.date
            AND g.actual_avg_gas_gwei = CAST(n.gwei AS {types["actual_avg_gas_gwei"]})
    )"""


def stored_pools() -> str:
    """Return a condition on `n`: `pools` has the pool."""
    return f"EXISTS (SELECT FROM {qualified(pools)} AS p WHERE p.pool_id = n.pool_id)"


def count_pools_to_write(rows: str, columns: Collection[str], types: ColumnTypes) -> str:
    """Count pools before `merge_pools`.

    `outdated`: pools with other descriptions than `pools` that are older, which the merge leaves
    out. `to_write`: pools that it inserts or updates.

    Args:
        rows: SELECT of the pools.
        columns: text columns of the file.
        types: types of `pools`.
    """
    described = {
        name: f"CAST(n.{name} AS {types[name]})"
        for name in columns
        if name not in {"pool_id", "timestamp"}
    }
    # the merge can't tell an older row, which it leaves out, from one that a trigger drops
    differs = " OR ".join(f"{value} <> p.{name}" for name, value in described.items())
    changed = " OR ".join(
        f"coalesce({value}, p.{name}) IS DISTINCT FROM p.{name}"
        for name, value in {"last_updated": "n.timestamp", **described}.items()
    )
    return f"""
    SELECT
        count(*) FILTER (WHERE p.last_updated > n.timestamp AND ({differs or "false"})) AS outdated,
        count(*) FILTER (
            WHERE p.pool_id IS NULL OR (p.last_updated > n.timestamp) IS NOT TRUE AND ({changed})
        ) AS to_write
    FROM ({rows}) AS n
    LEFT JOIN {qualified(pools)} AS p ON p.pool_id = n.pool_id"""


def count_placeholders(rows: str, columns: Collection[str], required: Collection[str]) -> str:
    """Count the new pools that lack a required description, before `merge_pools`.

    Args:
        rows: SELECT of the pools.
        columns: text columns of the file.
        required: required descriptions.
    """
    lacking = " OR ".join(f"n.{name} IS NULL" if name in columns else "true" for name in required)
    return f"""
    SELECT count(*)
    FROM ({rows}) AS n
    WHERE ({lacking or "false"})
        AND NOT {stored_pools()}"""


def merge_pools(rows: str, columns: Collection[str], required: ColumnTypes) -> str:
    """Insert or update the descriptions of pools.

    A NULL never replaces a value, and an older row never a newer one (`timestamp` is the time of
    the description; NULL counts as newest).

    Args:
        rows: SELECT of pool_id, timestamp and the descriptions.
        columns: text columns of the file.
        required: required descriptions; a new pool that lacks one gets a placeholder.
    """
    described = [name for name in columns if name not in {"pool_id", "timestamp"}]
    written = [*described, *(name for name in required if name not in described)]
    names = ", ".join(["pool_id", "is_active", "last_updated", *written])
    descriptions = [_description(name, described, required) for name in written]
    values = ", ".join(["n.pool_id", "true", "n.timestamp", *descriptions])
    updated = ["last_updated", *described]
    updates = ", ".join(f"{name} = coalesce(excluded.{name}, p.{name})" for name in updated)
    changed = " OR ".join(
        f"coalesce(excluded.{name}, p.{name}) IS DISTINCT FROM p.{name}" for name in updated
    )
    return _counted(
        f"""
        INSERT INTO {qualified(pools)} AS p ({names})
        SELECT {values}
        FROM ({rows}) AS n
        LEFT JOIN {qualified(pools)} AS known ON known.pool_id = n.pool_id
        ON CONFLICT (pool_id) DO UPDATE
        SET {updates}
        WHERE ({changed})
            AND (
                p.last_updated IS NULL
                OR excluded.last_updated IS NULL
                OR excluded.last_updated >= p.last_updated
            )""",
        pools,
    )


def _description(name: str, described: Collection[str], required: ColumnTypes) -> str:
    """Return SQL: the file's value; for a required column also the stored one or a placeholder."""
    file_value = [f"n.{name}"] if name in described else []
    if name not in required:
        return file_value[0]
    # PostgreSQL rejects a NULL before it looks for a conflict
    values = [*file_value, f"known.{name}", placeholder(name, "n.pool_id", required)]
    return f"coalesce({', '.join(values)})"


def quarantine_refused(pool_id: str) -> str:
    """Return the statement that quarantines validated rows with a reason, each with its cells.

    Parameters: run_id, source_table, file.

    Args:
        pool_id: an SQL expression over `i`.
    """
    return f"""
    INSERT INTO {qualified(quarantine)} AS q
        (run_id, source_table, source_id, pool_id, timestamp, reason, raw_json_data)
    SELECT :run_id, :source_table, :file || ':' || i.row_number, {pool_id}, i.timestamp, v.reason,
        jsonb_strip_nulls(to_jsonb(i) - 'row_number')
    FROM {VALIDATED} AS v
    JOIN {INCOMING} AS i USING (row_number)
    WHERE v.reason IS NOT NULL
    {_REFUSED_AGAIN}"""


def quarantine_ragged() -> str:
    """Return the statement that quarantines a line with too many or too few values.

    Parameters: run_id, source_table, source_id, cells (JSON).
    """
    return f"""
    INSERT INTO {qualified(quarantine)} AS q
        (run_id, source_table, source_id, reason, raw_json_data)
    VALUES
        (:run_id, :source_table, :source_id, 'wrong_number_of_values', CAST(:cells AS jsonb))
    {_REFUSED_AGAIN}"""


_REFUSED_AGAIN = f"""ON CONFLICT (source_table, source_id, reason) DO UPDATE
    SET run_id = excluded.run_id,
        pool_id = excluded.pool_id,
        timestamp = excluded.timestamp,
        raw_json_data = excluded.raw_json_data,
        quarantined_at = now(),
        {REOPEN}
    WHERE q.raw_json_data IS DISTINCT FROM excluded.raw_json_data"""
"""The same row of the same file is one quarantined row; another file of that name replaces it."""


def _counted(insert: str, table: Table) -> str:
    """Return a query that runs the INSERT and counts inserted and updated rows."""
    # Updated rows are those whose key existed before the statement: RETURNING has no system column,
    # such as `xmax`, on partitioned tables.
    key = [column.name for column in table.primary_key]
    same = " AND ".join(f"before.{name} = merged.{name}" for name in key)
    was_there = f"EXISTS (SELECT FROM {qualified(table)} AS before WHERE {same})"
    return f"""
    WITH merged AS (
        {insert}
        RETURNING {", ".join(key)}
    )
    SELECT count(*) FILTER (WHERE NOT {was_there}) AS inserted,
        count(*) FILTER (WHERE {was_there}) AS updated
    FROM merged"""
