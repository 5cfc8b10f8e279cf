"""The SQL that merges judged rows into the raw tables: strings from pure functions, no connection.

In: rows of `judge_sql.JUDGED`. Every `merge_*` returns one row (inserted, updated).
Units: gas gwei; everything else as the source has it.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Table

from data_processing.ingest.column_limits import ColumnTypes
from data_processing.ingest.loading.validation_sql import INCOMING, JUDGED
from data_processing.ingest.pool_descriptions import stand_in
from data_processing.raw.quarantine_table import REOPEN
from database.schema.merge_sql import qualified
from database.schema.tables import gas_fees_daily, pools, quarantine, raw_pool_history, raw_prices


def merge_history(rows: str) -> str:
    """Insert what is new of `rows` (row_number, pool_id, timestamp, document): an identical
    snapshot is kept once, a changed one comes beside it.
    """
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


STORED_HISTORY = (
    f"EXISTS (SELECT FROM {qualified(raw_pool_history)} AS h WHERE h.pool_id = n.pool_id AND"
    " h.timestamp = n.timestamp AND h.raw_json_data = n.document)"
)


def add_unknown_pools(rows: str, required: ColumnTypes) -> str:
    """A row in `pools` for each pool of `rows` that has none, with a stand-in for each `required`
    description.
    """
    names = "".join(f", {name}" for name in required)
    values = "".join(f", {stand_in(name, 'pool_id', required)}" for name in required)
    return (
        f"INSERT INTO {qualified(pools)} (pool_id, is_active{names}) SELECT pool_id, true{values}"
        f" FROM (SELECT DISTINCT pool_id FROM ({rows}) AS n) AS n ON CONFLICT (pool_id) DO NOTHING"
    )


def merge_prices(rows: str) -> str:
    """Make `rows` (timestamp: a midnight, symbol, document) the closes of their days: what is new
    is inserted, what differs is corrected.

    A day is known by its last row. Where another source has stamped that one later than midnight it
    is corrected in its place, if its close is another, and keeps what `rows` has no word of.
    """
    prices = qualified(raw_prices)
    last = (
        f"SELECT p.* FROM {prices} AS p WHERE upper(p.symbol) = n.symbol AND p.data_timestamp >="
        " n.timestamp AND p.data_timestamp < n.timestamp + interval '1 day' ORDER BY"
        " p.data_timestamp DESC, p.symbol DESC LIMIT 1"
    )
    foreign = "l.data_timestamp > n.timestamp"
    usd = "l.raw_json_data -> 'USD'"
    document = (
        f"CASE WHEN {foreign} AND jsonb_typeof({usd}) = 'object' THEN jsonb_set(l.raw_json_data,"
        f" '{{USD}}', ({usd}) || jsonb_strip_nulls(n.document -> 'USD')) ELSE n.document END"
    )
    return _counted(
        f"INSERT INTO {prices} AS p (data_timestamp, symbol, raw_json_data) SELECT"
        f" coalesce(l.data_timestamp, n.timestamp), coalesce(l.symbol, n.symbol), {document} FROM"
        f" ({rows}) AS n LEFT JOIN LATERAL ({last}) AS l ON true WHERE {foreign} IS NOT TRUE OR"
        f" {usd} -> 'close' IS DISTINCT FROM n.document -> 'USD' -> 'close' ON CONFLICT"
        " (data_timestamp, symbol) DO UPDATE SET raw_json_data = excluded.raw_json_data,"
        " insertion_timestamp = now() WHERE p.raw_json_data IS DISTINCT FROM"
        " excluded.raw_json_data",
        raw_prices,
    )


def merge_gas(rows: str) -> str:
    return _counted(
        f"INSERT INTO {qualified(gas_fees_daily)} AS g (date, actual_avg_gas_gwei) SELECT date,"
        f" gwei FROM ({rows}) AS n ON CONFLICT (date) DO UPDATE SET actual_avg_gas_gwei ="
        " excluded.actual_avg_gas_gwei WHERE g.actual_avg_gas_gwei IS DISTINCT FROM"
        " excluded.actual_avg_gas_gwei",
        gas_fees_daily,
    )


def missing_rows(rows: str, stored: str) -> str:
    """How many of `rows` the table lacks after the merge, which a trigger has dropped or changed,
    and what one of them is of. Args: stored is one of the conditions below.
    """
    return f"""
    SELECT count(*) AS missing, min(to_jsonb(n) ->> 'pool_id') AS pool_id
    FROM ({rows}) AS n
    WHERE NOT {stored}"""


def stored_prices() -> str:
    return f"""EXISTS (
        SELECT FROM {qualified(raw_prices)} AS p
        WHERE upper(p.symbol) = n.symbol
            AND p.data_timestamp >= n.timestamp
            AND p.data_timestamp < n.timestamp + interval '1 day'
            AND p.raw_json_data #> '{{USD,close}}' = n.document #> '{{USD,close}}'
    )"""


def stored_gas(types: ColumnTypes) -> str:
    return f"""EXISTS (
        SELECT FROM {qualified(gas_fees_daily)} AS g
        WHERE g.date = n.date
            AND g.actual_avg_gas_gwei = CAST(n.gwei AS {types["actual_avg_gas_gwei"]})
    )"""


def stored_pools() -> str:
    return f"EXISTS (SELECT FROM {qualified(pools)} AS p WHERE p.pool_id = n.pool_id)"


def count_pools_to_write(rows: str, columns: Collection[str], types: ColumnTypes) -> str:
    """Asked before `merge_pools`. `outdated`: pools of `rows` that say something else than `pools`,
    and are older, which it leaves out. `to_write`: those that it inserts or updates.
    """
    described = {
        name: f"CAST(n.{name} AS {types[name]})"
        for name in columns
        if name not in {"pool_id", "timestamp"}
    }
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


def count_stand_ins(rows: str, columns: Collection[str], required: Collection[str]) -> str:
    """How many new pools of `rows` lack a `required` description; asked before `merge_pools`."""
    lacking = " OR ".join(f"n.{name} IS NULL" if name in columns else "true" for name in required)
    return (
        f"SELECT count(*) FROM ({rows}) AS n WHERE ({lacking or 'false'}) AND NOT EXISTS (SELECT"
        f" FROM {qualified(pools)} AS p WHERE p.pool_id = n.pool_id)"
    )


def merge_pools(rows: str, columns: Collection[str], required: ColumnTypes) -> str:
    """Upsert what is known of pools: never a null over a value, never older over newer (`timestamp`
    is when it was so; null counts as newest). A new pool has a stand-in for each `required`
    description that `rows` lacks.
    """
    described = [name for name in columns if name not in {"pool_id", "timestamp"}]
    written = [*described, *(name for name in required if name not in described)]
    names = ", ".join(["pool_id", "is_active", "last_updated", *written])
    values = ", ".join(
        [
            "n.pool_id",
            "true",
            "n.timestamp",
            *(_description(name, described, required) for name in written),
        ]
    )
    kept = ["last_updated", *described]
    updates = ", ".join(f"{name} = coalesce(excluded.{name}, p.{name})" for name in kept)
    changed = " OR ".join(
        f"coalesce(excluded.{name}, p.{name}) IS DISTINCT FROM p.{name}" for name in kept
    )
    return _counted(
        f"INSERT INTO {qualified(pools)} AS p ({names}) SELECT {values} FROM ({rows}) AS n"
        f" LEFT JOIN {qualified(pools)} AS known ON known.pool_id = n.pool_id ON CONFLICT (pool_id)"
        f" DO UPDATE SET {updates} WHERE ({changed}) AND (p.last_updated IS NULL OR"
        " excluded.last_updated IS NULL OR excluded.last_updated >= p.last_updated)",
        pools,
    )


def _description(name: str, described: Collection[str], required: ColumnTypes) -> str:
    """What the file says, and for a required column what `pools` has, or the stand-in: PostgreSQL
    refuses a NULL before it looks for a conflict.
    """
    given = [f"n.{name}"] if name in described else []
    if name not in required:
        return given[0]
    return (
        f"coalesce({', '.join([*given, f'known.{name}', stand_in(name, 'n.pool_id', required)])})"
    )


def quarantine_refused(pool_id: str) -> str:
    """Keep the judged rows that have a reason, each with its cells; parameters run_id,
    source_table, file. `pool_id` is an expression over `i`.
    """
    return (
        f"INSERT INTO {qualified(quarantine)} AS q (run_id, source_table, source_id, pool_id,"
        " timestamp, reason, raw_json_data) SELECT :run_id, :source_table, :file || ':' ||"
        f" i.row_number, {pool_id}, i.timestamp, j.reason, jsonb_strip_nulls(to_jsonb(i) -"
        f" 'row_number') FROM {JUDGED} AS j JOIN {INCOMING} AS i USING (row_number) WHERE j.reason"
        f" IS NOT NULL {_REFUSED_AGAIN}"
    )


def quarantine_ragged() -> str:
    """Keep a line that has too many or too few values; parameters run_id, source_table, source_id,
    cells (JSON).
    """
    return (
        f"INSERT INTO {qualified(quarantine)} AS q (run_id, source_table, source_id, reason,"
        " raw_json_data) VALUES (:run_id, :source_table, :source_id, 'wrong_number_of_values',"
        f" CAST(:cells AS jsonb)) {_REFUSED_AGAIN}"
    )


_REFUSED_AGAIN = (
    "ON CONFLICT (source_table, source_id, reason) DO UPDATE SET run_id = excluded.run_id, pool_id"
    " = excluded.pool_id, timestamp = excluded.timestamp, raw_json_data = excluded.raw_json_data,"
    f" quarantined_at = now(), {REOPEN} WHERE q.raw_json_data IS DISTINCT FROM"
    " excluded.raw_json_data"
)
"""The same row of the same file is one quarantined row; another file of that name replaces it."""


def _counted(insert: str, table: Table) -> str:
    """Rows whose key the table had before the statement were updated: RETURNING has no system
    column, such as `xmax`, on partitioned tables.
    """
    key = [column.name for column in table.primary_key]
    same = " AND ".join(f"before.{name} = merged.{name}" for name in key)
    was_there = f"EXISTS (SELECT FROM {qualified(table)} AS before WHERE {same})"
    return (
        f"WITH merged AS ({insert} RETURNING {', '.join(key)}) SELECT count(*) FILTER (WHERE NOT"
        f" {was_there}) AS inserted, count(*) FILTER (WHERE {was_there}) AS updated FROM merged"
    )
