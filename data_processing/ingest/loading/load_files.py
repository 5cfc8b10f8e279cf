"""Loads files into the raw tables: pool history, daily prices, daily gas, pool descriptions;
Parquet or CSV.

APY percent, TVL and prices USD, gas gwei (wei is converted); days are UTC. A history value that is
no number is stored in the raw JSON as it is, for the metrics job to validate; a row that a table
can't store is quarantined with its reason. One file is one transaction: it is loaded as a whole or
not at all, and loading it again changes nothing.
"""

from __future__ import annotations

import io
import itertools
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
from data_processing.files.number_format import parse_decimal_sign
from data_processing.files.row_batches import RaggedLine
from data_processing.ingest.column_limits import ColumnTypes, column_types
from data_processing.ingest.loading import load_sql, validation_sql
from data_processing.ingest.loading.file_kinds import Kind
from data_processing.ingest.loading.files_to_load import TARGETS, FileToLoad, inspect_file
from data_processing.ingest.loading.load_checks import (
    LOAD_AGAIN,
    require_daily_rows,
    require_numbers,
    require_some_rows,
    require_stored,
)
from data_processing.ingest.loading.validation_sql import USABLE
from data_processing.ingest.pool_descriptions import PLACEHOLDERS_NOTE, required_descriptions
from data_processing.ingest.stored_rows import missing_rows_error
from database.connections.advisory_locks import RAW_TABLES_LOCK, lock_in_transaction
from database.connections.engine import checked_connection, make_engine
from database.schema.check import verify_tables
from database.schema.merge_sql import qualified
from database.schema.owner_tables import pools, raw_pool_history
from database.schema.table_use import LOAD_USE

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

VALIDATE = {
    "history": validation_sql.validate_history,
    "prices": validation_sql.validate_prices,
    "gas": validation_sql.validate_gas,
    "pools": validation_sql.validate_pools,
}

ANALYZE_FROM_ROWS = 10_000
"""New rows from which on the table is analyzed: the planner's statistics are stale, and autovacuum
runs a minute later.
"""


@dataclass(frozen=True)
class LoadCounts:
    """Outcome of the rows of a file. The five counts after the first add up to it.

    Attributes:
        rows_read: rows of the file.
        rows_inserted: new rows.
        rows_updated: rows that replaced a stored one.
        rows_already_there: rows that were stored before.
        rows_outdated: descriptions of pools that are older than the stored ones.
        rows_refused: rows that were quarantined.
        pools_undescribed: new pools with a placeholder for a required description.
        rows_not_numbers: stored rows whose APY or TVL the metrics job will quarantine.
        symbols_unread: symbols whose prices no job reads.
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
    """Load files in the order of `paths`, after each was inspected.

    Args:
        settings: the database.
        paths: Parquet or CSV files.
        kind: history, prices, gas or pools for all files; None detects it for each file.
        symbol: symbol of price files without such a column; None derives it from the file name.
        decimal: `.` or `,` for numbers as text that can be read with either.
        progress: receives a line for each file.

    Returns:
        {files: [{path, kind, the names of `LoadCounts`, seconds}], rows_inserted, rows_refused}.

    Raises:
        InputError: a file can't be read. The files before it are loaded, nothing of it is.
        CheckFailed: a trigger drops rows.
        SchemaMismatch: a table is not as expected.
        DatabaseRefused: a table can't be written.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    sign = parse_decimal_sign(decimal)
    # all of them before the first is loaded: a wrong file stops the command early
    files = [inspect_file(path, kind, symbol, sign) for path in paths]
    # `load` is no run of the ledger; the id marks the rows that it quarantines
    run_id = f"load_{datetime.now(UTC):%Y%m%dt%H%M%S}_{secrets.token_hex(3)}"
    engine = make_engine(settings)
    uses = itertools.chain.from_iterable(LOAD_USE[file.kind] for file in files)
    with checked_connection(engine) as connection:
        verify_tables(connection, list(uses))
    summaries = []
    for file in files:
        began = time.monotonic()
        with checked_connection(engine) as connection:
            counts = _load(connection, file, run_id)
        progress(f"{file.table.path.name} ({file.kind}): {_summary(counts)}")
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
        "rows_inserted": sum(summary["rows_inserted"] for summary in summaries),
        "rows_refused": sum(summary["rows_refused"] for summary in summaries),
    }


def _summary(counts: LoadCounts) -> str:
    summary = (
        f"{counts.rows_read:,} read, {counts.rows_inserted:,} inserted,"
        f" {counts.rows_updated:,} updated, {counts.rows_already_there:,} already there,"
        f" {counts.rows_refused:,} refused"
    )
    if counts.rows_outdated:
        summary += f"; {counts.rows_outdated:,} are older than what `pools` has, and left out"
    if counts.pools_undescribed:
        summary += (
            f"; {counts.pools_undescribed:,} new pools are not described in it: {PLACEHOLDERS_NOTE}"
        )
    if counts.rows_not_numbers:
        summary += (
            f"; {counts.rows_not_numbers:,} rows have an APY or a TVL that is no number:"
            " calculate_metrics will put them into quarantine"
        )
    if counts.symbols_unread:
        summary += f"; no job reads the prices of {', '.join(counts.symbols_unread[:10])}"
    return summary


