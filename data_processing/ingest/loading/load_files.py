"""Files into the raw tables: pool history, daily prices, daily gas, pool descriptions; Parquet or
CSV.

In: paths. Out: rows of the owner's raw tables as the file has them, and what happened to each row:
inserted, updated, there already, outdated (an older description of a pool), refused.
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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.files.number_format import given_sign
from data_processing.files.row_batches import RaggedLine
from data_processing.ingest.column_limits import ColumnTypes, column_types
from data_processing.ingest.loading import load_sql as raw_sql
from data_processing.ingest.loading import validation_sql as judge_sql
from data_processing.ingest.loading.file_kinds import Kind
from data_processing.ingest.loading.files_to_load import TARGETS, FileToLoad, look_at
from data_processing.ingest.loading.load_checks import (
    LOAD_AGAIN,
    require_daily_rows,
    require_numbers,
    require_some_rows,
    require_stored,
)
from data_processing.ingest.loading.validation_sql import USABLE
from data_processing.ingest.pool_descriptions import IN_WORDS, required_descriptions
from data_processing.ingest.stored_rows import rows_not_taken
from database.connections.advisory_locks import RAW_TABLES_LOCK, lock_in_transaction
from database.connections.engine import checked_connection, make_engine
from database.schema.check import verify_tables
from database.schema.merge_sql import qualified
from database.schema.table_use import LOAD_USE
from database.schema.tables import pools, raw_pool_history

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

JUDGE = {
    "history": judge_sql.judge_history,
    "prices": judge_sql.judge_prices,
    "gas": judge_sql.judge_gas,
    "pools": judge_sql.judge_pools,
}

ANALYZE_FROM_ROWS = 10_000
"""After a load of this size the planner's statistics are stale, and autovacuum comes a minute
later.
"""


@dataclass(frozen=True)
class Counts:
    """What happened to the rows of a file. The five after the first add up to it.

    `pools_undescribed` are new pools for whose required descriptions something stands in;
    `rows_not_numbers` are stored rows whose APY or TVL the metrics job will put into quarantine;
    `symbols_unread` are symbols whose prices no job reads.
    """

    rows_read: int
    rows_inserted: int
    rows_updated: int
    rows_already_there: int
    rows_outdated: int
    rows_refused: int
    pools_undescribed: int
    rows_not_numbers: int
    symbols_unread: tuple[str, ...]


def load_files(
    settings: Settings,
    paths: Sequence[Path],
    *,
    kind: str | None = None,
    symbol: str | None = None,
    decimal: str | None = None,
    progress: Progress = log.info,
) -> dict[str, Any]:
    """Load files in the order given, after a look at each.

    Args: kind is history, prices, gas or pools for all of them, or None to tell it from each file;
    symbol is that of price files that have no such column (None: told from the file's name);
    decimal is `.` or `,` where numbers are text that can be read with either.
    Returns: {files: [{path, kind, the names of `Counts`, seconds}], rows_inserted, rows_refused}.
    Raises: InputError for a file that can't be read as what it is; the files before it are loaded,
    nothing of it is. CheckFailed where a trigger drops rows; SchemaMismatch, DatabaseRefused where
    a table can't be written; DatabaseError.
    """
    sign = given_sign(decimal)
    files = [look_at(path, kind, symbol, sign) for path in paths]
    run_id = f"load_{datetime.now(UTC):%Y%m%dt%H%M%S}_{secrets.token_hex(3)}"
    engine = make_engine(settings)
    with checked_connection(engine) as connection:
        verify_tables(connection, [use for file in files for use in LOAD_USE[file.kind]])
    summaries = []
    for file in files:
        began = time.monotonic()
        with checked_connection(engine) as connection:
            counts = _load(connection, file, run_id)
        progress(f"{file.table.path.name} ({file.kind}): {_in_words(counts)}")
        summaries.append(
            {
                "path": str(file.table.path),
                "kind": file.kind,
                **asdict(counts),
                "seconds": round(time.monotonic() - began, 3),
            }
        )
    return {
        "files": summaries,
        **{
            name: sum(summary[name] for summary in summaries)
            for name in ("rows_inserted", "rows_refused")
        },
    }


def _in_words(counts: Counts) -> str:
    told = (
        f"{counts.rows_read:,} read, {counts.rows_inserted:,} inserted,"
        f" {counts.rows_updated:,} updated, {counts.rows_already_there:,} already there,"
        f" {counts.rows_refused:,} refused"
    )
    if counts.rows_outdated:
        told += f"; {counts.rows_outdated:,} are older than what `pools` has, and left out"
    if counts.pools_undescribed:
        told += f"; {counts.pools_undescribed:,} new pools are not described in it: {IN_WORDS}"
    if counts.rows_not_numbers:
        told += (
            f"; {counts.rows_not_numbers:,} rows have an APY or a TVL that is no number:"
            " calculate_metrics will put them into quarantine"
        )
    if counts.symbols_unread:
        told += f"; no job reads the prices of {', '.join(counts.symbols_unread[:10])}"
    return told


def _load(connection: Connection, file: FileToLoad, run_id: str) -> Counts:
    # two loads at once would not see each other's new rows, and insert them twice
    lock_in_transaction(connection, RAW_TABLES_LOCK)
    source = {"run_id": run_id, "source_table": file.target}
    connection.exec_driver_sql(judge_sql.create_incoming(file.text_columns))
    read = ragged = 0
    for batch in file.table.batches():
        _copy(connection, file.incoming(batch))
        lines = [source | _ragged_row(file.name, line) for line in batch.ragged]
        if lines:
            connection.execute(text(raw_sql.quarantine_ragged()), lines)
        ragged += len(lines)
        read += batch.table.num_rows + len(lines)
    types = _types(connection, file.kind)
    refused = ragged + _judge(connection, file, source, types)
    require_some_rows(connection, file, read, refused)
    if file.kind in {"prices", "gas"}:
        require_daily_rows(connection, file)
    not_numbers = require_numbers(connection, file.table.path) if file.kind == "history" else 0
    outdated = to_write = 0
    if file.kind == "pools":
        statement = raw_sql.count_pools_to_write(_last_rows(file), file.text_columns, types)
        outdated, to_write = connection.exec_driver_sql(statement).one()
    inserted, updated, undescribed = _merge(connection, file)
    if inserted + updated < to_write:
        lost = to_write - inserted - updated
        raise rows_not_taken(pools, lost, str(file.table.path), LOAD_AGAIN)
    already_there = read - refused - inserted - updated - outdated
    require_stored(connection, file, _last_rows(file), types, already_there=already_there > 0)
    return Counts(
        rows_read=read,
        rows_inserted=inserted,
        rows_updated=updated,
        rows_already_there=already_there,
        rows_outdated=outdated,
        rows_refused=refused,
        pools_undescribed=undescribed,
        rows_not_numbers=not_numbers,
        symbols_unread=_unread_symbols(connection) if file.kind == "prices" else (),
    )


def _types(connection: Connection, kind: Kind) -> ColumnTypes:
    own = column_types(connection, TARGETS[kind])
    return {**own, "pools.pool_id": column_types(connection, pools)["pool_id"]}


def _unread_symbols(connection: Connection) -> tuple[str, ...]:
    symbols = connection.exec_driver_sql(judge_sql.unread_symbols()).scalar_one()
    return tuple(symbols or ())


def _ragged_row(name: str, line: RaggedLine) -> dict[str, str]:
    return {
        "source_id": f"{name}:{line.row_number}",
        "cells": json.dumps([value.replace("\0", "\ufffd") for value in line.values]),
    }


def _copy(connection: Connection, rows: pa.Table) -> None:
    buffer = io.BytesIO()
    # Arrow quotes every text and leaves a null unquoted, which is how COPY tells an empty text from
    # NULL
    pa_csv.write_csv(rows, buffer, pa_csv.WriteOptions(include_header=False))
    buffer.seek(0)
    cursor: Any = connection.connection.cursor()
    with cursor:
        cursor.copy_expert(
            f"COPY {judge_sql.INCOMING} ({', '.join(rows.column_names)}) FROM STDIN WITH (FORMAT"
            " csv)",
            buffer,
        )


def _judge(
    connection: Connection, file: FileToLoad, source: dict[str, str], types: ColumnTypes
) -> int:
    """Judge what came in and put what can't be stored into quarantine; returns how many rows that
    is.
    """
    connection.exec_driver_sql(judge_sql.create_judged(JUDGE[file.kind](file.text_columns, types)))
    pool_id = "i.pool_id" if "pool_id" in file.text_columns else "NULL"
    connection.execute(text(raw_sql.quarantine_refused(pool_id)), source | {"file": file.name})
    return int(
        connection.exec_driver_sql(
            f"SELECT count(*) FROM {judge_sql.JUDGED} WHERE reason IS NOT NULL"
        ).scalar_one()
    )


def _last_rows(file: FileToLoad) -> str:
    """The rows that are merged: of prices, gas and pools the last of each key."""
    return f"{USABLE} AND is_last" if file.kind != "history" else USABLE


def _merge(connection: Connection, file: FileToLoad) -> tuple[int, int, int]:
    """Returns rows inserted, rows updated, new pools with stand-ins."""
    required = required_descriptions(connection)
    rows = _last_rows(file)
    statement = {
        "history": lambda: raw_sql.merge_history(rows),
        "prices": lambda: raw_sql.merge_prices(rows),
        "gas": lambda: raw_sql.merge_gas(rows),
        "pools": lambda: raw_sql.merge_pools(rows, file.text_columns, required),
    }[file.kind]()
    undescribed = 0
    if file.kind == "pools":
        count = raw_sql.count_stand_ins(rows, file.text_columns, required)
        undescribed = int(connection.exec_driver_sql(count).scalar_one())
    inserted, updated = connection.exec_driver_sql(statement).one()
    if file.kind == "history":
        added = connection.exec_driver_sql(raw_sql.add_unknown_pools(rows, required)).rowcount
        undescribed = added if required else 0
        if inserted >= ANALYZE_FROM_ROWS:
            connection.exec_driver_sql(f"ANALYZE {qualified(raw_pool_history)}")
    return inserted, updated, undescribed
