"""The SQL that judges incoming rows: strings from pure functions, no connection.

Rows arrive in the temporary table `incoming` (row_number, timestamp, timestamp_text, and each
column of the file as text), and are judged into `judged`: one row for each incoming row, with its
key, its document or values, and the reason where it can't be stored.
Units: gas gwei; everything else as the source has it.
"""

from __future__ import annotations

from collections.abc import Collection

from data_processing.checks.row_checks import is_number
from data_processing.ingest.column_limits import ColumnTypes, number_fits, text_fits
from data_processing.ingest.loading.symbols import COINS, SYMBOL

INCOMING = "pg_temp.incoming"
JUDGED = "pg_temp.judged"

DOCUMENT_KEYS = {
    "apy": "apy",
    "tvl_usd": "tvlUsd",
    "apy_base": "apyBase",
    "apy_reward": "apyReward",
}
"""A history column and the key it has in raw_json_data, as DefiLlama writes it."""

PRICE_KEYS = ("open", "high", "low", "close", "volume")

WEI_PER_GWEI = 1_000_000_000

BEYOND_COLUMN = "value_beyond_column"
"""The reason of a row with a number or a text that the table's column does not take."""

ANOTHER_OF_POOL = "another_row_of_that_pool"

NOT_NUMBERS = "('NaN', 'Infinity', '-Infinity')"
"""Texts of a document that `json_value` has made of what is a number for a computer."""

DAY = "(timestamp AT TIME ZONE 'UTC')::date"


def create_incoming(columns: Collection[str]) -> str:
    texts = "".join(f", {name} text" for name in columns)
    return (
        "CREATE TEMPORARY TABLE incoming (row_number bigint, timestamp timestamptz, timestamp_text"
        f" text{texts}) ON COMMIT DROP"
    )


def create_judged(select: str) -> str:
    return f"CREATE TEMPORARY TABLE judged ON COMMIT DROP AS {select}"


def json_value(column: str) -> str:
    """A text as JSON: a number where it is one, `"NaN"`, `"Infinity"` or the text itself where not,
    NULL where missing.
    """
    return (
        f"CASE WHEN {is_number(column, '~')} THEN to_jsonb({column}::numeric) WHEN lower({column})"
        f" = 'nan' THEN '\"NaN\"'::jsonb WHEN lower({column}) IN ('inf', '+inf', 'infinity',"
        f" '+infinity') THEN '\"Infinity\"'::jsonb WHEN lower({column}) IN ('-inf', '-infinity')"
        f" THEN '\"-Infinity\"'::jsonb ELSE to_jsonb({column}) END"
    )


def number(column: str) -> str:
    """A text as numeric, NULL where it is none."""
    return f"CASE WHEN {is_number(column, '~')} THEN {column}::numeric END"


def judge_history(columns: Collection[str], types: ColumnTypes) -> str:
    """`types` are of raw history, and `pools.pool_id`: a new pool gets a row there."""
    fits = " AND ".join(text_fits("pool_id", types[name]) for name in ("pool_id", "pools.pool_id"))
    document = ", ".join(
        f"'{key}', {json_value(name)}" for name, key in DOCUMENT_KEYS.items() if name in columns
    )
    return (
        f"SELECT row_number, pool_id, timestamp, jsonb_build_object({document}) AS document, CASE"
        " WHEN timestamp IS NULL THEN 'timestamp_unusable' WHEN pool_id IS NULL THEN"
        f" 'pool_id_missing' WHEN NOT ({fits}) THEN '{BEYOND_COLUMN}' END AS reason FROM {INCOMING}"
    )


def judge_prices(columns: Collection[str], types: ColumnTypes) -> str:
    """The last row of a symbol's day counts; an earlier one that says something else is refused."""
    document = ", ".join(f"'{name}', {json_value(name)}" for name in PRICE_KEYS if name in columns)
    rows = f"""
    SELECT row_number, {DAY}::timestamp AT TIME ZONE 'UTC' AS timestamp, symbol,
        jsonb_build_object('USD', jsonb_build_object({document})) AS document,
        CASE
            WHEN timestamp IS NULL THEN 'timestamp_unusable'
            WHEN symbol IS NULL THEN 'symbol_missing'
            WHEN symbol !~ '{SYMBOL}' THEN 'symbol_unusable'
            WHEN close IS NULL OR lower(close) = 'nan' THEN 'price_missing'
            WHEN {number("close")} IS NULL THEN 'price_not_a_number'
            WHEN NOT {text_fits("symbol", types["symbol"])} THEN '{BEYOND_COLUMN}'
        END AS reason
    FROM {INCOMING}"""
    return _last_of_day(rows, key="timestamp, symbol", value="document")


