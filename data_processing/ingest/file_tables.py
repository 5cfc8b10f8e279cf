"""A Parquet or CSV file as a stream of Arrow tables, with a number for every row.

In: a path. Out: the file's column names, and batches of rows; a Parquet row has its number from 1,
a CSV row the number of its line. CSV may have a byte-order mark and commas, semicolons or tabs; its
values stay text. No column's meaning is known here, nothing is converted or dropped: a CSV line
with too many or too few values comes out as a `RaggedLine`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from product_errors import InputError

BATCH_ROWS = 65_536
"""Bounds memory: a file of any size passes through in pieces of some megabytes."""

MISSING_TEXTS = frozenset({"", "null", "NULL", "\\N"})
"""How databases and spreadsheets write a missing value in CSV. `NaN` is no such text: it is kept
and judged by the metrics job.
"""

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class RaggedLine:
    """A CSV line whose number of values is not the header's."""

    row_number: int
    values: Sequence[str]


@dataclass(frozen=True)
class Batch:
    """Rows as they came: `row_numbers[i]` belongs to row i of `table`."""

    row_numbers: Sequence[int]
    table: pa.Table
    ragged: Sequence[RaggedLine] = ()


@dataclass(frozen=True)
class FileTable:
    """A file that can be read: its format and the names of its columns."""

    path: Path
    columns: tuple[str, ...]
    is_parquet: bool
    delimiter: str = ","

    def batches(self) -> Iterator[Batch]:
        """The rows in the order of the file. Raises: InputError where it turns out to be damaged
        half-way.
        """
        return _parquet_batches(self.path) if self.is_parquet else _csv_batches(self)


def open_file(path: Path) -> FileTable:
    """Look at a file's head.

    Raises: InputError for a missing file, a folder, an empty file, a damaged Parquet file, a text
    file that is not UTF-8.
    """
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, and a Parquet or CSV file is needed; name its files, e.g."
            f" {path}/*.parquet"
        )
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; check its rights") from None
    if not head:
        raise InputError(
            f"{path} is empty (0 bytes); a Parquet file, or a CSV file with a header line, is"
            " needed"
        )
    is_parquet = head == b"PAR1" or path.suffix.lower() in {".parquet", ".pq"}
    return _open_parquet(path) if is_parquet else _open_csv(path)


def _open_parquet(path: Path) -> FileTable:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    return FileTable(path, tuple(schema.names), is_parquet=True)


def _parquet_batches(path: Path) -> Iterator[Batch]:
    first = 1
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield Batch(range(first, first + batch.num_rows), pa.Table.from_batches([batch]))
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is not a whole Parquet file: {' '.join(str(error).split())}. Was the download or"
        " copy cut short? Fetch it again"
    )


def _open_csv(path: Path) -> FileTable:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(1_000_000)
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from None
    delimiter = max(DELIMITERS, key=line.count)
    columns = tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter), []))
    if not any(columns):
        raise InputError(
            f"{path} has an empty first line; a header line with the column names is needed"
        )
    return FileTable(path, columns, is_parquet=False, delimiter=delimiter)


def _csv_batches(file_table: FileTable) -> Iterator[Batch]:
    width = len(file_table.columns)
    numbers: list[int] = []
    rows: list[list[str]] = []
    ragged: list[RaggedLine] = []
    try:
        with file_table.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=file_table.delimiter, strict=True)
            next(reader)
            for values in reader:
                if len(values) == width:
                    numbers.append(reader.line_num)
                    rows.append(values)
                elif values:
                    ragged.append(RaggedLine(reader.line_num, values))
                if len(rows) + len(ragged) == BATCH_ROWS:
                    yield Batch(numbers, _text_table(file_table.columns, rows), ragged)
                    numbers, rows, ragged = [], [], []
    except UnicodeDecodeError as error:
        raise _not_text(file_table.path, error) from None
    except csv.Error as error:
        raise InputError(
            f"{file_table.path}, line {reader.line_num}, is not CSV: {error}. Is a quote left open?"
            " Mend that line"
        ) from None
    yield Batch(numbers, _text_table(file_table.columns, rows), ragged)


def _text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    by_column = zip(*rows, strict=True) if rows else ([] for _ in columns)
    arrays = [
        pa.array([None if value in MISSING_TEXTS else value for value in values], pa.string())
        for values in by_column
    ]
    return pa.Table.from_arrays(arrays, names=list(columns))


def _not_text(path: Path, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start : error.start + 1]
    return InputError(
        f"{path} is neither Parquet nor UTF-8 text: byte {error.start} is {byte!r}; save it as CSV"
        " in UTF-8"
    )
