"""Builds the SQL that validates incoming rows: strings from pure functions, no connection.

Rows arrive in the temporary table `incoming` (row_number, timestamp, timestamp_text, and each
column of the file as text). The table `validated` has one row for each of them, with its key, its
document or values, and the reason if it can't be stored. Gas in gwei; everything else in the units
of the source.
"""

from __future__ import annotations

from collections.abc import Collection

from data_processing.checks.row_checks import END_IN_POSTGRESQL, MAX_GAS_GWEI, is_number
from data_processing.ingest.column_limits import ColumnTypes, key_fits, number_fits, text_fits
from data_processing.ingest.loading.symbols import COINS, SYMBOL

INCOMING = "pg_temp.incoming"
VALIDATED = "pg_temp.validated"

DOCUMENT_KEYS = {
    "apy": "apy",
    "tvl_usd": "tvlUsd",
    "apy_base": "apyBase",
    "apy_reward": "apyReward",
}
"""Key in raw_json_data for each history column, as DefiLlama writes it."""

PRICE_KEYS = ("open", "high", "low", "close", "volume")

WEI_PER_GWEI = 1_000_000_000

BEYOND_COLUMN = "value_beyond_column"
"""Reason of a row with a number or a text that the table's column does not accept."""

ANOTHER_OF_POOL = "another_row_of_that_pool"

NOT_NUMBERS = "('NaN', 'Infinity', '-Infinity')"
"""Texts of a document that `json_value` writes for values that a computer treats as numbers."""

DAY = "(timestamp AT TIME ZONE 'UTC')::date"


def create_incoming(columns: Collection[str]) -> str:
    """Return the statement that creates `incoming`, with a text column for each name."""
    texts = "".join(f", {name} text" for name in columns)
    return f"""
    CREATE TEMPORARY TABLE incoming (
        row_number bigint, timestamp timestamptz, timestamp_text text{texts}
    ) ON COMMIT DROP"""


def create_validated(select: str) -> str:
    """Return the statement that creates `validated` from a SELECT of a `validate_*` function."""
    return f"CREATE TEMPORARY TABLE validated ON COMMIT DROP AS {select}"


def json_value(column: str) -> str:
    """Return SQL: a text as JSON.

    It is a number if the text is one, `"NaN"`, `"Infinity"` or the text itself otherwise, and NULL
    if it is missing.

    Args:
        column: a text column.
    """
    # numeric keeps every digit of the text
    return f"""CASE
            WHEN {is_number(column, "~", END_IN_POSTGRESQL)} THEN to_jsonb({column}::numeric)
            WHEN lower({column}) = 'nan' THEN '"NaN"'::jsonb
            WHEN lower({column}) IN ('inf', '+inf', 'infinity', '+infinity')
                THEN '"Infinity"'::jsonb
            WHEN lower({column}) IN ('-inf', '-infinity') THEN '"-Infinity"'::jsonb
            ELSE to_jsonb({column})
        END"""


def number(column: str) -> str:
    """Return SQL: a text as numeric, NULL if it is no number."""
    return f"CASE WHEN {is_number(column, '~', END_IN_POSTGRESQL)} THEN {column}::numeric END"


def validate_history(columns: Collection[str], types: ColumnTypes) -> str:
    """Return a SELECT of row_number, pool_id, timestamp, document and reason.

    Args:
        columns: text columns of the file.
        types: types of raw history, and `pools.pool_id`, because a new pool gets a row there.
    """
    fits = " AND ".join(key_fits("pool_id", types[name]) for name in ("pool_id", "pools.pool_id"))
    document = ", ".join(
        f"'{key}', {json_value(name)}" for name, key in DOCUMENT_KEYS.items() if name in columns
    )
    return f"""
    SELECT row_number, pool_id, timestamp,
        jsonb_build_object({document}) AS document,
        CASE
            WHEN timestamp IS NULL THEN 'timestamp_unusable'
            WHEN pool_id IS NULL THEN 'pool_id_missing'
            WHEN NOT ({fits}) THEN '{BEYOND_COLUMN}'
        END AS reason
    FROM {INCOMING}"""


