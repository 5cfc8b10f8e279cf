"""Runs a Typer application: turns every error into a sentence on standard error and an exit code.

Exit codes: 0 success, 1 the job failed, 2 wrong use or configuration, 130 interrupted. With
`--json` a failed command prints a JSON document too.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from cli.context import end_recording
from cli.output import OUTPUT
from common.errors import (
    ConfigurationError,
    EnvironmentNotReady,
    Interrupted,
    exit_code,
    shorten_message,
)
from common.interrupts import END_SECONDS, end_if_interrupted, end_on_signal, ignore_signals

# Makes the `--json` payload of an error from the error and the arguments that are no options
FailurePayload = Callable[[BaseException, list[str]], Any]


def run_application(
    app: typer.Typer,
    failure: FailurePayload,
    *,
    prog_name: str | None = None,
    end_seconds: float | None = END_SECONDS,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Run a command and exit with its code.

    Args:
        app: the application that has the command.
        failure: makes the `--json` payload of an error.
        prog_name: name of the program in usage lines.
        end_seconds: seconds from a signal to the end of the process, as for
            `interrupts.end_on_signal`.
        arguments: the command line (default: that of `sys.argv`).
    """
    command_line = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # a character that the encoding of the terminal lacks must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def report(error: BaseException, *, is_printed: bool = False) -> int:
        OUTPUT.get().print_failure(error, is_printed=is_printed)
        if "--json" in command_line:
            positional = [argument for argument in command_line if not argument.startswith("-")]
            # a full disk below standard output may be the error itself
            with suppress(OSError):
                OUTPUT.get().print_json(failure(error, positional))
        return exit_code(error)

    code: object = Interrupted.exit_code
    try:
        with end_on_signal(lambda: report(KeyboardInterrupt()), end_seconds=end_seconds):
            try:
                _require_current_folder()
                # Typer's own handling would end the process without the JSON document of an error
                code = app(command_line, standalone_mode=False, prog_name=prog_name)
                if code == Interrupted.exit_code:
                    # Typer ends an interrupted command with this code and without a message
                    code = report(KeyboardInterrupt())
            except TyperException as error:
                error.message = shorten_message(error.message)
                OUTPUT.get().print_usage_error(error)
                code = report(ConfigurationError(str(error)), is_printed=True)
            except (Exception, KeyboardInterrupt) as error:
                code = report(error)
        end_recording(keep=not code)
    except KeyboardInterrupt:
        # it came after the result was printed, or while an error was: the code is final
        ignore_signals()
        end_recording(keep=False)
    ignore_signals()
    end_if_interrupted(code if isinstance(code, int) else 0)
    # without `standalone_mode` Typer returns what the command returns, which is None
    sys.exit(code if isinstance(code, int) else 0)


def _require_current_folder() -> None:
    """Raise EnvironmentNotReady if the current folder was deleted, which relative paths need."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise EnvironmentNotReady(
            "the current folder does not exist any more: change to another one (cd)"
        ) from None
