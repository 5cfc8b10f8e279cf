"""Tables of the commands of `python -m workflows`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cli.terminal import print_table


def print_entries(
    columns: Sequence[str], entries: Iterable[Mapping[str, Any]], title: str | None = None
) -> None:
    """Print one row for each entry, with the values of these keys."""
    rows = []
    for entry in entries:
        rows.append([entry[column] for column in columns])
    print_table(columns, rows, title=title)