def validate_prices(columns: Collection[str], types: ColumnTypes) -> str:
    """Return a SELECT of row_number, timestamp, symbol, document, reason and is_last.

    The latest row of a symbol's day is used; an earlier one with other values is refused.

    Args:
        columns: text columns of the file.
        types: types of the table of prices.
    """
    document = ", ".join(f"'{name}', {json_value(name)}" for name in PRICE_KEYS if name in columns)
    # a daily price is stored at the midnight of its day
    rows = f"""
    SELECT row_number, {DAY}::timestamp AT TIME ZONE 'UTC' AS timestamp, symbol,
        timestamp AS moment,
        jsonb_build_object('USD', jsonb_build_object({document})) AS document,
        CASE
            WHEN timestamp IS NULL THEN 'timestamp_unusable'
            WHEN symbol IS NULL THEN 'symbol_missing'
            WHEN symbol !~ '{SYMBOL}' THEN 'symbol_unusable'
            WHEN close IS NULL OR lower(close) = 'nan' THEN 'price_missing'
            WHEN {number("close")} IS NULL THEN 'price_not_a_number'
            WHEN {number("close")} <= 0 THEN 'price_not_positive'
            WHEN NOT {key_fits("symbol", types["symbol"])} THEN '{BEYOND_COLUMN}'
        END AS reason
    FROM {INCOMING}"""
    return _last_of_day(rows, key="timestamp, symbol", value="document")


def validate_gas(columns: Collection[str], types: ColumnTypes) -> str:
    """Return a SELECT of row_number, date, timestamp, gwei, reason and is_last.

    Args:
        columns: text columns of the file, `gwei` or `wei` among them.
        types: types of the gas table.
    """
    cell = "gwei" if "gwei" in columns else "wei"
    gwei = number("gwei") if "gwei" in columns else f"({number('wei')}) / {WEI_PER_GWEI}"
    fits = number_fits("gwei", types["actual_avg_gas_gwei"])
    rows = f"""
    SELECT row_number, timestamp, timestamp AS moment, date,
        CASE WHEN {fits} THEN round(gwei, 8) END AS gwei,
        CASE
            WHEN timestamp IS NULL THEN 'timestamp_unusable'
            WHEN cell IS NULL OR lower(cell) = 'nan' THEN 'gas_missing'
            WHEN gwei IS NULL THEN 'gas_not_a_number'
            WHEN gwei < 0 THEN 'gas_negative'
            WHEN NOT {fits} THEN '{BEYOND_COLUMN}'
            WHEN gwei > {MAX_GAS_GWEI!r} THEN 'gas_beyond_limit'
        END AS reason
    FROM (
        SELECT row_number, timestamp, {DAY} AS date, {cell} AS cell, {gwei} AS gwei
        FROM {INCOMING}
    ) AS parsed"""
    return _last_of_day(rows, key="date", value="gwei")


