"""What is known of a file before it is loaded: its kind, its columns, how it writes numbers, whose
prices it has.

In: a path and the user's words. Out: `FileToLoad`, whose batches have the columns of the temporary
table `incoming`. A file whose kind or numbers can be read in two ways is refused here, before any
file is loaded. Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Table

from common.errors import InputError
from common.plain_text import without_controls
from data_processing.files import cells
from data_processing.files.file_tables import FileTable, open_file
from data_processing.files.number_format import (
    DecimalSign,
    SignsSeen,
    decimal_sign,
    signs_seen,
    with_point,
)
from data_processing.files.row_batches import Batch
from data_processing.ingest.loading.file_kinds import (
    DOLLARS,
    NUMBERS,
    PERCENT,
    FileColumns,
    Kind,
    columns_of,
    describes_only,
    fitting_kinds,
    known_kind,
    unknown_kind,
)
from data_processing.ingest.loading.symbols import base_symbol, given_symbol, symbol_of
from database.schema.merge_sql import qualified
from database.schema.tables import gas_fees_daily, pools, raw_pool_history, raw_prices

TARGETS: dict[Kind, Table] = {
    "history": raw_pool_history,
    "prices": raw_prices,
    "gas": gas_fees_daily,
    "pools": pools,
}

TOKENS = "underlying_token_addresses"

BLANKS = "[\\s\u00a0\u202f]*"

UNITS = {
    **dict.fromkeys(PERCENT, rf"{BLANKS}%$"),
    **dict.fromkeys(DOLLARS, rf"{BLANKS}(\$|USD)$"),
}
UNITS_BEFORE = dict.fromkeys(DOLLARS, rf"^([+-]?)(USD|(US)?\$){BLANKS}")
"""The unit that a column has anyway, where a cell writes it too."""

TIME_OF_DAY = r"^[0-9]{1,2}:[0-9]{2}"


@dataclass(frozen=True)
class FileToLoad:
    """A file that is ready to be loaded; `symbol` is that of a price file without such a column,
    `signs` are the decimal signs of the columns whose numbers are text.
    """

    table: FileTable
    columns: FileColumns
    symbol: str | None
    signs: Mapping[str, DecimalSign]

    @property
    def kind(self) -> Kind:
        return self.columns.kind

    @property
    def name(self) -> str:
        """The file's name as PostgreSQL takes it: Python has half a surrogate pair for a byte that
        is no UTF-8.
        """
        return without_controls(self.table.path.name)

    @property
    def target(self) -> str:
        """The quoted name of the table that takes the rows."""
        return qualified(TARGETS[self.kind])

    @property
    def text_columns(self) -> list[str]:
        """The columns of `incoming` beside the timestamp."""
        names = [name for name in self.columns.found if name != "timestamp"]
        return [*names, "symbol"] if self.symbol else names

    def incoming(self, batch: Batch) -> pa.Table:
        """A batch as the columns of `incoming`."""
        missing = pa.chunked_array([pa.nulls(batch.table.num_rows, pa.string())])
        found = _columns_in_use(self.table, self.columns, batch)
        instants, written = missing, missing
        if "timestamp" in found:
            place, column = found.pop("timestamp")
            instants = cells.instants(place, column)
            is_missing = pc.and_(pc.is_null(instants), pc.is_valid(column))
            if pc.any(is_missing).as_py():
                written = pc.if_else(
                    is_missing, cells.texts(place, column), pa.scalar(None, pa.string())
                )
        named = {
            "row_number": pa.array(batch.row_numbers, pa.int64()),
            "timestamp": instants,
            "timestamp_text": written,
        }
        named |= {name: self._cells(name, *column) for name, column in found.items()}
        if self.symbol:
            named["symbol"] = pa.array([self.symbol] * batch.table.num_rows, pa.string())
        return pa.table(named)

    def _cells(self, name: str, place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if name == TOKENS:
            return cells.text_lists(place, column)
        found = cells.texts(place, column)
        if self.kind == "prices" and name == "symbol":
            return _base_symbols(found)
        if name not in self.signs:
            return found
        return with_point(_without_unit(name, found), self.signs[name])


def look_at(
    path: Path, kind: str | None, symbol: str | None, given: DecimalSign | None
) -> FileToLoad:
    """Args: kind, symbol and given are the user's words, or None to tell them from the file.

    Raises: InputError where the file can't be read, or can be read in two ways.
    """
    table = open_file(path)
    columns = columns_of(path, table.columns, known_kind(kind) if kind else _kind_of(table))
    for name, column in columns.found.items():
        cells.require_type(
            _place(table, column), _type_of(table, column), _role(columns.kind, name)
        )
    _require_whole_instants(table, columns)
    needs_symbol = columns.kind == "prices" and "symbol" not in columns.found
    whose = (given_symbol(symbol) if symbol else symbol_of(path)) if needs_symbol else None
    return FileToLoad(table, columns, whose, _decimal_signs(table, columns, given))


def _require_whole_instants(table: FileTable, columns: FileColumns) -> None:
    """Raises: InputError where the time of day of a snapshot stands in a column beside its date:
    every snapshot would be of midnight.
    """
    if columns.kind != "history":
        return
    for name in table.columns:
        if name.strip().lower() != "time" or name == columns.found["timestamp"]:
            continue
        kind = _type_of(table, name)
        is_time = pa.types.is_time(kind) or (
            cells.holds_text(kind) and _first_cell_matches(table, name, TIME_OF_DAY)
        )
        if is_time:
            raise InputError(
                f"{table.path} has the day in column {columns.found['timestamp']} and the time of"
                f" day in column {name}: write both into one column timestamp, such as"
                " 2025-03-01T23:01:00Z"
            )


def _first_cell_matches(table: FileTable, name: str, shape: str) -> bool:
    batch = next(iter(table.batches()), None)
    if batch is None:
        return False
    column = batch.table.column(table.columns.index(name))
    written = cells.texts(_place(table, name), column).drop_null()[:1]
    return bool(pc.any(pc.match_substring_regex(written, shape)).as_py())


def _kind_of(table: FileTable) -> Kind:
    """Raises: InputError where the columns fit no kind, or the file fits two."""
    fitting = fitting_kinds(table.columns)
    if not fitting:
        raise unknown_kind(table.path, table.columns)
    if set(fitting) == {"history", "pools"}:
        if _has_several_rows_of_a_pool(table):
            return "history"
        if describes_only(table.columns):
            return "pools"
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"{table.path} may hold {' or '.join(fitting)}: its columns fit each of them"
        + (", and no pool has a second row" if "pools" in fitting else "")
        + f"; give --kind {' or --kind '.join(fitting)}"
    )


def _has_several_rows_of_a_pool(table: FileTable) -> bool:
    columns = columns_of(table.path, table.columns, "pools")
    seen: set[str] = set()
    for batch in table.batches():
        place, column = _columns_in_use(table, columns, batch)["pool_id"]
        ids = cells.texts(place, column).drop_null().to_pylist()
        before = len(seen)
        seen.update(ids)
        if len(seen) < before + len(ids):
            return True
    return False


def _decimal_signs(
    table: FileTable, columns: FileColumns, given: DecimalSign | None
) -> dict[str, DecimalSign]:
    """The decimal sign of each column of numbers that are text; reads the whole file where there is
    one.
    """
    numbers = [
        name
        for name in NUMBERS[columns.kind]
        if name in columns.found and cells.holds_text(_type_of(table, columns.found[name]))
    ]
    if not numbers:
        return {}
    seen = dict.fromkeys(numbers, SignsSeen())
    for batch in table.batches():
        found = _columns_in_use(table, columns, batch)
        for name in numbers:
            column = _without_unit(name, cells.texts(*found[name]))
            seen[name] |= signs_seen(column)
    return {
        name: decimal_sign(
            _place(table, columns.found[name]),
            seen[name],
            list(seen.values()),
            delimiter=table.delimiter,
            given=given,
        )
        for name in numbers
    }


def _columns_in_use(
    table: FileTable, columns: FileColumns, batch: Batch
) -> dict[str, tuple[str, pa.ChunkedArray]]:
    """By our name: what to call the column in an error, and its cells."""
    return {
        name: (_place(table, column), batch.table.column(table.columns.index(column)))
        for name, column in columns.found.items()
    }


def _place(table: FileTable, column: str) -> str:
    return f"column {column} of {table.path}"


def _type_of(table: FileTable, column: str) -> pa.DataType:
    return table.types[table.columns.index(column)]


def _role(kind: Kind, name: str) -> cells.Role:
    if name == "timestamp":
        return "instant"
    if name == TOKENS:
        return "list"
    return "number" if name in NUMBERS[kind] else "text"


def _without_unit(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if name in UNITS_BEFORE:
        column = pc.replace_substring_regex(column, UNITS_BEFORE[name], r"\1")
    return pc.replace_substring_regex(column, UNITS[name], "") if name in UNITS else column


def _base_symbols(column: pa.ChunkedArray) -> pa.ChunkedArray:
    written = column.combine_chunks().dictionary_encode()
    symbols = pa.array([base_symbol(text) for text in written.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([symbols.take(written.indices)])
