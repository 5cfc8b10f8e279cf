"""Where a run's whole story goes: one log file in the user's folder, with every traceback; stderr
gets sentences.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from common.errors import EnvironmentNotReady, file_problem
from common.plain_text import on_one_line, without_controls, without_credentials
from common.private_files import private_folder, private_opener

log = logging.getLogger(__name__)

FAILURES = logging.getLogger("yieldspark.failures")
"""Tracebacks: they belong into the log file, and onto stderr only where there is no file."""

LOG_FILE_BYTES = 5_000_000


class LineFormatter(logging.Formatter):
    """One line a record, whatever is in its values; a traceback follows on lines of its own. The
    passwords of addresses are hidden.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # the formatter of another handler may have left its own text of the traceback here
        others, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = others

    def formatMessage(self, record: logging.LogRecord) -> str:
        return on_one_line(without_credentials(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:
        return without_controls(without_credentials(super().formatException(ei)))


class _PrivateFile(logging.FileHandler):
    """A full disk ends the file and not the run: the rest of the run's story is on stderr alone."""

    def _open(self) -> TextIOWrapper:
        # the handler closes it
        raw = open(self.baseFilename, f"{self.mode}b", opener=private_opener)  # noqa: SIM115
        return TextIOWrapper(raw, encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        self.close()
        log.warning(
            "%s can't be written any more: %s. The run goes on without it",
            self.baseFilename,
            file_problem(error),
        )

    def close(self) -> None:
        # what is still in its buffer has no place
        with suppress(OSError):
            super().close()


def add_log_file(home: Path) -> Path:
    """Log every record to `logs/yieldspark.log` in `home` too; a large file is begun anew.

    Returns: the path of the log file. Raises: EnvironmentNotReady if it cannot be written.
    """
    path = home / "logs" / "yieldspark.log"
    try:
        private_folder(path.parent)
        handler = _PrivateFile(
            path,
            mode="w" if path.exists() and path.stat().st_size > LOG_FILE_BYTES else "a",
            encoding="utf-8",
        )
    except OSError as error:
        raise EnvironmentNotReady(
            f"{error.filename or path} can't be written: {file_problem(error)}, or set"
            " YIELDSPARK_HOME"
        ) from error
    handler.setFormatter(LineFormatter())
    logging.getLogger().addHandler(handler)
    return path


def only_sentences(record: logging.LogRecord) -> bool:
    """Filter of a stderr handler that stands beside a log file: no tracebacks, a library's
    neither.
    """
    return record.name != FAILURES.name and not record.exc_info
