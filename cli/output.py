"""The two forms of a command's output: for a person at a terminal, and for the log of a batch.

`OUTPUT` holds the form of this process. `run_application` and the commands of the jobs print
through it, so that one command serves the laptop, spark-submit and a container.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from rich.text import Text
from typer.exceptions import TyperException

from cli import terminal
from common.errors import (
    MAX_MESSAGE_CHARACTERS,
    ConfigurationError,
    exit_code,
    full_message,
    is_expected,
    summarize_error,
)
from common.events import COMMAND_FAILED, log_event
from common.logging_setup import (
    JsonFormatter,
    LineFormatter,
    traceback_logger,
    without_traceback,
)
from common.plain_text import on_one_line, without_controls, without_credentials
from database.ledger.run_json import failed_run

log = logging.getLogger(__name__)


class Output(Protocol):
    """How a command shows its progress, its result and its failure."""

    def show_logs(self, *, as_json: bool) -> None:
        """Send YieldSpark's log records to standard error.

        Args:
            as_json: as lines of JSON, where the form is that of a platform.
        """

    def print_json(self, payload: object) -> None:
        """Print one JSON document on standard output. NaN raises ValueError."""

    def print_run(self, row: Mapping[str, Any]) -> None:
        """Print a ledger row, or the plan of a dry run, for a person."""

    def print_usage_error(self, error: TyperException) -> None:
        """Print an error in the use of the command line."""

    def print_failure(self, error: BaseException, *, is_printed: bool) -> None:
        """Print the sentence of an error, and log its traceback.

        Args:
            error: the error that ended the command.
            is_printed: whether standard error has the sentence already.
        """


class TerminalOutput:
    """Output for a person: colours, tables, and tracebacks in the log file."""

    def show_logs(self, *, as_json: bool) -> None:
        # people read a terminal, in production too
        terminal.show_logs()

    def print_json(self, payload: object) -> None:
        terminal.print_json(payload)

    def print_run(self, row: Mapping[str, Any]) -> None:
        terminal.print_run(row)

    def print_usage_error(self, error: TyperException) -> None:
        # loads Rich's Markdown, which takes as long as all other imports of a command line
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]

    def print_failure(self, error: BaseException, *, is_printed: bool) -> None:
        sentence, whole = summarize_error(error), full_message(error)
        files = _log_files()
        if not files and not is_expected(error):
            # an unexpected error without a log file: its traceback would be lost
            sys.stderr.write(without_credentials("".join(traceback.format_exception(error))))
        if not is_printed:
            terminal.err.print("[red]error:[/red]", Text(sentence), soft_wrap=True)
        if files:
            traceback_logger.error("%s", max(sentence, whole, key=len), exc_info=error)
            # writing the record may have found the disk full, which ends the log file
            files = _log_files()
        if files and len(whole) > MAX_MESSAGE_CHARACTERS:
            self._hint(f"the whole message is in {files[0]}")
        if files and exit_code(error) == 1:
            self._hint(f"the traceback is in {files[0]}")

    def _hint(self, line: str) -> None:
        terminal.err.print(Text(line, style="dim"), soft_wrap=True)


class BatchOutput:
    """Output for the log of a platform: lines with time and level, or lines of JSON in production,
    and the result as one line of JSON.
    """

    def __init__(self) -> None:
        self._is_json = False
        self._handler = logging.StreamHandler(sys.stderr)
        self._handler.setFormatter(LineFormatter())
        self._handler.addFilter(_is_shown)
        logging.getLogger().addHandler(self._handler)
        logging.getLogger().setLevel(logging.INFO)
        # py4j logs each call to the JVM
        logging.getLogger("py4j").setLevel(logging.WARNING)

    def show_logs(self, *, as_json: bool) -> None:
        """Choose the form; records are shown from the start, those of wrong settings too."""
        self._is_json = as_json
        if as_json:
            self._handler.setFormatter(JsonFormatter())
            # production has no log file that could have the traceback instead
            self._handler.removeFilter(_is_shown)

    def print_json(self, payload: object) -> None:
        # one line: a platform makes an entry of its log of each
        line = json.dumps(payload, default=terminal.json_value, allow_nan=False)
        sys.stdout.write(without_controls(line) + "\n")
        sys.stdout.flush()

    def print_run(self, row: Mapping[str, Any]) -> None:
        if self._is_json:
            self.print_json(row)
            return
        sys.stdout.write("\n".join(map(on_one_line, plain_lines(row))) + "\n")
        sys.stdout.flush()

    def print_usage_error(self, error: TyperException) -> None:
        context = getattr(error, "ctx", None)
        if context is not None:
            sys.stderr.write(f"{context.get_usage()}\n")
        sys.stderr.write(f"{without_controls(error.format_message())}\n")

    def print_failure(self, error: BaseException, *, is_printed: bool) -> None:
        if is_printed:
            return
        sentence = summarize_error(error)
        # wrong use needs no traceback in the platform's log; the log file of a laptop has it
        has_traceback = exit_code(error) != ConfigurationError.exit_code or bool(_log_files())
        traceback_logger.error("%s", sentence, exc_info=error if has_traceback else None)
        # the last line is the cause, behind the pages of a traceback
        if self._is_json:
            failed = failed_run(error)
            log_event(log, COMMAND_FAILED, "%s", sentence, run_id=failed and failed[1])
        else:
            sys.stderr.write(f"{sentence}\n")


# The form of this process's output
OUTPUT: ContextVar[Output] = ContextVar("OUTPUT", default=TerminalOutput())  # noqa: B039


def plain_lines(row: Mapping[str, Any]) -> list[str]:
    """Return a ledger row, or the plan of a dry run, as one `key: value` line for each entry.

    A check is shown as its name and its finding.
    """
    entries = {name: value for name, value in row.items() if name != "plan"}
    entries |= row.get("plan") or {}
    if checks := entries.get("checks"):
        entries["checks"] = [f"{check['name']}: {check.get('found')}" for check in checks]
    return [f"{name}: {value}" for name, value in entries.items()]


def _is_shown(record: logging.LogRecord) -> bool:
    """Keep tracebacks from standard error while a log file has them."""
    return not _log_files() or without_traceback(record)


def _log_files() -> list[str]:
    return [
        handler.baseFilename
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.FileHandler)
    ]
