"""What the server reads and computes before a visitor asks for it.

The figures of the first page are read when the server starts and after each run. Those of big
tables, the scores of Quality and the end of the raw history, follow when no page has been made for
some seconds: they take both cores of a small machine. A visitor of their pages starts them earlier.

Runs in a thread of the server.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from common.errors import YieldSparkError, summarize_error
from reporting.dashboard import visits
from reporting.dashboard.connection import DataVersion, data_version, database_problem
from reporting.dashboard.scoring import scoring_of
from reporting.dashboard.views.data import raw_end_of
from reporting.dashboard.views.tomorrow import prepare_page

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
"""Time between two looks for a run that has ended."""
QUIET_SECONDS = 5.0
"""Time without a page after which big tables are read: a visitor who clicks on waits for none."""
POLL_SECONDS = 0.5


def prepare_figures(stop: threading.Event, quiet_seconds: float = QUIET_SECONDS) -> None:
    """Prepare the figures of every new version of the data, until `stop` is set.

    Args:
        quiet_seconds: time without a page that the figures of big tables wait for.
    """
    while not stop.is_set():
        _prepare(prepare_page)
        end = time.monotonic() + CHECK_SECONDS
        while time.monotonic() < end and visits.quiet_seconds() < quiet_seconds:
            if stop.wait(POLL_SECONDS):
                return
        if visits.quiet_seconds() >= quiet_seconds:
            _prepare(_read_big_tables)
            stop.wait(CHECK_SECONDS)


def _read_big_tables(version: DataVersion) -> None:
    scoring_of(version)
    raw_end_of(version)


def _prepare(read: Callable[[DataVersion], None]) -> None:
    try:
        if database_problem() is None:
            read(data_version())
    except YieldSparkError as error:
        # a visitor of the page sees the error
        log.debug("the figures can't be prepared: %s", summarize_error(error))
