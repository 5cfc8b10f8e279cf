"""Reads a Parquet or CSV file as a stream of Arrow tables, with a number for every row.

A Parquet row has its number from 1, a CSV row the number of its line; CSV values stay text. Does
not know the meaning of a column, and converts and drops nothing: a CSV line with too many or too
few values becomes a `RaggedLine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from common.errors import InputError
from data_processing.files.delimited_text import Header, read_header, text_batches
from data_processing.files.file_formats import HEAD_BYTES, refuse_other_formats
from data_processing.files.parquet_files import parquet_batches, read_schema
from data_processing.files.row_batches import Batch

MAX_LISTED_NAMES, MAX_NAME_CHARACTERS = 12, 30
"""How many column names an error repeats, and how many characters of each."""


@dataclass(frozen=True)
class FileTable:
    """A file that can be read.

    Attributes:
        path: the file.
        columns: column names.
        types: Arrow types of the columns.
        header: header of delimited text; None for Parquet.
        uuids: Parquet columns that are read as UUID text.
    """

    path: Path
    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    header: Header | None = None
    uuids: frozenset[str] = field(default_factory=frozenset)

    @property
    def delimiter(self) -> str | None:
        """Delimiter of the values; None for Parquet."""
        return self.header.delimiter if self.header else None

    def batches(self) -> Iterator[Batch]:
        """Yield the rows in the order of the file.

        Raises:
            InputError: the file is damaged half-way.
        """
        if self.header:
            return text_batches(self.path, self.header)
        return parquet_batches(self.path, self.uuids)


def open_file(path: Path) -> FileTable:
    """Look at a file's head.

    Args:
        path: a Parquet file, or delimited text in UTF-8.

    Raises:
        InputError: the file is missing, empty, damaged, a folder, a pipe, or of another format.
    """
    head = _head(path)
    refuse_other_formats(path, head)
    # by its name too: the error then says that the Parquet file is damaged
    if head.startswith(b"PAR1") or path.suffix.lower() in {".parquet", ".pq"}:
        schema, uuids = read_schema(path)
        return FileTable(path, tuple(schema.names), tuple(schema.types), uuids=uuids)
    header = read_header(path)
    return FileTable(path, header.columns, (pa.string(),) * len(header.columns), header)


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError(
                f"{path} is a folder, and a Parquet or CSV file is needed; name its files, e.g."
                f" {path}/*.parquet"
            )
        # opening a pipe would wait for its writer
        if path.exists() and not path.is_file():
            raise InputError(
                f"{path} is a pipe or a device, and a Parquet or CSV file is needed: save it as a"
                " file first"
            )
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; check its rights") from None
    if not head:
        raise InputError(
            f"{path} is empty (0 bytes); a Parquet file, or a CSV file with a header line, is"
            " needed"
        )
    return head


def format_names(names: Sequence[str]) -> str:
    """Format column names for an error: the first ones, each cut to MAX_NAME_CHARACTERS."""
    listed = [
        name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}..."
        for name in names[:MAX_LISTED_NAMES]
    ]
    more = len(names) - len(listed)
    return ", ".join(listed) + (f" and {more:,} more" if more else "")
