"""The process that computes the scores of the page Quality; `scoring` starts it.

Reads pickled settings from standard input, so that no password is in its arguments or variables,
and writes pickled messages to standard output: the index of each step that begins, then the scores
or the error. The end of standard input ends it.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
from typing import BinaryIO

from common.errors import YieldSparkError
from config_spark import Settings
from reporting.dashboard import connection
from reporting.dashboard.scores import Scores, compute_scores

log = logging.getLogger(__name__)

LOWEST_PRIORITY = 19

Message = int | Scores | None | YieldSparkError


def main() -> None:
    """Compute the scores of the settings' database."""
    # visitors of other pages come first
    os.nice(LOWEST_PRIORITY)
    # what a library prints must not get into the messages
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        settings: Settings = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):  # the server has ended by now
        os._exit(1)
    threading.Thread(target=_end_with_server, daemon=True).start()
    _send(messages, _scores_or_error(settings, messages))
    # the other thread waits for standard input, which the interpreter would close under it
    os._exit(0)


def _scores_or_error(settings: Settings, messages: BinaryIO) -> Message:
    connection.use(settings)
    try:
        return compute_scores(connection.connected().engine, lambda number: _send(messages, number))
    except YieldSparkError as error:
        return error
    except Exception as error:
        log.error("the forecasts can't be scored", exc_info=error)
        # an error of a library may need more than its message
        return YieldSparkError(f"{type(error).__name__}: {error}")


def _send(messages: BinaryIO, message: Message) -> None:
    pickle.dump(message, messages)
    messages.flush()


def _end_with_server() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
