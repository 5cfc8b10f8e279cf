"""Reads Parquet files: schema and batches.

Returns Arrow columns as Parquet has them, except UUIDs, which become text: Arrow returns a UUID
column that Arrow did not write as bare bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import InputError
from data_processing.files.row_batches import BATCH_ROWS, Batch

DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)
"""Errors that Arrow raises for a damaged file."""

MAX_QUOTED_CHARACTERS = 150
"""How much of Arrow's message an error repeats."""


def read_schema(path: Path) -> tuple[pa.Schema, frozenset[str]]:
    """Read the schema, with text for a UUID, and the names of the UUID columns.

    Args:
        path: a Parquet file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            arrow, parquet = file.schema_arrow, file.schema
            logical = [parquet.column(number) for number in range(len(parquet))]
    except DAMAGED as error:
        raise _damaged(path, error) from None
    # by Parquet's own annotation: Arrow recognises only UUIDs that it wrote itself
    annotated = {column.path for column in logical if column.logical_type.type == "UUID"}
    uuids = frozenset(
        field.name for field in arrow if field.name in annotated or is_uuid(field.type)
    )
    fields = [
        pa.field(field.name, pa.string()) if field.name in uuids else field for field in arrow
    ]
    return pa.schema(fields), uuids


def parquet_batches(path: Path, uuids: frozenset[str]) -> Iterator[Batch]:
    """Read the rows of a Parquet file in batches.

    Args:
        path: the file.
        uuids: columns to read as UUID text.

    Yields:
        Batches of at most BATCH_ROWS rows.

    Raises:
        InputError: the file is damaged.
    """
    first = 1
    try:
        # the default wraps an INT96 outside the years 1677 to 2262 around silently
        with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                batch.validate(full=True)  # Arrow reads text that is not UTF-8 as it is
                table = _with_uuids_as_text(pa.Table.from_batches([batch]), uuids)
                yield Batch(range(first, first + batch.num_rows), table)
                first += batch.num_rows
    except DAMAGED as error:
        raise _damaged(path, error) from None


def is_uuid(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is Arrow's UUID extension."""
    return bool(getattr(kind, "extension_name", None) == "arrow.uuid")


def _with_uuids_as_text(table: pa.Table, uuids: frozenset[str]) -> pa.Table:
    columns = [
        _uuid_texts(column) if name in uuids else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _uuid_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = []
    for cell in column.to_pylist():
        is_bare = isinstance(cell, bytes)
        texts.append(str(UUID(bytes=cell) if is_bare else cell) if cell is not None else None)
    return pa.chunked_array([pa.array(texts, pa.string())])


def _damaged(path: Path, error: Exception) -> InputError:
    message = " ".join(str(error).split())[:MAX_QUOTED_CHARACTERS].rstrip(".")
    if isinstance(error, pa.ArrowNotImplementedError):
        return InputError(
            f"{path} has what this version of Arrow does not read: {message}. Write its columns as"
            " 64-bit numbers, decimals, text or timestamps"
        )
    return InputError(
        f"{path} is not a whole Parquet file: {message}. Was the download or copy cut short? Fetch"
        " it again"
    )
