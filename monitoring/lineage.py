"""Sends the OpenLineage events of a run. It never fails a run, and never delays it by more than
LINEAGE_SECONDS.

The first event is sent in a thread while the run works; the last one waits for it.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import Engine

from common.errors import EnvironmentNotReady, YieldSparkError, summarize_error
from common.events import LINEAGE_NOT_EMITTED, line_fields, log_event
from config_spark import Settings
from database.ledger.run_records import read_run

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent
    from openlineage.client.transport import Transport

log = logging.getLogger(__name__)

LINEAGE_SECONDS = 4.5
"""Longest wait at the end of a run for both events: reads, imports and calls together."""

PACKAGE, LOCK = "openlineage", "requirements-lineage.txt"


class Lineage:
    """The events of one run.

    Args:
        settings: receiver and namespace; the address of the database.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread: threading.Thread | None = None
        self._failures: list[Exception] = []

    def begin(self, engine: Engine, run_id: str) -> None:
        """Start to send the event START of a run, and return at once."""
        if self._settings.openlineage_url:
            self._thread = self._started(lambda: self._send_start(engine, run_id))

    def end(self, engine: Engine, run_id: str) -> None:
        """Send the event COMPLETE or FAIL of a run; a failure of either event is logged."""
        if not self._settings.openlineage_url:
            return
        with line_fields(run_id=run_id):
            deadline = time.monotonic() + LINEAGE_SECONDS
            first = self._thread
            last = self._started(lambda: self._send_end(engine, run_id, first))
            try:
                last.join(max(0.0, deadline - time.monotonic()))
            except KeyboardInterrupt:
                # the run is over and recorded: the command prints its result and ends
                self._failures.append(YieldSparkError("interrupted"))
            if last.is_alive() and not self._failures:
                self._failures.append(YieldSparkError(f"not done within {LINEAGE_SECONDS:g} s"))
            if self._failures:
                # both events fail for one reason
                reason = summarize_error(self._failures[0])
                log_event(
                    log,
                    LINEAGE_NOT_EMITTED,
                    "the lineage events of the run were not all sent: %s. The run itself is"
                    " unchanged",
                    reason,
                    error=reason,
                )

    def _started(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self._failures.append(error)

        # a daemon: a look-up of a name or a lost server may block for minutes
        thread = threading.Thread(target=copy_context().run, args=(guarded,), daemon=True)
        thread.start()
        return thread

    def _send_start(self, engine: Engine, run_id: str) -> None:
        require_packages()
        from monitoring.lineage_events import start_event

        _send(self._settings, start_event(self._settings, read_run(engine, run_id)))

    def _send_end(self, engine: Engine, run_id: str, first: threading.Thread | None) -> None:
        if first is not None:
            # a receiver expects START before the end
            first.join(LINEAGE_SECONDS)
        if self._failures:
            return
        require_packages()
        from monitoring.lineage_events import end_event

        record = read_run(engine, run_id)
        _send(self._settings, end_event(self._settings, record, self._settings.now()))


def require_packages() -> None:
    """Check that openlineage-python is installed.

    Raises:
        EnvironmentNotReady: it is not.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise EnvironmentNotReady(
            "OPENLINEAGE_URL is set, and the package openlineage-python is not installed: run"
            f" `.venv/bin/pip install -r {LOCK}`, or unset OPENLINEAGE_URL"
        )


def _send(settings: Settings, event: RunEvent) -> None:
    try:
        # without the package's client, which also reads variables and openlineage.yml
        _transport(settings).emit(event)
    except Exception as error:
        raise YieldSparkError(
            f"{settings.openlineage_url} did not take an event ({summarize_error(error)}); check"
            " OPENLINEAGE_URL and the receiver"
        ) from error


def _transport(settings: Settings) -> Transport:
    """Return the transport of OPENLINEAGE_URL."""
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

    url = settings.openlineage_url or ""
    if url.startswith("file:"):
        return FileTransport(FileConfig(url2pathname(urlsplit(url).path), append=True))
    key = settings.openlineage_api_key
    config = HttpConfig(
        url=url,
        timeout=LINEAGE_SECONDS,
        # a receiver may have stored an event whose answer was lost
        retry={"total": 0},
    )
    if key:
        config.auth = ApiKeyTokenProvider({"apiKey": key.get_secret_value()})
    return HttpTransport(config)
