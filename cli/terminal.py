"""Prints for a person: results on standard output, progress and log lines on standard error.

With `--json` standard output has one JSON document and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from common.errors import shorten_message
from common.events import is_in_result
from common.jobs import JOBS
from common.plain_text import on_one_line, without_controls
from common.quantities import age, duration, file_size


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


# Characters of a line in a pipe, which has no width of its own
TABLE_WIDTH = 100


out = PlainConsole(highlight=False, width=None if sys.stdout.isatty() else TABLE_WIDTH)
err = ProgressConsole(stderr=True, highlight=False)

# Spaces between two columns of a table: Rich pads each cell by one on either side
COLUMN_GAP = 2
# Characters that a column keeps however narrow the console is
LEAST_WIDTH = 8

# Loggers of YieldSpark's own packages, among them those of the jobs
PRODUCT_LOGGERS = (
    *sorted({job.package for job in JOBS}),
    "database",
    "monitoring",
    "reporting",
    "spark",
    "local_runtime",
    "cli",
    "workflows",
)


class _StderrHandler(logging.Handler):
    """Prints each record as one dim line on standard error, and warnings in yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        line = on_one_line(shorten_message(record.getMessage()))
        # one record is one line, however wide: a log is searched by line
        err.print(f"  {line}", style=style, markup=False, soft_wrap=True)


def show_logs() -> None:
    """Send YieldSpark's records from INFO to standard error; others go to the log file only."""
    # records of libraries from INFO (py4j, MLflow, urllib3) would fill the log file
    logging.getLogger().setLevel(logging.WARNING)
    handler = _StderrHandler()
    # results and errors are printed on their own
    handler.addFilter(lambda record: not is_in_result(record))
    for name in PRODUCT_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(handler)
    logging.captureWarnings(capture=True)


def print_json(document: object) -> None:
    """Print the JSON document of a command.

    Raises:
        ValueError: the document has NaN or an infinity, which JSON does not have.
    """
    # not by the console, which would wrap long lines
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
    """Print names and values in two columns; values with a unit in their name as `format_field`."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    # a path that is cut is of no use: it continues on the next line
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        label, text = format_field(name, value)
        grid.add_row(Text(on_one_line(label), style="dim"), Text(on_one_line(text)))
    out.print(grid)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None
) -> None:
    """Print rows as a table that fits the console.

    Numbers are aligned to the right and always whole. If the rest does not fit, sentences are
    wrapped and single words end in `…`, but for the first column: it has the id that the next
    command may need.
    """
    texts = [list(map(_cell_text, row)) for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    widths = _column_widths(columns, texts, out.width)
    for number, (heading, width) in enumerate(zip(columns, widths, strict=True)):
        is_word = not any(" " in row[number] for row in texts)
        table.add_column(
            on_one_line(heading),
            justify="right" if _is_numeric(texts, number) else "left",
            width=width,
            no_wrap=is_word,
            overflow="ellipsis" if is_word else "fold",
        )
    for row in texts:
        table.add_row(*map(Text, row))
    out.print(table)


class Lines(list[str]):
    """Several lines of one cell."""


def _cell_text(value: object) -> str:
    # a line end in a name would begin another row
    lines = value if isinstance(value, Lines) else [format_cell(value)]
    return "\n".join(map(on_one_line, lines))


# a number, also with a currency, a magnitude or a percent sign, or the dash of an unknown one
NUMBER = re.compile(r"[-−+$]*\d[\d,.]*(e[-+]\d+)?[KMBT]?( %)?|[-–]")


def _is_numeric(texts: Sequence[Sequence[str]], column: int) -> bool:
    return bool(texts) and all(NUMBER.fullmatch(row[column]) for row in texts)


def _column_widths(
    columns: Sequence[str], texts: Sequence[Sequence[str]], console_width: int
) -> list[int]:
    """Return the widths of columns that together fit the console, if LEAST_WIDTH allows it."""
    widths = [cell_len(heading) for heading in columns]
    for row in texts:
        widths = [max(width, cell_len(text)) for width, text in zip(widths, row, strict=True)]
    # Rich would also shorten numbers, and a number without its end looks like another number
    narrowable = [number for number in range(1, len(columns)) if not _is_numeric(texts, number)]
    room = console_width - COLUMN_GAP * (len(columns) - 1)
    while sum(widths) > room and narrowable:
        widest = max(narrowable, key=lambda number: widths[number])
        if widths[widest] <= LEAST_WIDTH:
            break
        widths[widest] -= 1
    return widths


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


# an id is no quantity: without separators it can be copied into the next command
def _record_values(record: Mapping[str, Any], keys: Iterable[str]) -> list[object]:
    return [str(record[key]) if key == "id" else record[key] for key in keys]


# Ending of a payload's key, the ending that people read, and the text of a value
UNITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "age_seconds": ("age", age),
    "seconds": ("duration", duration),
    "bytes": ("size", file_size),
}


def format_field(name: str, value: object) -> tuple[str, str]:
    """Return label and text of a payload's entry: the text has the unit, so the label has none."""
    if isinstance(value, int | float):
        for ending, (label, text) in UNITS.items():
            if name == ending or name.endswith(f"_{ending}"):
                return name.removesuffix(ending) + label, text(value)
    return name, format_value(value)


def format_cell(value: object) -> str:
    """Return a value of a table: as `format_value`, and times to the minute in UTC."""
    if isinstance(value, datetime) and value.tzinfo:
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return format_value(value)


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
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "-"
    return str(value)


def _format_float(value: float) -> str:
    if abs(value) >= 100_000:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"


def say(line: str) -> None:
    """Print a line of progress on standard error."""
    err.print(f"  {on_one_line(shorten_message(line))}", style="dim", markup=False, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title of a step on standard error, and its duration at the end."""
    err.print(f"[bold]{title}[/bold]")
    began = time.monotonic()
    yield
    err.print(f"  [green]done[/green] in {duration(time.monotonic() - began)}")


def print_run(row: Mapping[str, Any]) -> None:
    """Print a ledger row, or the plan of a dry run."""
    if "plan" in row:
        print_plan(row)
        return
    # failed checks are printed below; the others and their figures are in `--json`
    hidden = {"checks", "jvm_started"}
    pairs = {name: value for name, value in row.items() if name not in hidden and value is not None}
    if "rows" in pairs:
        pairs["rows"] = row_counts(pairs["rows"])
    if "stages" in pairs:
        pairs["stages"] = {name: duration(spent) for name, spent in pairs["stages"].items()}
    print_pairs(pairs)
    failed = [check for check in row.get("checks") or [] if not check.get("passed", True)]
    for check in failed:
        out.print(
            Text(f"check {check['name']}: {format_value(check.get('found'))}", style="yellow")
        )


def row_counts(rows: Mapping[str, int]) -> str:
    """Return the row counts of a run without those that are 0: `read 5,000, inserted 31`."""
    return format_value({name: number for name, number in rows.items() if number})


def print_plan(document: Mapping[str, Any]) -> None:
    """Print the plan of a dry run: its figures, then one line for each reason if it has reasons."""
    plan = document["plan"]
    # `parts` has a table of its own, and the rest is for programs
    hidden = {"parts", "reasons", "rules", "request", "seen"}
    pairs = {"job": document["job"]}
    for name, value in plan.items():
        if name not in hidden and value not in (None, []):
            pairs[name] = value
    print_pairs(pairs)
    if plan.get("parts"):
        out.print()
        print_records(["reason", "pools", "start", "end", "days"], plan["parts"])
