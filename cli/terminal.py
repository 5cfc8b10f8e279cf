"""Prints for a person: results on standard output, progress and log lines on standard error.

With `--json` standard output has one JSON document and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from common.errors import shorten_message
from common.jobs import JOBS
from common.plain_text import on_one_line, without_controls


class PlainConsole(Console):
    """A console that replaces control characters in texts, but not Rich's own styles."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            segment
            if segment.control
            else Segment(without_controls(segment.text), segment.style, segment.control)
            for segment in buffer
        )


class ProgressConsole(PlainConsole):
    """Standard error, which ends without an error if its disk is full: a run of hours does not fail
    for a line of progress.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self._buffer.clear()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stderr.fileno())
            os.close(null)


# a pipe has no width: Rich would cut tables at 80
out = PlainConsole(highlight=False, width=None if sys.stdout.isatty() else 160)
err = ProgressConsole(stderr=True, highlight=False)

PRODUCT_LOGGERS = (
    *sorted({job.package for job in JOBS}),
    "database",
    "reporting",
    "spark",
    "local_runtime",
    "cli",
    "workflows",
)
"""Loggers of YieldSpark's own packages, among them those of the jobs."""


class _StderrHandler(logging.Handler):
    """Prints each record as one dim line on standard error, and warnings in yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        line = on_one_line(shorten_message(record.getMessage()))
        err.print(f"  {line}", style=style, markup=False, soft_wrap=True)


def show_logs() -> None:
    """Send YieldSpark's records from INFO to standard error; others go to the log file only."""
    logging.getLogger().setLevel(logging.WARNING)
    handler = _StderrHandler()
    for name in PRODUCT_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(handler)
    logging.captureWarnings(capture=True)


def print_json(document: object) -> None:
    """Print the JSON document of a command.

    Raises:
        ValueError: the document has NaN or an infinity, which JSON does not have.
    """
    sys.stdout.write(json.dumps(document, default=json_value, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def json_value(value: object) -> object:
    """Return the JSON form of a date, a time or a path.

    Raises:
        TypeError: the value has another type.
    """
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        grid.add_row(Text(name, style="dim"), Text(format_value(value)))
    out.print(grid)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None
) -> None:
    """Print rows as a table; columns of numbers are aligned to the right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(format_value(value)) for value in row))
    out.print(table)


def print_records(
    columns: Mapping[str, str] | Sequence[str],
    records: Iterable[Mapping[str, Any]],
    *,
    title: str | None = None,
) -> None:
    """Print mappings as a table, one row each.

    Args:
        columns: keys of the columns, or keys by the heading to print.
        records: mappings with these keys. Values of `id` are printed without separators.
        title: text above the table.
    """
    headings = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
    rows = [_record_values(record, headings.values()) for record in records]
    print_table(list(headings), rows, title=title)


def _record_values(record: Mapping[str, Any], keys: Iterable[str]) -> list[object]:
    return [str(record[key]) if key == "id" else record[key] for key in keys]


def format_value(value: object) -> str:
    """Return a value as text for a person: thousands separators, `-` for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _format_float(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_value(inner)}" for name, inner in value.items()) or "-"
    return str(value)


def _format_float(value: float) -> str:
    if abs(value) >= 100_000:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"


def say(line: str) -> None:
    """Print a line of progress on standard error."""
    err.print(f"  {shorten_message(line)}", style="dim", markup=False, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title of a step on standard error, and its seconds at the end."""
    err.print(f"[bold]{title}[/bold]")
    began = time.monotonic()
    yield
    err.print(f"  [green]done[/green] in {time.monotonic() - began:.1f} s")


def print_run(row: Mapping[str, Any]) -> None:
    """Print a ledger row, or the plan of a dry run."""
    if "plan" in row:
        print_plan(row)
        return
    hidden = {"checks", "jvm_started"}
    print_pairs(
        {name: value for name, value in row.items() if name not in hidden and value is not None}
    )
    failed = [check for check in row.get("checks") or [] if not check.get("passed", True)]
    for check in failed:
        out.print(
            Text(f"check {check['name']}: {format_value(check.get('found'))}", style="yellow")
        )


def print_plan(document: Mapping[str, Any]) -> None:
    """Print the plan of a dry run: its figures, then one line for each reason if it has reasons."""
    plan = document["plan"]
    hidden = {"parts", "reasons", "rules", "request", "seen"}
    pairs = {"job": document["job"]}
    for name, value in plan.items():
        if name not in hidden and value not in (None, []):
            pairs[name] = value
    print_pairs(pairs)
    if plan.get("parts"):
        out.print()
        print_records(["reason", "pools", "start", "end", "days"], plan["parts"])