def judge_gas(columns: Collection[str], types: ColumnTypes) -> str:
    given = number("gwei") if "gwei" in columns else f"({number('wei')}) / {WEI_PER_GWEI}"
    text = "gwei" if "gwei" in columns else "wei"
    fits = number_fits("gwei", types["actual_avg_gas_gwei"])
    rows = f"""
    SELECT row_number, timestamp, date,
        CASE WHEN {fits} THEN round(gwei, 8) END AS gwei,
        CASE
            WHEN timestamp IS NULL THEN 'timestamp_unusable'
            WHEN given IS NULL OR lower(given) = 'nan' THEN 'gas_missing'
            WHEN gwei IS NULL THEN 'gas_not_a_number'
            WHEN NOT {fits} THEN '{BEYOND_COLUMN}'
        END AS reason
    FROM (
        SELECT row_number, timestamp, {DAY} AS date, {text} AS given, {given} AS gwei
        FROM {INCOMING}
    ) AS parsed"""
    return _last_of_day(rows, key="date", value="gwei")


def judge_pools(columns: Collection[str], types: ColumnTypes) -> str:
    """One row for each pool: the last of the file that can be stored; an earlier one that says
    something else is refused.
    """
    given = [name for name in columns if name not in {"pool_id", "timestamp"}]
    values = {"pool_id": "pool_id"} | {name: _pool_value(name) for name in given}
    fitting = [
        number_fits(value, types[name]) if name in NUMBERS else text_fits(value, types[name])
        for name, value in values.items()
    ]
    described = "".join(f", {values[name]} AS {name}" for name in given)
    unreadable = " ".join(
        f"WHEN lower({name}) <> 'nan' AND {number(name)} IS NULL THEN '{name}_not_a_number'"
        for name in given
        if name in NUMBERS
    )
    return f"""
    SELECT row_number, pool_id, timestamp{"".join(f", {name}" for name in given)},
        CASE
            WHEN reason IS NULL AND said IS DISTINCT FROM first_value(said) OVER of_pool
                THEN '{ANOTHER_OF_POOL}'
            ELSE reason
        END AS reason,
        row_number() OVER of_pool = 1 AS is_last
    FROM (
        SELECT row_number, pool_id, timestamp{described}, to_jsonb(i) - 'row_number' AS said,
            CASE
                WHEN pool_id IS NULL THEN 'pool_id_missing'
                {unreadable}
                WHEN NOT ({" AND ".join(fitting)}) THEN '{BEYOND_COLUMN}'
            END AS reason
        FROM {INCOMING} AS i
    ) AS rows
    WINDOW of_pool AS (PARTITION BY pool_id, reason IS NULL ORDER BY row_number DESC)"""


NUMBERS = ("tvl", "apy")


def _pool_value(name: str) -> str:
    if name in NUMBERS:
        return number(name)
    return f"{name}::text[]" if name == "underlying_token_addresses" else name


def _last_of_day(rows: str, *, key: str, value: str) -> str:
    kept = key if "timestamp" in key else f"{key}, timestamp"
    window = f"OVER (PARTITION BY {key}, reason IS NULL ORDER BY row_number DESC)"
    return (
        f"SELECT rows.*, row_number() {window} = 1 AS is_last FROM (SELECT row_number, {kept},"
        f" {value}, CASE WHEN reason IS NULL AND {value} IS DISTINCT FROM first_value({value})"
        f" {window} THEN 'another_row_of_that_day' ELSE reason END AS reason FROM ({rows}) AS rows)"
        " AS rows"
    )


USABLE = f"SELECT * FROM {JUDGED} WHERE reason IS NULL"


def unread_symbols() -> str:
    """The symbols of usable prices that no job reads: one row (symbols), an array or NULL."""
    read = ", ".join(f"'{symbol}'" for symbol in sorted(set(COINS.values())))
    return f"""
    SELECT array_agg(DISTINCT symbol ORDER BY symbol) AS symbols
    FROM ({USABLE}) AS n
    WHERE symbol NOT IN ({read})"""


def unread_values() -> str:
    """What of usable history is no number: one row (rows, and for APY and TVL how many cells are
    numbers and the first text that is none).
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
