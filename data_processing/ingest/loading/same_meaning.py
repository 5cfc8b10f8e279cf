"""Chooses between columns of a file that may have the same meaning, such as `timestamp` and `date`.

They are compared in every row. If they agree, the first one is used, and of points in time the
exact one; otherwise the file is rejected. A column without a usable value does not count. Reads the
whole file, if it has such columns; stores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from common.errors import InputError
from data_processing.files import cells
from data_processing.files.file_tables import FileTable, format_names
from data_processing.ingest.loading.file_kinds import FileColumns

CLOSE_MICROSECONDS = 1_000_000
"""Unix seconds and ISO 8601 with a fraction may be the same moment."""

CLOSE_RATIO = 1e-9
"""Numbers may be written with different precision, such as by a float and by a decimal."""

WEI_PER_GWEI = 1e9

MAX_QUOTED_CHARACTERS = 40

GWEI, WEI = "gwei", "wei"


@dataclass(frozen=True)
class _Difference:
    """A row in which two columns differ, with the texts of their cells."""

    row_number: int
    texts: tuple[str | None, str | None]


@dataclass
class _Comparison:
    """What is known of the candidates for one of our columns, after some batches.

    Attributes:
        usable: candidates with a usable value.
        exact: candidates with a time of day.
        differences: first difference of two candidates, by their names.
        moments: first difference of two points in time of one day.
    """

    usable: set[str] = field(default_factory=set)
    exact: set[str] = field(default_factory=set)
    differences: dict[tuple[str, str], _Difference] = field(default_factory=dict)
    moments: dict[tuple[str, str], _Difference] = field(default_factory=dict)


def choose_columns(
    table: FileTable, columns: FileColumns, roles: Mapping[str, cells.Role]
) -> FileColumns:
    """Return the columns with one column of the file for each of ours.

    Args:
        table: the file.
        columns: its columns, with candidates.
        roles: what each of our columns is used for.

    Raises:
        InputError: two columns that may have the same meaning differ in a row.
    """
    candidates = {
        column: _of_readable_type(table, names, roles[column])
        for column, names in columns.candidates.items()
    }
    chosen = {column: names[0] for column, names in candidates.items()}
    several = {column: names for column, names in candidates.items() if len(names) > 1}
    comparisons = {column: _Comparison() for column in several}
    # without such columns the file is not read here
    for batch in table.batches() if several else ():
        for column, names in several.items():
            by_name = {name: batch.table.column(table.columns.index(name)) for name in names}
            comparison, role = comparisons[column], roles[column]
            if role == "instant":
                _compare_instants(table, by_name, batch.row_numbers, comparison)
            else:
                _compare_cells(table, by_name, batch.row_numbers, comparison, role)
    for column, names in several.items():
        chosen[column] = _choose(table, column, names, comparisons[column])
    return replace(columns, names={**columns.names, **chosen}, candidates={})


def require_equal_gas(table: FileTable, columns: FileColumns) -> None:
    """Require that gas in gwei and in wei is the same in every row, if a file has both.

    Args:
        table: the file.
        columns: its columns.

    Raises:
        InputError: they differ in a row.
    """
    if not {GWEI, WEI} <= columns.names.keys():
        return
    pair = (columns.names[GWEI], columns.names[WEI])
    differences: dict[tuple[str, str], _Difference] = {}
    for batch in table.batches():
        by_name = {name: batch.table.column(table.columns.index(name)) for name in pair}
        gwei, wei = (cells.to_texts(_place(table, name), by_name[name]) for name in pair)
        differs = _differ(gwei, wei, _are_close(gwei, wei, WEI_PER_GWEI))
        _note(differences, pair, table, by_name, batch.row_numbers, differs)
    if differences:
        raise _error(table, "gas", pair, differences[pair])


def _of_readable_type(table: FileTable, names: Sequence[str], role: cells.Role) -> tuple[str, ...]:
    """Return the candidates whose type can be read in the role; the first one if there is none."""
    readable = []
    for name in names:
        try:
            cells.require_type(name, table.types[table.columns.index(name)], role)
        except InputError:
            continue
        readable.append(name)
    return tuple(readable) or tuple(names[:1])


def _compare_instants(
    table: FileTable,
    columns: Mapping[str, pa.ChunkedArray],
    row_numbers: Sequence[int],
    comparison: _Comparison,
) -> None:
    times = {
        name: cells.to_timestamps(_place(table, name), column) for name, column in columns.items()
    }
    days = {name: pc.floor_temporal(moments, unit="day") for name, moments in times.items()}
    for name, moments in times.items():
        if moments.null_count < len(moments):
            comparison.usable.add(name)
        if pc.any(pc.not_equal(moments, days[name])).as_py():
            comparison.exact.add(name)
    for pair in combinations(columns, 2):
        first, second = pair
        differs = _differ(days[first], days[second], pc.equal(days[first], days[second]))
        _note(comparison.differences, pair, table, columns, row_numbers, differs)
        distance = pc.abs(
            pc.subtract(times[first].cast(pa.int64()), times[second].cast(pa.int64()))
        )
        is_close = pc.less(distance, CLOSE_MICROSECONDS)
        differs = _differ(times[first], times[second], is_close)
        _note(comparison.moments, pair, table, columns, row_numbers, differs)


def _compare_cells(
    table: FileTable,
    columns: Mapping[str, pa.ChunkedArray],
    row_numbers: Sequence[int],
    comparison: _Comparison,
    role: cells.Role,
) -> None:
    texts = {name: cells.to_texts(_place(table, name), column) for name, column in columns.items()}
    for name, column in texts.items():
        if column.null_count < len(column):
            comparison.usable.add(name)
    for pair in combinations(columns, 2):
        first, second = (texts[name] for name in pair)
        is_equal = pc.equal(first, second)
        if role == "number":
            is_equal = pc.or_(is_equal, _are_close(first, second, 1.0))
        _note(
            comparison.differences,
            pair,
            table,
            columns,
            row_numbers,
            _differ(first, second, is_equal),
        )


def _differ(
    first: pa.ChunkedArray, second: pa.ChunkedArray, is_equal: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Return the rows in which one value is missing, or both are there and not equal."""
    is_missing = pc.xor(pc.is_null(first), pc.is_null(second))
    return pc.or_(is_missing, pc.fill_null(pc.invert(is_equal), fill_value=False))