def _load(connection: Connection, file: FileToLoad, run_id: str) -> LoadCounts:
    # two loads at once would not see each other's new rows, and insert them twice
    lock_in_transaction(connection, RAW_TABLES_LOCK)
    source = {"run_id": run_id, "source_table": file.target}
    connection.exec_driver_sql(validation_sql.create_incoming(file.text_columns))
    read = ragged = 0
    for batch in file.table.batches():
        _copy(connection, file.incoming(batch))
        lines = [source | _ragged_row(file.name, line) for line in batch.ragged]
        if lines:
            connection.execute(text(load_sql.quarantine_ragged()), lines)
        ragged += len(lines)
        read += batch.table.num_rows + len(lines)
    types = _types(connection, file.kind)
    refused = ragged + _validate(connection, file, source, types)
    require_some_rows(connection, file, read, refused)
    if file.kind in {"prices", "gas"}:
        require_daily_rows(connection, file)
    not_numbers = require_numbers(connection, file.table.path) if file.kind == "history" else 0
    outdated = to_write = 0
    if file.kind == "pools":
        statement = load_sql.count_pools_to_write(_last_rows(file), file.text_columns, types)
        outdated, to_write = connection.exec_driver_sql(statement).one()
    inserted, updated, undescribed = _merge(connection, file)
    if inserted + updated < to_write:
        lost = to_write - inserted - updated
        raise missing_rows_error(pools, lost, str(file.table.path), LOAD_AGAIN)
    already_there = read - refused - inserted - updated - outdated
    require_stored(connection, file, _last_rows(file), types, already_there=already_there > 0)
    return LoadCounts(
        rows_read=read,
        rows_inserted=inserted,
        rows_updated=updated,
        rows_already_there=already_there,
        rows_outdated=outdated,
        rows_refused=refused,
        pools_undescribed=undescribed,
        rows_not_numbers=not_numbers,
        symbols_unread=_unused_symbols(connection) if file.kind == "prices" else (),
    )


def _types(connection: Connection, kind: Kind) -> ColumnTypes:
    types = column_types(connection, TARGETS[kind])
    return {**types, "pools.pool_id": column_types(connection, pools)["pool_id"]}


def _unused_symbols(connection: Connection) -> tuple[str, ...]:
    symbols = connection.exec_driver_sql(validation_sql.unused_symbols()).scalar_one()
    return tuple(symbols or ())


def _ragged_row(name: str, line: RaggedLine) -> dict[str, str]:
    return {
        "source_id": f"{name}:{line.row_number}",
        # jsonb has no NUL
        "cells": json.dumps([value.replace("\0", "\ufffd") for value in line.values]),
    }


def _copy(connection: Connection, rows: pa.Table) -> None:
    buffer = io.BytesIO()
    # Arrow quotes every text and leaves a null unquoted, which is how COPY tells an empty text from
    # NULL
    pa_csv.write_csv(rows, buffer, pa_csv.WriteOptions(include_header=False))
    buffer.seek(0)
    columns = ", ".join(rows.column_names)
    # SQLAlchemy has no COPY
    cursor: Any = connection.connection.cursor()
    with cursor:
        cursor.copy_expert(
            f"COPY {validation_sql.INCOMING} ({columns}) FROM STDIN WITH (FORMAT csv)", buffer
        )


def _validate(
    connection: Connection, file: FileToLoad, source: dict[str, str], types: ColumnTypes
) -> int:
    """Validate the incoming rows, quarantine those that can't be stored; return their number."""
    select = VALIDATE[file.kind](file.text_columns, types)
    connection.exec_driver_sql(validation_sql.create_validated(select))
    pool_id = "i.pool_id" if "pool_id" in file.text_columns else "NULL"
    connection.execute(text(load_sql.quarantine_refused(pool_id)), source | {"file": file.name})
    return int(
        connection.exec_driver_sql(
            f"SELECT count(*) FROM {validation_sql.VALIDATED} WHERE reason IS NOT NULL"
        ).scalar_one()
    )


def _last_rows(file: FileToLoad) -> str:
    """Return the rows to merge: of prices, gas and pools the last one of each key."""
    return f"{USABLE} AND is_last" if file.kind != "history" else USABLE


def _merge(connection: Connection, file: FileToLoad) -> tuple[int, int, int]:
    """Return rows inserted, rows updated, and new pools with placeholders."""
    required = required_descriptions(connection)
    rows = _last_rows(file)
    # functions: the statements of other kinds need columns that this file lacks
    statement = {
        "history": lambda: load_sql.merge_history(rows),
        "prices": lambda: load_sql.merge_prices(rows),
        "gas": lambda: load_sql.merge_gas(rows),
        "pools": lambda: load_sql.merge_pools(rows, file.text_columns, required),
    }[file.kind]()
    undescribed = 0
    if file.kind == "pools":
        # before the merge, which adds these pools
        count = load_sql.count_placeholders(rows, file.text_columns, required)
        undescribed = int(connection.exec_driver_sql(count).scalar_one())
    if file.kind == "history":
        # first, because history may have a foreign key to `pools`
        added = connection.exec_driver_sql(load_sql.add_unknown_pools(rows, required)).rowcount
        undescribed = added if required else 0
    inserted, updated = connection.exec_driver_sql(statement).one()
    if file.kind == "history" and inserted >= ANALYZE_FROM_ROWS:
        connection.exec_driver_sql(f"ANALYZE {qualified(raw_pool_history)}")
    return inserted, updated, undescribed
