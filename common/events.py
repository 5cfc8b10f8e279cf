"""The named events of the log: one table, from which docs/reference/monitoring.md is made.

A job's event is a log record with the event's name and its own fields. In production each record is
one JSON line (`common.logging_setup.JsonFormatter`). The workflow writes its events itself
(`log_event` in workflows/pipeline.yaml); a test compares its source with this table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["INFO", "WARNING", "ERROR"]
Source = Literal["job", "workflow"]


@dataclass(frozen=True)
class Event:
    """A named event.

    Attributes:
        name: value of `event` in the log.
        severity: severity of its record.
        meaning: when it is written.
        fields: fields of its own, besides those of every line.
        source: what writes it.
        is_in_result: whether the result or the error of the command says the same, so that a
            terminal does not repeat it.
    """

    name: str
    severity: Severity
    meaning: str
    fields: tuple[str, ...] = ()
    source: Source = "job"
    is_in_result: bool = False


RUN_STARTED = Event(
    "run_started",
    "INFO",
    "a run has the job's lock and a row in the run ledger",
    ("mode", "engine"),
    is_in_result=True,
)
RUN_SUCCEEDED = Event(
    "run_succeeded",
    "INFO",
    "a run has committed its rows",
    ("counts", "seconds"),
    is_in_result=True,
)
RUN_NOTHING_TO_DO = Event(
    "run_nothing_to_do",
    "INFO",
    "nothing has changed since the last run",
    ("counts", "seconds"),
    is_in_result=True,
)
RUN_BLOCKED = Event(
    "run_blocked",
    "ERROR",
    "a check refused the result of a run: nothing was written",
    ("counts", "seconds", "error"),
    is_in_result=True,
)
RUN_FAILED = Event(
    "run_failed",
    "ERROR",
    "a run ended with an error: nothing was written",
    ("counts", "seconds", "error"),
    is_in_result=True,
)
RUN_CANCELLED = Event(
    "run_cancelled",
    "WARNING",
    "a signal ended a run: nothing was written",
    ("counts", "seconds", "error"),
    is_in_result=True,
)
STAGE_ENDED = Event(
    "stage_ended", "INFO", "a stage of a run has ended, well or not", ("stage", "seconds")
)
COMMAND_FAILED = Event(
    "command_failed",
    "ERROR",
    "the process ends with an error; its message is the first cause",
    ("run_id",),
    is_in_result=True,
)
METRICS_EMITTED = Event(
    "metrics_emitted", "INFO", "MONITORING_EMITTER=log: the points of a run", ("points",)
)
METRICS_NOT_EMITTED = Event(
    "metrics_not_emitted",
    "WARNING",
    "the points of a run were not written, or not in time; the run itself is unchanged",
    ("error",),
)

LINEAGE_NOT_EMITTED = Event(
    "lineage_not_emitted",
    "WARNING",
    "a lineage event of a run was not sent, or not in time; the run itself is unchanged",
    ("error",),
)

JOB_EVENTS = (
    RUN_STARTED,
    STAGE_ENDED,
    RUN_SUCCEEDED,
    RUN_NOTHING_TO_DO,
    RUN_BLOCKED,
    RUN_FAILED,
    RUN_CANCELLED,
    COMMAND_FAILED,
    METRICS_EMITTED,
    METRICS_NOT_EMITTED,
    LINEAGE_NOT_EMITTED,
)

EVENT_OF_STATUS: Mapping[str, Event] = {
    "succeeded": RUN_SUCCEEDED,
    "nothing_to_do": RUN_NOTHING_TO_DO,
    "blocked": RUN_BLOCKED,
    "failed": RUN_FAILED,
    "cancelled": RUN_CANCELLED,
}
"""The event of each status with which a run ends."""

_OF_BATCH = ("job", "batch", "state", "message")


def _workflow(name: str, severity: Severity, meaning: str, fields: tuple[str, ...]) -> Event:
    return Event(name, severity, meaning, fields, source="workflow")


WORKFLOW_EVENTS = (
    _workflow("run_began", "INFO", "an execution has resolved its version", ("version",)),
    _workflow(
        "run_skipped",
        "WARNING",
        "another execution was active, as after a delivery that came twice: nothing was started",
        ("message",),
    ),
    _workflow("batch_state", "INFO", "a batch is in another state", ("job", "batch", "state")),
    _workflow(
        "batch_not_seen", "WARNING", "the state of a batch can not be read at present", _OF_BATCH
    ),
    _workflow("batch_ended", "INFO", "a batch has ended; ERROR if it did not succeed", _OF_BATCH),
    _workflow(
        "batch_used", "INFO", "what a batch used, as the service reports it", ("job", "batch")
    ),
    _workflow("cancel_requested", "WARNING", "a batch is at the deadline", _OF_BATCH),
    _workflow("cancel_refused", "ERROR", "the service refused to cancel a batch", _OF_BATCH),
    _workflow(
        "validation_failed",
        "ERROR",
        "a check of the validation failed, or it did not run; the jobs have committed their rows,"
        " and the alert `validation-failed` counts these",
        _OF_BATCH,
    ),
    _workflow(
        "run_succeeded", "INFO", "every job of the release succeeded", ("version", "seconds")
    ),
    _workflow(
        "run_failed",
        "ERROR",
        "the execution ends with an error; the alert `workflow-failed` counts these",
        ("job", "batch", "state", "version", "message"),
    ),
)

EVENTS = (*JOB_EVENTS, *WORKFLOW_EVENTS)

_line_fields: ContextVar[Mapping[str, Any]] = ContextVar("line_fields", default={})  # noqa: B039


def log_event(
    logger: logging.Logger, event: Event, message: str, *values: object, **fields: Any
) -> None:
    """Log an event.

    Args:
        logger: logger of the calling module.
        event: one of JOB_EVENTS.
        message: sentence for a person, as a format of `logging`.
        *values: values of the format.
        **fields: the event's own fields, JSON values without a secret.
    """
    logger.log(
        logging.getLevelNamesMapping()[event.severity],
        message,
        *values,
        extra={"event": event, "event_fields": fields},
    )


@contextmanager
def line_fields(**fields: Any) -> Iterator[None]:
    """Add fields (run_id, job, batch_id) to every JSON line of the block."""
    token = _line_fields.set({**_line_fields.get(), **fields})
    try:
        yield
    finally:
        _line_fields.reset(token)


def record_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record: those of every line, the event and its own."""
    event: Event | None = getattr(record, "event", None)
    own = {"event": event.name, **getattr(record, "event_fields", {})} if event else {}
    return {**_line_fields.get(), **own}


def is_in_result(record: logging.LogRecord) -> bool:
    """Whether the command's own output says what the record says."""
    event: Event | None = getattr(record, "event", None)
    return event is not None and event.is_in_result
