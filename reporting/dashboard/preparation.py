"""What the server reads and computes before a visitor asks for it: figures of big tables.

Runs in a thread of the server.
"""

from __future__ import annotations

import logging
import threading

from common.errors import YieldSparkError, summarize_error
from reporting.dashboard.connection import data_version, database_problem
from reporting.dashboard.scoring import scoring_of
from reporting.dashboard.views.data import raw_end_of

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
"""Time between two looks for a run that has ended."""


def prepare_figures(stop: threading.Event) -> None:
    """Prepare the figures of every new version of the data, until `stop` is set."""
    while not stop.is_set():
        try:
            if database_problem() is None:
                version = data_version()
                scoring_of(version)
                raw_end_of(version)
        except YieldSparkError as error:
            # a visitor of the page sees the error
            log.debug("the figures can't be prepared: %s", summarize_error(error))
        stop.wait(CHECK_SECONDS)
