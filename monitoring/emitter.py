"""What writes the points of a run: the interface, and the implementation without a service."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from common.events import METRICS_EMITTED, log_event
from monitoring.series import Point

log = logging.getLogger(__name__)


class Emitter(Protocol):
    """Writes points."""

    def emit(self, points: Sequence[Point], at: datetime, seconds: float) -> None:
        """Write points of one moment.

        Args:
            points: at most one for each time series.
            at: the moment, UTC.
            seconds: time limit.

        Raises:
            YieldSparkError: a point was not written.
        """


class LogEmitter:
    """Writes the points as one event of the log."""

    def emit(self, points: Sequence[Point], at: datetime, seconds: float) -> None:
        """Log the points."""
        entries = [
            {"type": point.series.type, "labels": point.label_values, "value": point.value}
            for point in points
        ]
        log_event(log, METRICS_EMITTED, "%s", "; ".join(map(str, points)), points=entries)