def _are_close(first: pa.ChunkedArray, second: pa.ChunkedArray, factor: float) -> pa.ChunkedArray:
    """Return the rows in which `first` times `factor` is `second`; False for no number."""
    scaled, other = pc.multiply(_floats(first), factor), _floats(second)
    limit = pc.multiply(pc.abs(other), CLOSE_RATIO)
    return pc.fill_null(pc.less_equal(pc.abs(pc.subtract(scaled, other)), limit), fill_value=False)


def _floats(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    is_number = pc.match_substring_regex(
        texts, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$"
    )
    return pc.if_else(is_number, texts, pa.scalar(None, pa.string())).cast(pa.float64())


def _note(
    differences: dict[tuple[str, str], _Difference],
    pair: tuple[str, str],
    table: FileTable,
    columns: Mapping[str, pa.ChunkedArray],
    row_numbers: Sequence[int],
    differs: pa.ChunkedArray,
) -> None:
    """Add the first row in which a pair differs, unless an earlier batch had one."""
    if pair in differences:
        return
    row = pc.index(differs, value=True).as_py()
    if row >= 0:
        first, second = (
            cells.to_texts(_place(table, name), columns[name].slice(row, 1))[0].as_py()
            for name in pair
        )
        differences[pair] = _Difference(row_numbers[row], (first, second))


def _choose(table: FileTable, column: str, names: Sequence[str], comparison: _Comparison) -> str:
    """Return the column to use for one of ours."""
    usable = [name for name in names if name in comparison.usable] or list(names[:1])
    for pair in combinations(usable, 2):
        are_exact = set(pair) <= comparison.exact
        differences = comparison.moments if are_exact else comparison.differences
        if pair in differences:
            raise _error(table, column, pair, differences[pair])
    return next((name for name in usable if name in comparison.exact), usable[0])


def _error(
    table: FileTable, column: str, pair: tuple[str, str], difference: _Difference
) -> InputError:
    first, second = (
        "no value" if text is None else repr(text[:MAX_QUOTED_CHARACTERS])
        for text in difference.texts
    )
    return InputError(
        f"{table.path} has the columns {format_names(pair[:1])} and {format_names(pair[1:])}, and"
        f" either may be {column}; row {difference.row_number:,} has {first} in one and {second} in"
        f" the other. Remove the column that is not {column}, or rename it"
    )


def _place(table: FileTable, column: str) -> str:
    return f"column {column} of {table.path}"
