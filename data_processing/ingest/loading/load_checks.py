"""Checks a file as a whole before its rows are merged, and the stored rows afterwards.

Reads the temporary tables of a load; raises errors that name the file and the next step. A single
bad row is no error here: it is refused and the others are loaded.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from common.errors import InputError
from data_processing.ingest.column_limits import ColumnTypes
from data_processing.ingest.loading import load_sql, validation_sql
from data_processing.ingest.loading.files_to_load import TARGETS, FileToLoad
from data_processing.ingest.stored_rows import missing_rows_error
from database.schema.catalog import has_triggers
from database.schema.owner_tables import pools

MAX_ROWS_A_DAY = 1.5
"""More rows a day are not a daily file with a few repeated days, but hours or minutes, whose open
and high are not those of the day.
"""

MIN_EQUAL_GAPS = 3
"""From this number of equal gaps on, a file without two successive days is weekly or monthly."""

MAX_QUOTED_CHARACTERS = 60
"""How much of a cell an error repeats."""

LOAD_AGAIN = "load the file again"

HINTS = {
    "timestamp_unusable": (
        ": {cell!r} is no ISO 8601 timestamp (2025-10-05T23:04:49Z), whole date or unix time"
    ),
    "symbol_unusable": ": {symbol!r} is no coin with a price in USD, such as ETH or ETH/USDT",
    "wrong_number_of_values": (
        ": it has more or fewer values than the header; a number with a comma needs quotes, or"
        " another sign between values"
    ),
}


def require_some_rows(connection: Connection, file: FileToLoad, read: int, refused: int) -> None:
    """Require that the file has a row that can be stored.

    Args:
        connection: transaction of the load.
        file: the file.
        read: number of its rows.
        refused: number of rows that can't be stored.

    Raises:
        InputError: the file has no row, or none that can be stored.
    """
    path = file.table.path
    if not read:
        raise InputError(f"{path} has column names but no row; nothing to load")
    if refused < read:
        return
    symbols = "i.symbol" if "symbol" in file.text_columns else "NULL"
    first = connection.exec_driver_sql(
        f"""
        SELECT v.reason,
            left(i.timestamp_text, {MAX_QUOTED_CHARACTERS}),
            left({symbols}, {MAX_QUOTED_CHARACTERS})
        FROM {validation_sql.VALIDATED} AS v
        JOIN {validation_sql.INCOMING} AS i USING (row_number)
        ORDER BY row_number
        LIMIT 1
        """
    ).one_or_none()
    # a file of ragged lines has no row in the table
    reason, cell, symbol = first or ("wrong_number_of_values", None, None)
    hint = HINTS.get(reason, "").format(cell=cell, symbol=symbol)
    if reason == "timestamp_unusable" and cell is None:
        hint = ": the cell is empty"
    raise InputError(
        f"no row of the {read:,} in {path} can be stored, the first because of {reason}{hint};"
        " nothing was loaded. Correct the file"
    )


def require_daily_rows(connection: Connection, file: FileToLoad) -> None:
    """Require that prices or gas are daily.

    Args:
        connection: transaction of the load.
        file: a file of prices or gas.

    Raises:
        InputError: the file has more than MAX_ROWS_A_DAY rows a day, or a row for each week, month
            or other period of several days.
    """
    key = "timestamp, symbol" if file.kind == "prices" else "date"
    rows, days = connection.exec_driver_sql(
        f"""
        SELECT count(*), count(DISTINCT ({key}))
        FROM {validation_sql.VALIDATED}
        WHERE timestamp IS NOT NULL
        """
    ).one()
    if days and rows / days > MAX_ROWS_A_DAY:
        raise InputError(
            f"{file.table.path} has {rows:,} rows for {days:,} days; daily {file.kind} are needed:"
            " aggregate it to one row for each UTC day first"
        )
    partition = "PARTITION BY symbol" if file.kind == "prices" else ""
    gaps, shortest, longest = connection.exec_driver_sql(
        f"""
        SELECT count(*), min(gap), max(gap)
        FROM (
            SELECT day - lag(day) OVER ({partition} ORDER BY day) AS gap
            FROM (
                SELECT DISTINCT {key}, (timestamp AT TIME ZONE 'UTC')::date AS day
                FROM {validation_sql.VALIDATED}
                WHERE reason IS NULL
            ) AS days
        ) AS gaps
        WHERE gap IS NOT NULL
        """
    ).one()
    # months differ by three days; single days may be missing, or be corrected
    if gaps >= MIN_EQUAL_GAPS and shortest > 1 and longest - shortest <= shortest // 9:
        raise InputError(
            f"{file.table.path} has a row every {shortest} to {longest} days, and daily {file.kind}"
            " are needed: a value of a longer period is not that of its first day"
        )


def require_numbers(connection: Connection, path: Path) -> int:
    """Require that a history file has numbers in a form that the jobs read.

    Args:
        connection: transaction of the load.
        path: the file, for the message.

    Returns:
        How many rows have an APY or a TVL that is no number.

    Raises:
        InputError: the file has texts and not one number as APY, or as TVL.
    """
    counts = connection.exec_driver_sql(validation_sql.non_number_counts()).one()
    for name, numbers, cell in (
        ("apy", counts.apy_numbers, counts.apy_text),
        ("tvl_usd", counts.tvl_numbers, counts.tvl_text),
    ):
        # texts and not one number: the column writes numbers in an unknown form
        if cell is not None and not numbers:
            raise InputError(
                f"no {name} in {path} is a number, the first is {cell[:MAX_QUOTED_CHARACTERS]!r};"
                " nothing was loaded. Write plain numbers such as 1234.5"
            )
    return int(counts.rows)


def require_stored(
    connection: Connection, file: FileToLoad, rows: str, types: ColumnTypes, *, already_there: bool
) -> None:
    """Require that the usable rows of the file are in its table after the merge.

    Args:
        connection: transaction of the load.
        file: the file.
        rows: SELECT of the usable rows.
        types: column types of the target.
        already_there: whether some rows were not written because they are stored already.

    Raises:
        CheckFailed: a row, or a pool of history, is missing: triggers dropped it, or gave it
            another key or value.
    """
    target = TARGETS[file.kind]
    stored = {
        "history": lambda: load_sql.STORED_HISTORY,
        "prices": load_sql.stored_prices,
        "gas": lambda: load_sql.stored_gas(types),
        "pools": load_sql.stored_pools,
    }
    conditions = {target: stored[file.kind](), pools: load_sql.stored_pools()}
    for table in (target, pools) if file.kind == "history" else (target,):
        # rows that were written, and that no trigger saw, need no second look
        if has_triggers(connection, table) or (already_there and table is target):
            missing = load_sql.missing_rows(rows, conditions[table])
            count, pool_id = connection.exec_driver_sql(missing).one()
            if count:
                among = ""
                if pool_id:
                    among = f", among them of pool {pool_id[:MAX_QUOTED_CHARACTERS]}"
                raise missing_rows_error(table, count, f"{file.table.path}{among}", LOAD_AGAIN)