def validate_pools(columns: Collection[str], types: ColumnTypes) -> str:
    """Return a SELECT of row_number, pool_id, timestamp, the descriptions, reason and is_last.

    A pool has one row: the newest that can be stored, and of several of one time the last of the
    file. Another one with other values is refused. Without a time, a row counts as newest.

    Args:
        columns: text columns of the file.
        types: types of `pools`.
    """
    names = [name for name in columns if name not in {"pool_id", "timestamp"}]
    values = {"pool_id": "pool_id"} | {name: _pool_value(name) for name in names}
    fitting = [
        number_fits(value, types[name]) if name in NUMBERS else text_fits(value, types[name])
        for name, value in values.items()
    ]
    fitting.append(key_fits("pool_id", types["pool_id"]))
    described = "".join(f", {values[name]} AS {name}" for name in names)
    unreadable = " ".join(
        f"WHEN lower({name}) <> 'nan' AND {number(name)} IS NULL THEN '{name}_not_a_number'"
        for name in names
        if name in NUMBERS
    )
    negative = f"WHEN {number('tvl')} < 0 THEN 'tvl_negative'" if "tvl" in names else ""
    return f"""
    SELECT row_number, pool_id, timestamp{"".join(f", {name}" for name in names)},
        CASE
            WHEN reason IS NULL AND cells IS DISTINCT FROM first_value(cells) OVER of_pool
                THEN '{ANOTHER_OF_POOL}'
            ELSE reason
        END AS reason,
        row_number() OVER of_pool = 1 AS is_last
    FROM (
        SELECT row_number, pool_id, timestamp{described}, to_jsonb(i) - 'row_number' AS cells,
            CASE
                WHEN pool_id IS NULL THEN 'pool_id_missing'
                {unreadable}
                {negative}
                WHEN NOT ({" AND ".join(fitting)}) THEN '{BEYOND_COLUMN}'
            END AS reason
        FROM {INCOMING} AS i
    ) AS rows
    WINDOW of_pool AS (
        PARTITION BY pool_id, reason IS NULL
        ORDER BY timestamp DESC NULLS FIRST, row_number DESC
    )"""


NUMBERS = ("tvl", "apy")


def _pool_value(name: str) -> str:
    if name in NUMBERS:
        return number(name)
    return f"{name}::text[]" if name == "underlying_token_addresses" else name


def _last_of_day(rows: str, *, key: str, value: str) -> str:
    """Return a SELECT with is_last, in which earlier rows with other values are refused.

    The last row is that of the latest moment, and of several at that moment the last of the file.
    """
    # bad rows are windows of their own, so that the last good row of a day is used
    columns = key if "timestamp" in key else f"{key}, timestamp"
    # files of some sites begin with the newest row
    window = f"(PARTITION BY {key}, reason IS NULL ORDER BY moment DESC, row_number DESC)"
    return f"""
    SELECT rows.*, row_number() OVER of_day = 1 AS is_last
    FROM (
        SELECT row_number, moment, {columns}, {value},
            CASE
                WHEN reason IS NULL AND {value} IS DISTINCT FROM first_value({value}) OVER of_day
                    THEN 'another_row_of_that_day'
                ELSE reason
            END AS reason
        FROM ({rows}) AS rows
        WINDOW of_day AS {window}
    ) AS rows
    WINDOW of_day AS {window}"""


USABLE = f"SELECT * FROM {VALIDATED} WHERE reason IS NULL"


def unused_symbols() -> str:
    """Return a query of the symbols whose prices no job reads: an array or NULL in one row."""
    read = ", ".join(f"'{symbol}'" for symbol in sorted(set(COINS.values())))
    return f"""
    SELECT array_agg(DISTINCT symbol ORDER BY symbol) AS symbols
    FROM ({USABLE}) AS n
    WHERE symbol NOT IN ({read})"""


def non_number_counts() -> str:
    """Return a query on usable history: how many rows have a text as APY or TVL (rows), and for
    each of both how many cells are numbers and the first text that is none.
    """
    first = "(array_agg({0} ORDER BY row_number) FILTER (WHERE {1}))[1]"
    counted = []
    for name, key in (("apy", "apy"), ("tvl", "tvlUsd")):
        cell, kind = f"document ->> '{key}'", f"jsonb_typeof(document -> '{key}')"
        is_text = f"{kind} = 'string' AND {cell} NOT IN {NOT_NUMBERS}"
        is_number_like = f"{kind} = 'number' OR {cell} IN {NOT_NUMBERS}"
        counted += [
            f"count(*) FILTER (WHERE {is_number_like}) AS {name}_numbers",
            f"{first.format(cell, is_text)} AS {name}_text",
        ]
    texts = [
        f"jsonb_typeof(document -> '{key}') = 'string' AND document ->> '{key}' <> 'NaN'"
        for key in ("apy", "tvlUsd")
    ]
    return f"""
    SELECT count(*) FILTER (WHERE {" OR ".join(texts)}) AS rows,
        {", ".join(counted)}
    FROM ({USABLE}) AS n"""
