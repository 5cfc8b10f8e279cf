"""The last line of defence of a command line: every error becomes one sentence on stderr, one
document for `--json`, and an exit code.

Exit codes: 0 good, 1 the job failed, 2 wrong use or configuration, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from rich.text import Text
from typer.exceptions import TyperException
from typer.rich_utils import rich_format_error

from cli.context import end_recording
from cli.terminal import err, print_json
from common.errors import (
    MAX_MESSAGE_CHARACTERS,
    ConfigurationError,
    Interrupted,
    YieldSparkError,
    exit_code,
    full_message,
    shorten_message,
    summarize_error,
)
from common.interrupts import END_SECONDS, end_if_interrupted, end_on_signal
from common.logging_setup import traceback_logger
from common.plain_text import without_credentials

Failure = Callable[[BaseException, list[str]], Any]
"""Makes the `--json` document of an error; takes the words of the command line that are no options
too.
"""


def run_application(
    app: typer.Typer,
    failure: Failure,
    *,
    prog_name: str | None = None,
    end_seconds: float | None = END_SECONDS,
) -> NoReturn:
    """Run the command of `sys.argv` and exit with its code.

    Args: prog_name stands in usage lines; end_seconds is as `interrupts.end_on_signal` takes it.
    """
    with end_on_signal(lambda: _report(KeyboardInterrupt(), failure), end_seconds=end_seconds):
        try:
            code = app(standalone_mode=False, prog_name=prog_name)
            if code == Interrupted.exit_code:
                code = _report(
                    KeyboardInterrupt(), failure
                )  # Typer ends an interrupted command with this code and without a word
        except TyperException as error:
            error.message = shorten_message(error.message)
            rich_format_error(error)  # type: ignore[arg-type]
            code = _report(ConfigurationError(str(error)), failure, said=True)
        except (Exception, KeyboardInterrupt) as error:
            code = _report(error, failure)
    end_recording(keep=not code)
    end_if_interrupted(code if isinstance(code, int) else 0)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: BaseException, failure: Failure, *, said: bool = False) -> int:
    """Say what went wrong and where the traceback is; returns the exit code. Without a log file the
    traceback of an error that is none of the product's is said too.

    Args: said where stderr has the sentence already.
    """
    code, sentence, whole = exit_code(error), summarize_error(error), full_message(error)
    files = _log_files()
    if not files and not isinstance(error, YieldSparkError | KeyboardInterrupt):
        sys.stderr.write(without_credentials("".join(traceback.format_exception(error))))
    if not said:
        err.print("[red]error:[/red]", Text(sentence), soft_wrap=True)
    if files:
        traceback_logger.error("%s", max(sentence, whole, key=len), exc_info=error)
        files = _log_files()  # none any more where the disk is full
    if files and len(whole) > MAX_MESSAGE_CHARACTERS:
        err.print(Text(f"the whole message is in {files[0]}", style="dim"), soft_wrap=True)
    if files and code == 1:
        err.print(Text(f"the traceback is in {files[0]}", style="dim"), soft_wrap=True)
    if "--json" in sys.argv:
        print_json(
            failure(error, [argument for argument in sys.argv[1:] if not argument.startswith("-")])
        )
    return code


def _log_files() -> list[str]:
    return [
        handler.baseFilename
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.FileHandler)
    ]
