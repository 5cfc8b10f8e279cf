"""Files into the raw tables: pool history, daily prices, daily gas, pool descriptions; Parquet or
CSV.

In: paths. Out: rows of the owner's raw tables as the file has them, and what happened to each row:
inserted, updated, there already, refused.
Units: APY percent, TVL and prices USD, gas gwei (wei is converted); days are UTC. A history value
that is no number goes into the raw JSON as it is: judging it is the metrics job's task. A row that
a table can't hold (no usable timestamp, no pool id, a price or gas that is no number, a number or a
text beyond the column's own width) goes to quarantine with its reason. One file is one transaction:
it is loaded as a whole or not at all, and a second time changes nothing.
"""

from __future__ import annotations

import io
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from sqlalchemy import Connection, Table, text

from config_spark import Settings
from data_processing.ingest import cells, raw_sql
from data_processing.ingest.column_limits import column_types
from data_processing.ingest.file_kinds import FileColumns, Kind, columns_of, symbol_of
from data_processing.ingest.file_tables import Batch, FileTable, RaggedLine, open_file
from data_processing.ingest.pool_descriptions import IN_WORDS, required_descriptions
from database.connection import checked_connection, make_engine
from database.merge_sql import qualified
from database.schema_check import verify_tables
from database.table_use import LOAD_USE
from database.tables import gas_fees_daily, pools, raw_pool_history, raw_prices
from product_errors import CheckFailed, InputError

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

TARGETS: dict[Kind, Table] = {
    "history": raw_pool_history,
    "prices": raw_prices,
    "gas": gas_fees_daily,
    "pools": pools,
}

JUDGE = {
    "history": raw_sql.judge_history,
    "prices": raw_sql.judge_prices,
    "gas": raw_sql.judge_gas,
    "pools": raw_sql.judge_pools,
}

MAX_ROWS_A_DAY = 1.5
"""More rows a day than this are no daily file with a few repeated days, but hours or minutes, whose
open and high are not the day's.
"""

ANALYZE_FROM_ROWS = 10_000
"""After a load of this size the planner's statistics are stale, and autovacuum comes a minute
later.
"""


@dataclass(frozen=True)
class FileToLoad:
    """A file whose kind and columns are known; `symbol` is that of a price file without such a
    column.
    """

    table: FileTable
    columns: FileColumns
    symbol: str | None

    @property
    def kind(self) -> Kind:
        return self.columns.kind

    @property
    def text_columns(self) -> list[str]:
        """The columns of `incoming` beside the timestamp."""
        names = [name for name in self.columns.found if name != "timestamp"]
        return [*names, "symbol"] if self.symbol else names


