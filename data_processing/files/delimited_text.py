"""Reads delimited text (CSV): its header and its lines, with all values as text.

UTF-8 with or without a byte-order mark; commas, semicolons, tabs or bars; double quotes. Lines
above the header that are no table (a comment, a web address, Excel's `sep=;`) and lines without any
value are skipped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from common.errors import InputError
from data_processing.files.row_batches import BATCH_ROWS, Batch, RaggedLine

MISSING_TEXTS = frozenset({"", "null", "NULL", "\\N"})
"""Missing values as databases and spreadsheets write them in CSV. `NaN` is kept for the metrics job
to validate.
"""

DELIMITERS = ",;\t|"

MAX_HEADER_CHARACTERS = 1_000_000
MAX_LINES_ABOVE = 20
MAX_HEADER_LINES = 20

ABOVE_A_HEADER = re.compile(r'"?(https?://|www\.)[^\s,;]+"?|#.*|"?sep=.?"?', re.IGNORECASE)
"""Lines above a header: CryptoDataDownload writes its address, R and pandas write comments, Excel
writes the delimiter.
"""

OTHER_QUOTES = re.compile(r"['\u2018-\u201f\u00ab\u00bb].*['\u2018-\u201f\u00ab\u00bb]")
"""Single and typographic quotes, which would become part of pool ids and symbols."""


@dataclass(frozen=True)
class Header:
    """Header of a file.

    Attributes:
        columns: column names.
        delimiter: one of DELIMITERS.
        lines_above: lines before the header.
    """

    columns: tuple[str, ...]
    delimiter: str
    lines_above: int


def read_header(path: Path) -> Header:
    """Read the header of a text file.

    Args:
        path: the file.

    Raises:
        InputError: the file can't be read, is not UTF-8, or has no header line.
    """
    above = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(MAX_HEADER_CHARACTERS)
            while above < MAX_LINES_ABOVE and ABOVE_A_HEADER.fullmatch(line.strip(" \r\n\t,;")):
                above += 1
                line = file.readline(MAX_HEADER_CHARACTERS)
            line = _whole_header(line, file)
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; check its rights") from None
    try:
        # without any delimiter the first of them: a file of one column
        delimiter = max(DELIMITERS, key=lambda sign: len(_split(line, sign)))
        columns = tuple(" ".join(name.split()) for name in _split(line, delimiter))
    except csv.Error as error:
        raise _not_csv(path, above + 1, error) from None
    _refuse_other_quotes(path, "column name", columns)
    if not any(columns):
        raise InputError(
            f"{path} has an empty first line; a header line with the column names is needed"
        )
    return Header(columns, delimiter, above)


def text_batches(path: Path, header: Header) -> Iterator[Batch]:
    """Read the rows of a text file in batches.

    Args:
        path: the file.
        header: its header, of `read_header`.

    Yields:
        Batches of at most BATCH_ROWS rows; a row number is the number of the row's last line.

    Raises:
        InputError: the text is not UTF-8, a quote is left open, or the first row has other quotes.
    """
    width = len(header.columns)
    numbers: list[int] = []
    rows: list[list[str]] = []
    ragged: list[RaggedLine] = []
    try:
        # newline="": the csv module handles line ends inside quotes itself
        with path.open(encoding="utf-8-sig", newline="") as file:
            for _ in range(header.lines_above):
                file.readline()
            # strict: else an open quote takes the rest of the file as one value; and a blank before
            # an opening quote would make the quotes part of the value
            reader = csv.reader(
                file, delimiter=header.delimiter, strict=True, skipinitialspace=True
            )
            next(reader)
            for number, values in enumerate(reader):
                if number == 0:
                    _refuse_other_quotes(path, "value", values)
                # line_num, because a quoted value may have several lines
                line = header.lines_above + reader.line_num
                if len(values) == width and any(values):
                    numbers.append(line)
                    rows.append(values)
                elif any(values):
                    ragged.append(RaggedLine(line, values))
                if len(rows) + len(ragged) == BATCH_ROWS:
                    yield Batch(numbers, _text_table(header.columns, rows), ragged)
                    numbers, rows, ragged = [], [], []
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from None
    except csv.Error as error:
        raise _not_csv(path, header.lines_above + reader.line_num, error) from None
    yield Batch(numbers, _text_table(header.columns, rows), ragged)


def _refuse_other_quotes(path: Path, part: str, values: Sequence[str]) -> None:
    quoted = next((value for value in values if OTHER_QUOTES.fullmatch(value)), None)
    if quoted:
        raise InputError(
            f"{path} has the {part} {quoted[:30]} in quotes that are not double quotes: quote its"
            ' values with ", or not at all'
        )


def _whole_header(line: str, file: TextIO) -> str:
    """Return the header with its further lines, if a quoted name has several."""
    header = line
    for _ in range(MAX_HEADER_LINES):
        if header.count('"') % 2 == 0:
            return header
        header += file.readline(MAX_HEADER_CHARACTERS)
    return line  # the quote is left open, and reading the rows reports it


def _split(header: str, delimiter: str) -> list[str]:
    lines = io.StringIO(header, newline="")
    return next(csv.reader(lines, delimiter=delimiter, skipinitialspace=True), [])


def _text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    by_column = zip(*rows, strict=True) if rows else ([] for _ in columns)
    arrays = [_text_array(values) for values in by_column]
    return pa.Table.from_arrays(arrays, names=list(columns))


def _text_array(values: Sequence[str]) -> pa.Array:
    return pa.array([None if value in MISSING_TEXTS else value for value in values], pa.string())


def _not_csv(path: Path, line: int, error: csv.Error) -> InputError:
    return InputError(
        f"{path}, line {line}, is not CSV: {error}. Is a quote left open? Correct that line"
    )


def _not_text(path: Path, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start : error.start + 1]
    return InputError(
        f"{path} is neither Parquet nor UTF-8 text: byte {error.start} is {byte!r}; save it as CSV"
        " in UTF-8"
    )
