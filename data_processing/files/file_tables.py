"""Reads a Parquet or CSV file as a stream of Arrow tables, with a number for every row.

A Parquet row has its number from 1, a CSV row the number of its line; CSV values stay text. Does
not know the meaning of a column, and converts and drops nothing: a CSV line with too many or too
few values becomes a `RaggedLine`.
"""

from __future__ import annotations

import re
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


FileVersion = tuple[int, int, int, int]
"""Device, inode, size in bytes, and time of the last change."""

ADDRESS = re.compile("[a-z][a-z0-9+]+:/", re.IGNORECASE)
"""Beginning of a web address or an object's, of whose two slashes a path keeps one."""


@dataclass(frozen=True)
class FileTable:
    """A file that can be read.

    Attributes:
        path: the file.
        columns: column names.
        types: Arrow types of the columns.
        header: header of delimited text; None for Parquet.
        uuids: Parquet columns that are read as UUID text.
        version: what tells the file from a later one of its name.
    """

    path: Path
    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    version: FileVersion
    header: Header | None = None
    uuids: frozenset[str] = field(default_factory=frozenset)

    @property
    def delimiter(self) -> str | None:
        """Delimiter of the values; None for Parquet."""
        return self.header.delimiter if self.header else None

    def batches(self) -> Iterator[Batch]:
        """Yield the rows in the order of the file.

        Raises:
            InputError: the file is damaged half-way, or is not the file that was opened any more.
        """
        # its kind, columns and decimal signs were found in an earlier reading
        self._require_same_version()
        if self.header:
            yield from text_batches(self.path, self.header)
        else:
            yield from parquet_batches(self.path, self.uuids)
        self._require_same_version()

    def _require_same_version(self) -> None:
        if _version(self.path) != self.version:
            raise InputError(f"{self.path} was changed while it was read: load it again")


def open_file(path: Path) -> FileTable:
    """Look at a file's head.

    Args:
        path: a Parquet file, or delimited text in UTF-8.

    Raises:
        InputError: the file is missing, empty, damaged, a folder, a pipe, or of another format.
    """
    head = _head(path)
    version = _version(path)
    refuse_other_formats(path, head)
    # by its name too: the error then says that the Parquet file is damaged
    if head.startswith(b"PAR1") or path.suffix.lower() in {".parquet", ".pq"}:
        schema, uuids = read_schema(path)
        return FileTable(path, tuple(schema.names), tuple(schema.types), version, uuids=uuids)
    header = read_header(path)
    return FileTable(path, header.columns, (pa.string(),) * len(header.columns), version, header)


def _version(path: Path) -> FileVersion:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; check its rights") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


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
        if ADDRESS.match(str(path)):
            raise InputError(f"{path} is an address: download it, and load the file") from None
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