def load_files(
    settings: Settings,
    paths: Sequence[Path],
    *,
    kind: str | None = None,
    symbol: str | None = None,
    progress: Progress = log.info,
) -> dict[str, Any]:
    """Load files in the order given, after a look at the head of each.

    Args: kind is history, prices, gas or pools for all of them, or None to tell it from each file's
    columns; symbol is that of price files that have no such column (None: told from the file's
    name).
    Returns: {files: [{path, kind, rows_read, rows_inserted, rows_updated, rows_already_there,
    rows_refused, pools_undescribed, seconds}], rows_inserted, rows_refused}; pools_undescribed are
    new pools for whose required descriptions something stands in.
    Raises: InputError for a file that can't be read as what it is; the files before it are loaded,
    nothing of it is. CheckFailed where a trigger drops rows of pool history; SchemaMismatch,
    DatabaseRefused where a table can't be written; DatabaseError.
    """
    files = [_look_at(path, kind, symbol) for path in paths]
    run_id = f"load_{datetime.now(UTC):%Y%m%dt%H%M%S}_{secrets.token_hex(3)}"
    engine = make_engine(settings)
    with checked_connection(engine) as connection:
        verify_tables(connection, [use for file in files for use in LOAD_USE[file.kind]])
    summaries = []
    for file in files:
        began = time.monotonic()
        with checked_connection(engine) as connection:
            counts = _load(connection, file, run_id)
        summaries.append(
            {
                "path": str(file.table.path),
                "kind": file.kind,
                **counts,
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        told = ", ".join(
            f"{count:,} {name.removeprefix('rows_').replace('_', ' ')}"
            for name, count in counts.items()
            if name.startswith("rows_")
        )
        if undescribed := counts["pools_undescribed"]:
            told += f"; {undescribed:,} new pools are not described in it: {IN_WORDS}"
        progress(f"{file.table.path.name} ({file.kind}): {told}")
    return {
        "files": summaries,
        **{
            name: sum(summary[name] for summary in summaries)
            for name in ("rows_inserted", "rows_refused")
        },
    }


def _look_at(path: Path, kind: str | None, symbol: str | None) -> FileToLoad:
    table = open_file(path)
    columns = columns_of(path, table.columns, kind)
    needs_symbol = columns.kind == "prices" and "symbol" not in columns.found
    return FileToLoad(
        table, columns, (symbol or symbol_of(path)).strip().upper() if needs_symbol else None
    )


def _load(connection: Connection, file: FileToLoad, run_id: str) -> dict[str, int]:
    # two loads at once would not see each other's new rows, and insert them twice
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtext('yieldspark'), hashtext('raw tables'))")
    )
    source = {"run_id": run_id, "source_table": qualified(TARGETS[file.kind])}
    connection.exec_driver_sql(raw_sql.create_incoming(file.text_columns))
    read = ragged = 0
    for batch in file.table.batches():
        _copy(connection, _incoming(file, batch))
        lines = [source | _ragged_row(file.table.path, line) for line in batch.ragged]
        if lines:
            connection.execute(text(raw_sql.quarantine_ragged()), lines)
        ragged += len(lines)
        read += batch.table.num_rows + len(lines)
    refused = ragged + _judge(connection, file, source)
    _check_rows(connection, file, read, refused)
    inserted, updated, undescribed = _merge(connection, file)
    already_there = read - refused - inserted - updated
    if file.kind == "history" and already_there:
        _require_history(connection, file.table.path)
    return {
        "rows_read": read,
        "rows_inserted": inserted,
        "rows_updated": updated,
        "rows_already_there": already_there,
        "rows_refused": refused,
        "pools_undescribed": undescribed,
    }


def _ragged_row(path: Path, line: RaggedLine) -> dict[str, str]:
    return {
        "source_id": f"{path.name}:{line.row_number}",
        "cells": json.dumps([value.replace("\0", "\ufffd") for value in line.values]),
    }


def _incoming(file: FileToLoad, batch: Batch) -> pa.Table:
    """A batch as the columns of `incoming`."""
    missing = pa.chunked_array([pa.nulls(batch.table.num_rows, pa.string())])
    found = {
        name: batch.table.column(file.table.columns.index(column))
        for name, column in file.columns.found.items()
    }
    instants, written = missing, missing
    if "timestamp" in found:
        instants = cells.instants(found["timestamp"])
        written = pc.if_else(
            pc.is_null(instants), cells.texts(found["timestamp"]), pa.scalar(None, pa.string())
        )
    named = {
        "row_number": pa.array(batch.row_numbers, pa.int64()),
        "timestamp": instants,
        "timestamp_text": written,
    }
    named |= {
        name: _texts(file.table, name, column)
        for name, column in found.items()
        if name != "timestamp"
    }
    if file.symbol:
        named["symbol"] = pa.array([file.symbol] * batch.table.num_rows, pa.string())
    return pa.table(named)


