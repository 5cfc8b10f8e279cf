"""Log formats: readable lines on a local machine, JSON lines in production, and the log file.

`logs/yieldspark.log` has every record and traceback, stderr has messages only.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from common.errors import EnvironmentNotReady, describe_file_error
from common.events import record_fields
from common.plain_text import on_one_line, without_controls, without_credentials
from common.private_files import private_folder, private_opener

log = logging.getLogger(__name__)

# Logger for tracebacks, which go to stderr only if there is no log file
traceback_logger = logging.getLogger("yieldspark.failures")

LOG_FILE_BYTES = 5_000_000


class LineFormatter(logging.Formatter):
    """Formats a record as one line, with a traceback on its own lines. Hides passwords of URLs."""

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


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the fields of the record's event.

    `severity`, `message`, `time` and `stack_trace` are the names that Cloud Logging and Error
    Reporting read (https://cloud.google.com/logging/docs/structured-logging). Passwords of URLs are
    hidden.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "severity": record.levelname,
            "message": record.getMessage(),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
            **record_fields(record),
        }
        if record.exc_info:
            line["stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(_readable(line))


def _readable(value: Any) -> Any:
    """Return a JSON value whose texts have no credentials, and no control characters but tabs and
    line ends.
    """
    if isinstance(value, dict):
        return {str(name): _readable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(inner) for inner in value]
    if value is None or isinstance(value, int | float):
        return value
    # a value that is no JSON value must not end a run
    return without_controls(without_credentials(str(value)))


class _PrivateFile(logging.FileHandler):
    """Log file of mode 600. A full disk closes the file; the run continues and logs to stderr."""

    def _open(self) -> TextIOWrapper:
        # the handler closes the file
        raw = open(self.baseFilename, f"{self.mode}b", opener=private_opener)  # noqa: SIM115
        return TextIOWrapper(raw, encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        # each further record would fail too, and print a traceback
        logging.getLogger().removeHandler(self)
        self.close()
        log.warning(
            "%s can't be written any more: %s. The run continues without it",
            self.baseFilename,
            describe_file_error(error),
        )

    def close(self) -> None:
        # the buffer cannot be written on a full disk
        with suppress(OSError):
            super().close()


def add_log_file(home: Path) -> Path:
    """Log every record to `logs/yieldspark.log` too. A file of more than LOG_FILE_BYTES is
    truncated.

    Args:
        home: YIELDSPARK_HOME.

    Returns:
        The path of the log file.

    Raises:
        EnvironmentNotReady: the file cannot be written.
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
            f"{error.filename or path} can't be written: {describe_file_error(error)}, or set"
            " YIELDSPARK_HOME"
        ) from error
    handler.setFormatter(LineFormatter())
    logging.getLogger().addHandler(handler)
    return path


def without_traceback(record: logging.LogRecord) -> bool:
    """Filter for a stderr handler that complements a log file: drops records with a traceback."""
    return record.name != traceback_logger.name and not record.exc_info
