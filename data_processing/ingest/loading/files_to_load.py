"""Inspects a file before it is loaded: its kind, its columns, its number format and the symbol of
its prices.

Returns a `FileToLoad`, whose batches have the columns of the temporary table `incoming`. A file
whose kind or numbers can be read in two ways is rejected before any file is loaded. Stores nothing.
"""

from __future__ import annotations

import re
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
    SignEvidence,
    decimal_sign,
    sign_evidence,
    with_decimal_point,
    without_dollars,
    without_percent,
)
from data_processing.files.row_batches import Batch
from data_processing.ingest.loading.file_kinds import (
    DOLLARS,
    NUMBERS,
    PERCENT,
    FileColumns,
    Kind,
    describes_only,
    fitting_kinds,
    map_columns,
    parse_kind,
    unknown_kind,
)
from data_processing.ingest.loading.same_meaning import choose_columns, require_equal_gas
from data_processing.ingest.loading.side_columns import require_known_units, require_pool_ids
from data_processing.ingest.loading.symbols import (
    base_symbol,
    known_coin_in_name,
    parse_symbol,
    symbol_from_name,
)
from database.schema.merge_sql import qualified
from database.schema.owner_tables import gas_fees_daily, pools, raw_pool_history, raw_prices

TARGETS: dict[Kind, Table] = {
    "history": raw_pool_history,
    "prices": raw_prices,
    "gas": gas_fees_daily,
    "pools": pools,
}

TOKENS = "underlying_token_addresses"

MISSING = (
    "^([nN]a[nN]|None|<NA>|NaT|undefined|N/?A|n/a|[-\u2013\u2014]+|#(N/?A|NV|[A-Z/0-9]+[!?]))$"
)
"""Texts that pandas, JavaScript and spreadsheets write for a missing value or a failed formula. As
a pool id, each of them would be a pool.
"""

UUID_IN_ANY_FORM = r"^\{?([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\}?$"

TIME_NAME = re.compile(
    "(^|[^a-z])(time|hour|zeit|uhrzeit|stunde|heure|hora|ora|tijd)(utc|ofday)?([^a-z]|$)"
)
"""As a word, in lower case, also in languages that write the day as `date`: `uptime` and
`hours_locked` are no times of day.
"""
TIME_OF_DAY = "^[0-9]{1,2}:[0-9]{2}"
HOUR = "^[0-9]{1,2}(:[0-9]{2}.*)?$"