def _texts(table: FileTable, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if name == "underlying_token_addresses":
        return cells.text_lists(column)
    trimmed = pc.utf8_trim_whitespace(cells.texts(column))
    if table.delimiter == ";":
        # where the semicolon separates, spreadsheets write the decimal point as a comma
        trimmed = pc.replace_substring_regex(trimmed, r"^([+-]?[0-9]+),([0-9]+)$", r"\1.\2")
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _copy(connection: Connection, rows: pa.Table) -> None:
    buffer = io.BytesIO()
    # Arrow quotes every text and leaves a null unquoted, which is how COPY tells an empty text from
    # NULL
    pa_csv.write_csv(rows, buffer, pa_csv.WriteOptions(include_header=False))
    buffer.seek(0)
    cursor: Any = connection.connection.cursor()
    with cursor:
        cursor.copy_expert(
            f"COPY {raw_sql.INCOMING} ({', '.join(rows.column_names)}) FROM STDIN WITH (FORMAT"
            " csv)",
            buffer,
        )


def _judge(connection: Connection, file: FileToLoad, source: dict[str, str]) -> int:
    """Judge what came in and put what can't be stored into quarantine; returns how many rows that
    is.
    """
    types = dict(column_types(connection, TARGETS[file.kind]))
    types["pools.pool_id"] = column_types(connection, pools)["pool_id"]
    connection.exec_driver_sql(raw_sql.create_judged(JUDGE[file.kind](file.text_columns, types)))
    pool_id = "i.pool_id" if "pool_id" in file.text_columns else "NULL"
    connection.execute(
        text(raw_sql.quarantine_refused(pool_id)), source | {"file": file.table.path.name}
    )
    return int(
        connection.exec_driver_sql(
            f"SELECT count(*) FROM {raw_sql.JUDGED} WHERE reason IS NOT NULL"
        ).scalar_one()
    )


def _check_rows(connection: Connection, file: FileToLoad, read: int, refused: int) -> None:
    path = file.table.path
    if not read:
        raise InputError(f"{path} has column names but no row; nothing to load")
    if file.kind in {"prices", "gas"}:
        key = "timestamp, symbol" if file.kind == "prices" else "date"
        count = (
            f"SELECT count(*), count(DISTINCT ({key})) FROM {raw_sql.JUDGED} WHERE timestamp IS NOT"
            " NULL"
        )
        rows, days = connection.exec_driver_sql(count).one()
        if days and rows / days > MAX_ROWS_A_DAY:
            raise InputError(
                f"{path} has {rows:,} rows for {days:,} days; daily {file.kind} are needed:"
                " aggregate it to one row for each UTC day first"
            )
    if refused == read:
        both = f"{raw_sql.JUDGED} AS j JOIN {raw_sql.INCOMING} AS i USING (row_number)"
        first = connection.exec_driver_sql(
            f"SELECT j.reason, i.timestamp_text FROM {both} ORDER BY row_number LIMIT 1"
        ).one_or_none()
        reason, cell = first or ("wrong_number_of_values", None)
        hint = (
            f": {cell!r} is no ISO 8601 timestamp (2025-10-05T23:04:49Z), date or unix time"
            if reason == "timestamp_unusable"
            else ""
        )
        raise InputError(
            f"no row of the {read:,} in {path} can be stored, the first because of {reason}{hint};"
            " nothing was loaded. Mend the file"
        )


USABLE = f"SELECT * FROM {raw_sql.JUDGED} WHERE reason IS NULL"


def _require_history(connection: Connection, path: Path) -> None:
    """Raises: CheckFailed where a usable row of the file is not in the table."""
    missing, pool_id = connection.exec_driver_sql(raw_sql.missing_history(USABLE)).one()
    if missing:
        table = qualified(raw_pool_history)
        raise CheckFailed(
            f"{table} did not take {missing:,} rows of {path}, among them of pool {pool_id};"
            " nothing of the file was loaded. A trigger of the table drops rows: let it pass"
            " YieldSpark's, then load the file again"
        )


def _merge(connection: Connection, file: FileToLoad) -> tuple[int, int, int]:
    """Returns rows inserted, rows updated, new pools with stand-ins."""
    required = required_descriptions(connection)
    usable = USABLE
    last = f"{usable} AND is_last" if file.kind != "history" else usable
    statement = {
        "history": lambda: raw_sql.merge_history(usable),
        "prices": lambda: raw_sql.merge_prices(last),
        "gas": lambda: raw_sql.merge_gas(last),
        "pools": lambda: raw_sql.merge_pools(last, file.text_columns, required),
    }[file.kind]()
    undescribed = 0
    if file.kind == "pools":
        count = raw_sql.count_stand_ins(last, file.text_columns, required)
        undescribed = int(connection.exec_driver_sql(count).scalar_one())
    inserted, updated = connection.exec_driver_sql(statement).one()
    if file.kind == "history":
        added = connection.exec_driver_sql(raw_sql.add_unknown_pools(usable, required)).rowcount
        undescribed = added if required else 0
        if inserted >= ANALYZE_FROM_ROWS:
            connection.exec_driver_sql(f"ANALYZE {qualified(raw_pool_history)}")
    return inserted, updated, undescribed
