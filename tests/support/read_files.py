"""Files as a load reads them, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_processing.ingest.loading.files_to_load import FileToLoad, inspect_file


def write_file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def inspect_path(path: Path, **options: Any) -> FileToLoad:
    return inspect_file(path, options.get("kind"), options.get("symbol"), options.get("given"))


def columns(path: Path, **options: Any) -> Mapping[str, list[Any]]:
    """The columns that a load copies into the temporary table."""
    file = inspect_path(path, **options)
    batches = [file.incoming(batch) for batch in file.table.batches()]
    return dict(pa.concat_tables(batches).to_pydict())