@dataclass(frozen=True)
class FileToLoad:
    """A file that is ready to be loaded.

    Attributes:
        table: the file.
        columns: its kind and columns.
        symbol: symbol of a price file without such a column, else None.
        signs: decimal signs of the columns whose numbers are text.
    """

    table: FileTable
    columns: FileColumns
    symbol: str | None
    signs: Mapping[str, DecimalSign]

    @property
    def kind(self) -> Kind:
        """Kind of the file."""
        return self.columns.kind

    @property
    def name(self) -> str:
        """Name of the file as PostgreSQL stores it."""
        # Python writes a byte that is not UTF-8 as half a surrogate pair
        return without_controls(self.table.path.name)

    @property
    def target(self) -> str:
        """Quoted name of the table that receives the rows."""
        return qualified(TARGETS[self.kind])

    @property
    def text_columns(self) -> list[str]:
        """Columns of `incoming` besides row number and timestamp."""
        names = [name for name in self.columns.names if name != "timestamp"]
        return [*names, "symbol"] if self.symbol else names

    def incoming(self, batch: Batch) -> pa.Table:
        """Convert a batch to the columns of `incoming`.

        Args:
            batch: rows of the file.

        Raises:
            InputError: a cell can't be read as text.
        """
        missing = pa.chunked_array([pa.nulls(batch.table.num_rows, pa.string())])
        columns = _columns_in_use(self.table, self.columns, batch)
        timestamps, unreadable = missing, missing
        # descriptions of pools may come without one
        if "timestamp" in columns:
            place, column = columns.pop("timestamp")
            timestamps = cells.to_timestamps(place, column)
            is_unreadable = pc.and_(pc.is_null(timestamps), pc.is_valid(column))
            # the text is only needed for the error message
            if pc.any(is_unreadable).as_py():
                unreadable = pc.if_else(
                    is_unreadable, cells.to_texts(place, column), pa.scalar(None, pa.string())
                )
        arrays = {
            "row_number": pa.array(batch.row_numbers, pa.int64()),
            "timestamp": timestamps,
            "timestamp_text": unreadable,
        }
        arrays |= {name: self._cells(name, *column) for name, column in columns.items()}
        if self.symbol:
            arrays["symbol"] = pa.array([self.symbol] * batch.table.num_rows, pa.string())
        return pa.table(arrays)

    def _cells(self, name: str, place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if name == TOKENS:
            return cells.array_literals(place, column)
        texts = cells.to_texts(place, column)
        if _role(self.kind, name) == "text":
            is_missing = pc.match_substring_regex(texts, MISSING)
            texts = pc.if_else(is_missing, pa.scalar(None, pa.string()), texts)
        if name == "pool_id":
            return _plain_uuids(texts)
        if self.kind == "prices" and name == "symbol":
            return _base_symbols(texts)
        if name not in self.signs:
            return texts
        return with_decimal_point(_without_unit(name, texts), self.signs[name])


def inspect_file(
    path: Path, kind: str | None, symbol: str | None, decimal: DecimalSign | None
) -> FileToLoad:
    """Inspect a file.

    Args:
        path: the file.
        kind: value of `--kind`; None detects it.
        symbol: value of `--symbol`; None derives it from the file name.
        decimal: value of `--decimal`; None detects it.

    Raises:
        InputError: the file can't be read, or can be read in two ways.
    """
    table = open_file(path)
    columns = map_columns(path, table.columns, parse_kind(kind) if kind else _kind_of(table))
    roles = {name: _role(columns.kind, name) for name in columns.names}
    columns = choose_columns(table, columns, roles)
    for name, column in columns.names.items():
        # by type, before any row is read
        cells.require_type(_place(table, column), _type_of(table, column), roles[name])
    _require_whole_timestamps(table, columns)
    require_equal_gas(table, columns)
    require_known_units(table, columns)
    require_pool_ids(table, columns)
    file_symbol = _symbol(table, columns, symbol) if columns.kind == "prices" else None
    return FileToLoad(table, columns, file_symbol, _decimal_signs(table, columns, decimal))


def _symbol(table: FileTable, columns: FileColumns, option: str | None) -> str | None:
    """Return the symbol of a price file without such a column.

    Raises:
        InputError: nothing names a symbol, or `--symbol` contradicts the file.
    """
    coin = parse_symbol(option) if option else None
    if "symbol" in columns.names:
        for batch in table.batches() if coin else ():
            place, column = _columns_in_use(table, columns, batch)["symbol"]
            for written in pc.unique(cells.to_texts(place, column).drop_null()).to_pylist():
                if base_symbol(written) != coin:
                    raise InputError(
                        f"{place} has {written[:30]!r}, and --symbol is {option}: leave the option"
                        " out"
                    )
        return None
    if coin is None:
        return symbol_from_name(table.path)
    coin_of_name = known_coin_in_name(table.path)
    if coin_of_name and coin_of_name != coin:
        raise InputError(
            f"the name of {table.path} says {coin_of_name}, and --symbol is {option}: leave the"
            " option out, or rename the file"
        )
    return coin


def _require_whole_timestamps(table: FileTable, columns: FileColumns) -> None:
    """Raise InputError if a history file has day and time of day in two columns."""
    # every snapshot would be at midnight
    if columns.kind != "history":
        return
    day = columns.names["timestamp"]
    of_time = [name for name in table.columns if TIME_NAME.search(name.lower()) and name != day]
    batch = next(iter(table.batches()), None) if of_time else None
    if batch is None or not _are_whole_days(table, batch, day):
        return
    for name in of_time:
        if _first_is_time_of_day(table, batch, name):
            raise InputError(
                f"{table.path} has the day in column {day} and the time of day in column {name}:"
                " write both into one column timestamp, such as 2025-03-01T23:01:00Z"
            )


def _are_whole_days(table: FileTable, batch: Batch, name: str) -> bool:
    column = batch.table.column(table.columns.index(name))
    times = cells.to_timestamps(_place(table, name), column).drop_null()
    return bool(pc.all(pc.equal(times, pc.floor_temporal(times, unit="day"))).as_py())


def _first_is_time_of_day(table: FileTable, batch: Batch, name: str) -> bool:
    kind = _type_of(table, name)
    if pa.types.is_time(kind):
        return True
    if not (cells.holds_text(kind) or pa.types.is_integer(kind)):
        return False
    column = batch.table.column(table.columns.index(name))
    first = cells.to_texts(_place(table, name), column).drop_null()[:1]
    shape = HOUR if "hour" in name.lower() else TIME_OF_DAY
    return bool(pc.any(pc.match_substring_regex(first, shape)).as_py())


def _kind_of(table: FileTable) -> Kind:
    """Return the kind of a file; raise InputError if its columns fit no kind or two kinds."""
    fitting = fitting_kinds(table.columns)
    if not fitting:
        raise unknown_kind(table.path, table.columns)
    # a list of pools with APY and TVL looks like a history of one day
    if set(fitting) == {"history", "pools"}:
        if _has_several_rows_of_a_pool(table):
            return "history"
        if describes_only(table.columns):
            return "pools"
    if len(fitting) == 1:
        return fitting[0]
    no_second_row = ", and no pool has a second row" if "pools" in fitting else ""
    raise InputError(
        f"{table.path} may hold {' or '.join(fitting)}: its columns fit each of them"
        f"{no_second_row}; give --kind {' or --kind '.join(fitting)}"
    )


def _has_several_rows_of_a_pool(table: FileTable) -> bool:
    columns = map_columns(table.path, table.columns, "pools")
    pool_ids: set[str] = set()
    for batch in table.batches():
        place, column = _columns_in_use(table, columns, batch)["pool_id"]
        ids = cells.to_texts(place, column).drop_null().to_pylist()
        before = len(pool_ids)
        pool_ids.update(ids)
        if len(pool_ids) < before + len(ids):
            return True
    return False


def _decimal_signs(
    table: FileTable, columns: FileColumns, option: DecimalSign | None
) -> dict[str, DecimalSign]:
    """Return the decimal sign of each column with numbers as text."""
    numbers = [
        name
        for name in NUMBERS[columns.kind]
        if name in columns.names and cells.holds_text(_type_of(table, columns.names[name]))
    ]
    # without such a column the file is not read here
    if not numbers:
        return {}
    evidence = dict.fromkeys(numbers, SignEvidence())
    for batch in table.batches():
        in_use = _columns_in_use(table, columns, batch)
        for name in numbers:
            column = _without_unit(name, cells.to_texts(*in_use[name]))
            evidence[name] |= sign_evidence(column)
    return {
        name: decimal_sign(
            _place(table, columns.names[name]),
            evidence[name],
            list(evidence.values()),
            delimiter=table.delimiter,
            option=option,
        )
        for name in numbers
    }


def _columns_in_use(
    table: FileTable, columns: FileColumns, batch: Batch
) -> dict[str, tuple[str, pa.ChunkedArray]]:
    """Return for each of our names the place of the column, for errors, and its cells."""
    return {
        name: (_place(table, column), batch.table.column(table.columns.index(column)))
        for name, column in columns.names.items()
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
    if name in PERCENT:
        return without_percent(column)
    return without_dollars(column) if name in DOLLARS else column


def _plain_uuids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write UUIDs as DefiLlama and PostgreSQL do; databases of Microsoft write {747C1D2A-..}."""
    is_uuid = pc.match_substring_regex(column, UUID_IN_ANY_FORM)
    return pc.if_else(is_uuid, pc.utf8_lower(pc.utf8_trim(column, characters="{}")), column)


def _base_symbols(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # a column has few different symbols
    encoded = column.combine_chunks().dictionary_encode()
    symbols = pa.array([base_symbol(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([symbols.take(encoded.indices)])
