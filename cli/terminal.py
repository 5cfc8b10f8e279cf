"""How the command line speaks: results on stdout, progress and logs on stderr, the whole story with
tracebacks in the log file.

With `--json` stdout holds one JSON document and nothing else. Exit codes: 0 good, 1 the job failed,
2 wrong use or configuration, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
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

from common.errors import shortened
from common.plain_text import on_one_line, without_controls


class PlainConsole(Console):
    """A console that prints control characters of its texts as replacement characters; Rich's own
    styles and cursor movements stay.
    """

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            segment
            if segment.control
            else Segment(without_controls(segment.text), segment.style, segment.control)
            for segment in buffer
        )


# a pipe has no width: Rich would cut tables at 80
out = PlainConsole(highlight=False, width=None if sys.stdout.isatty() else 160)
err = PlainConsole(stderr=True, highlight=False)

OUR_LOGGERS = (
    "data_processing",
    "forecasting",
    "database",
    "reporting",
    "spark",
    "local_runtime",
    "cli",
    "workflows",
)


class _StderrHandler(logging.Handler):
    """One dim line on stderr for each record; warnings stand out."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        line = on_one_line(shortened(record.getMessage()))
        err.print(f"  {line}", style=style, markup=False, soft_wrap=True)


def show_logs() -> None:
    """Our own records from INFO to stderr; what else there is goes to the log file alone."""
    logging.getLogger().setLevel(logging.WARNING)
    to_stderr = _StderrHandler()
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(to_stderr)
    logging.captureWarnings(capture=True)


def print_json(document: object) -> None:
    """The one JSON document of a command. NaN is not JSON: it is an error here and not a surprise
    for the reader.
    """
    sys.stdout.write(json.dumps(document, default=json_value, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def json_value(value: object) -> object:
    """Return the JSON form of a date or a path. Raises: TypeError for any other type."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def print_pairs(pairs: Mapping[str, object]) -> None:
    """A two-column listing of what a command found or did."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        grid.add_row(Text(name, style="dim"), Text(shown(value)))
    out.print(grid)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None
) -> None:
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    out.print(table)


def shown(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(inner)}" for name, inner in value.items()) or "-"
    return str(value)


def say(line: str) -> None:
    """A line of progress on stderr."""
    err.print(f"  {shortened(line)}", style="dim", markup=False, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """A named step on stderr with the seconds it took."""
    err.print(f"[bold]{title}[/bold]")
    began = time.monotonic()
    yield
    err.print(f"  [green]done[/green] in {time.monotonic() - began:.1f} s")


def print_run(row: Mapping[str, Any]) -> None:
    """A ledger row, or the plan of a dry run, for a person."""
    if "plan" in row:
        print_plan(row)
        return
    hidden = {"checks", "jvm_started"}
    print_pairs(
        {name: value for name, value in row.items() if name not in hidden and value is not None}
    )
    failed = [check for check in row.get("checks") or [] if not check.get("passed", True)]
    for check in failed:
        out.print(Text(f"check {check['name']}: {shown(check.get('found'))}", style="yellow"))


def print_plan(document: Mapping[str, Any]) -> None:
    """What a dry run would do: its figures, then a line for each reason where the job names its
    reasons.
    """
    plan = document["plan"]
    hidden = {"parts", "reasons", "rules", "request", "seen"}
    print_pairs(
        {
            "job": document["job"],
            **{
                name: value
                for name, value in plan.items()
                if name not in hidden and value not in (None, [])
            },
        }
    )
    if plan.get("parts"):
        columns = ["reason", "pools", "start", "end", "days"]
        out.print()
        print_table(columns, [[part[column] for column in columns] for part in plan["parts"]])
