"""Writes the points of a run at its end. It never fails a run, and never delays it by more than
EMISSION_SECONDS.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from datetime import datetime

from sqlalchemy import Engine

from common.errors import YieldSparkError, summarize_error
from common.events import METRICS_NOT_EMITTED, line_fields, log_event
from config_spark import Settings
from database.connections.engine import checked_connection
from database.ledger.run_records import RunRecord, read_run
from monitoring.emitter import Emitter, LogEmitter
from monitoring.run_points import points_of_run
from monitoring.series import Point
from monitoring.table_points import points_of_tables

log = logging.getLogger(__name__)

EMISSION_SECONDS = 4.5
"""Longest wait for the points: reads, import of the client and calls together. A job is delayed by
less than five seconds.
"""

ReadPoints = Callable[[datetime], Sequence[Point]]


def emit_run(settings: Settings, engine: Engine, run_id: str) -> None:
    """Write the points of a run that has ended, well or not; a failure is logged.

    Args:
        settings: the emitter.
        engine: engine of the run's database.
        run_id: id of the run.
    """
    with line_fields(run_id=run_id):
        emit_points(settings, lambda now: _points(engine, read_run(engine, run_id), now))


def emit_points(settings: Settings, read_points: ReadPoints) -> None:
    """Write points within EMISSION_SECONDS; a failure is logged.

    Args:
        settings: the emitter.
        read_points: returns the points, from the moment of their emission (UTC).
    """
    if settings.monitoring_emitter == "null":
        # the points are not even read
        return
    deadline = time.monotonic() + EMISSION_SECONDS
    failures: list[Exception] = []

    def work() -> None:
        try:
            now = settings.now()
            emitter = make_emitter(settings)
            emitter.emit(read_points(now), now, max(0.0, deadline - time.monotonic()))
        except Exception as error:
            failures.append(error)

    # a thread, because a name look-up or a lost server may block for minutes; a daemon, so that it
    # does not keep the process
    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    try:
        thread.start()
        thread.join(EMISSION_SECONDS)
    except KeyboardInterrupt:
        # the run is over and recorded: the command prints its result and ends
        failures.append(YieldSparkError("interrupted"))
    if thread.is_alive() and not failures:
        failures.append(YieldSparkError(f"not done within {EMISSION_SECONDS:g} s"))
    if reason := "; ".join(map(summarize_error, failures)):
        log_event(
            log,
            METRICS_NOT_EMITTED,
            "the points of the run were not all written: %s. The run itself is unchanged",
            reason,
            error=reason,
        )


def make_emitter(settings: Settings) -> Emitter:
    """Return the emitter of MONITORING_EMITTER, which is not `null`.

    Raises:
        ConfigurationError: a setting that the emitter needs is missing.
    """
    if settings.monitoring_emitter == "cloud_monitoring":
        # loads gRPC, which takes a second
        from monitoring.cloud_monitoring import CloudMonitoringEmitter

        return CloudMonitoringEmitter(settings)
    return LogEmitter()


def _points(engine: Engine, record: RunRecord, now: datetime) -> list[Point]:
    with checked_connection(engine) as connection:
        return [*points_of_run(record), *points_of_tables(connection, record, now)]
