"""The last line of defence of the command line: every error becomes one sentence on stderr, one document for `--json`, and an exit code.

Exit codes: 0 good, 1 the job failed, 2 wrong use or configuration, 130 interrupted.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

from rich.text import Text
from typer.exceptions import TyperException
from typer.rich_utils import rich_format_error

from command_line import commands, database_commands, forecast_commands, model_commands, quarantine_commands  # noqa: F401 - importing puts the commands on the application
from command_line.app import app
from command_line.terminal import err, print_json
from command_line.workplace import end_recording
from database.run_document import failure_document
from job_log import FAILURES
from product_errors import ConfigurationError, Interrupted, exit_code, one_sentence

JOBS = {
    "calculate_metrics": "calculate_pool_metrics",
    "forecast_pools": "forecast_pools",
    "ingest": "ingest",
    "quarantine drop": "drop_quarantine",
    "quarantine replay": "replay_quarantine",
}
"""The ledger's job of each command that has one."""


def main() -> NoReturn:
    """Entry of `run_spark_local.py`."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False)
        if code == Interrupted.exit_code:
            code = _report(KeyboardInterrupt())  # Typer ends an interrupted command with this code and without a word
    except TyperException as error:
        rich_format_error(error)  # type: ignore[arg-type]
        code = _report(ConfigurationError(str(error)), said=True)
    except Exception as error:
        code = _report(error)
    end_recording(keep=not code)
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _report(error: BaseException, *, said: bool = False) -> int:
    """Say what went wrong and where the traceback is; returns the exit code. Args: said where stderr has the sentence already."""
    code, sentence = exit_code(error), one_sentence(error)
    files = [handler.baseFilename for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    if not said:
        err.print("[red]error:[/red]", Text(sentence), soft_wrap=True)
    if files:
        FAILURES.error("%s", sentence, exc_info=error)
    if files and code == 1:
        err.print(Text(f"the traceback is in {files[0]}", style="dim"), soft_wrap=True)
    if "--json" in sys.argv:
        words = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        print_json(failure_document(error, JOBS.get(words[0] if words else "") or JOBS.get(" ".join(words[:2]))))
    return code
