"""The last line of defence of the command line: every error becomes one sentence on stderr and an exit code.

Exit codes: 0 good, 1 the job failed, 2 wrong use or configuration, 130 interrupted.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer
from rich.text import Text
from typer.exceptions import TyperException
from typer.rich_utils import rich_format_error

from command_line import commands, database_commands  # noqa: F401 - importing puts the commands on the application
from command_line.app import app
from command_line.terminal import err, print_json
from product_errors import Interrupted, YieldSparkError, one_sentence

failures = logging.getLogger("yieldspark.failures")  # goes to the log file alone: stderr gets the sentence


def main() -> NoReturn:
    """Entry of `run_spark_local.py`: run the command, turn every error into one sentence and its exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        code = _report_wrong_use(error)
    except typer.Abort:
        code = Interrupted.exit_code
    except YieldSparkError as error:
        code = _report(error, str(error), error.exit_code)
    except Exception as error:  # the last line of defence: one sentence here, the traceback in the log file
        code = _report(error, one_sentence(error), 1)
    sys.exit(code if isinstance(code, int) else 0)


def _report_wrong_use(error: TyperException) -> int:
    """Typer shows it as it shows its own: usage, the wrong option and what is allowed; exit 2."""
    rich_format_error(error)  # type: ignore[arg-type]
    return int(getattr(error, "exit_code", 2))


def _terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _report(error: BaseException, sentence: str, code: int) -> int:
    from database.run_ledger import failed_row

    err.print("[red]error:[/red]", Text(sentence), soft_wrap=True)
    files = [handler.baseFilename for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    if files:
        failures.error("%s", sentence, exc_info=error)
    if files and code == 1:
        err.print(Text(f"the traceback is in {files[0]}", style="dim"), soft_wrap=True)
    if "--json" in sys.argv:
        print_json(failed_row(error) or {"status": "cancelled" if code == Interrupted.exit_code else "failed", "error": sentence})
    return code
