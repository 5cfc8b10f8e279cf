"""What a file must be as a whole before its rows are merged, and what must be stored afterwards.

In: the temporary tables of a load. Out: an error that names the file and the next step, or figures
for the summary. A single bad row is no error here: it is refused and the others are loaded.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from common.errors import InputError
from data_processing.ingest.column_limits import ColumnTypes
from data_processing.ingest.loading import load_sql as raw_sql
from data_processing.ingest.loading import validation_sql as judge_sql
from data_processing.ingest.loading.files_to_load import TARGETS, FileToLoad
from data_processing.ingest.stored_rows import rows_not_taken
from database.schema.catalog import has_triggers
from database.schema.tables import pools

MAX_ROWS_A_DAY = 1.5
"""More rows a day than this are no daily file with a few repeated days, but hours or minutes, whose
open and high are not the day's.
"""

SHOWN_LETTERS = 60
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
    """Raises: InputError where the file has no row, or none that can be stored."""
    path = file.table.path
    if not read:
        raise InputError(f"{path} has column names but no row; nothing to load")
    if refused < read:
        return
    symbols = "i.symbol" if "symbol" in file.text_columns else "NULL"
    found = connection.exec_driver_sql(
        f"""
        SELECT j.reason, left(i.timestamp_text, {SHOWN_LETTERS}), left({symbols}, {SHOWN_LETTERS})
        FROM {judge_sql.JUDGED} AS j
        JOIN {judge_sql.INCOMING} AS i USING (row_number)
        ORDER BY row_number
        LIMIT 1
        """
    ).one_or_none()
    reason, cell, symbol = found or ("wrong_number_of_values", None, None)
    hint = HINTS.get(reason, "").format(cell=cell, symbol=symbol)
    if reason == "timestamp_unusable" and cell is None:
        hint = ": the cell is empty"
    raise InputError(
        f"no row of the {read:,} in {path} can be stored, the first because of {reason}{hint};"
        " nothing was loaded. Correct the file"
    )


def require_daily_rows(connection: Connection, file: FileToLoad) -> None:
    """Raises: InputError where prices or gas come more than once a day."""
    key = "timestamp, symbol" if file.kind == "prices" else "date"
    rows, days = connection.exec_driver_sql(
        f"""
        SELECT count(*), count(DISTINCT ({key}))
        FROM {judge_sql.JUDGED}
        WHERE timestamp IS NOT NULL
        """
    ).one()
    if days and rows / days > MAX_ROWS_A_DAY:
        raise InputError(
            f"{file.table.path} has {rows:,} rows for {days:,} days; daily {file.kind} are needed:"
            " aggregate it to one row for each UTC day first"
        )


def require_numbers(connection: Connection, path: Path) -> int:
    """How many rows of history have an APY or a TVL that is no number.

    Raises: InputError where the file has texts and not one number as APY, or as TVL: its numbers
    are written in a way that no job reads.
    """
    found = connection.exec_driver_sql(judge_sql.unread_values()).one()
    for name, numbers, cell in (
        ("apy", found.apy_numbers, found.apy_text),
        ("tvl_usd", found.tvl_numbers, found.tvl_text),
    ):
        if cell is not None and not numbers:
            raise InputError(
                f"no {name} in {path} is a number, the first is {cell[:SHOWN_LETTERS]!r}; nothing"
                " was loaded. Write plain numbers such as 1234.5"
            )
    return int(found.rows)


def require_stored(
    connection: Connection, file: FileToLoad, rows: str, types: ColumnTypes, *, already_there: bool
) -> None:
    """Args: already_there says that some of `rows` were not written because they are stored.

    Raises: CheckFailed where a usable row of the file is not in its table after the merge, or a
    pool of its history not in `pools`: triggers dropped it, or gave it another key or value.
    """
    target = TARGETS[file.kind]
    stored = {
        "history": lambda: raw_sql.STORED_HISTORY,
        "prices": raw_sql.stored_prices,
        "gas": lambda: raw_sql.stored_gas(types),
        "pools": raw_sql.stored_pools,
    }
    conditions = {target: stored[file.kind](), pools: raw_sql.stored_pools()}
    for table in (target, pools) if file.kind == "history" else (target,):
        # rows that were written, and that no trigger saw, need no second look
        if has_triggers(connection, table) or (already_there and table is target):
            missing = raw_sql.missing_rows(rows, conditions[table])
            count, pool_id = connection.exec_driver_sql(missing).one()
            if count:
                among = f", among them of pool {pool_id[:SHOWN_LETTERS]}" if pool_id else ""
                raise rows_not_taken(table, count, f"{file.table.path}{among}", LOAD_AGAIN)
