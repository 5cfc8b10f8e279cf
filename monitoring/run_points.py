"""Points of a run, from its row in the run ledger. Reads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from common.horizons import NEXT_DAY, at_horizon
from database.ledger.run_records import RunRecord
from monitoring.series import (
    JOB_DURATION,
    MAE_RATIO,
    OWNERS_JOB_DURATION,
    ROWS,
    STAGE_SECONDS,
    Point,
)

SCORE_CHECK = "rolling_origin_score"
"""Check of a forecast run whose figures are the scores of the last 30 target days."""

SCORED_CLASSES = ("restricted", "all")
"""Classes of pools in the order of preference, as in the forecast job's own summary."""


def points_of_run(record: RunRecord) -> list[Point]:
    """Return the points of a run that has ended.

    Args:
        record: a row of the run ledger. Stages that a failed run did not reach have no points.
    """
    points = [
        *_durations(record),
        *(Point(STAGE_SECONDS, (record.job, name), value) for name, value in record.stages.items()),
        *(Point(ROWS, (record.job, kind), count) for kind, count in record.rows.items()),
        *_error_ratios(record),
    ]
    return [point for point in points if math.isfinite(point.value)]


def _durations(record: RunRecord) -> Iterator[Point]:
    if record.seconds is not None:
        yield Point(JOB_DURATION, (record.job, record.status), record.seconds)
        yield Point(OWNERS_JOB_DURATION, (record.job,), record.seconds)


def _error_ratios(record: RunRecord) -> Iterator[Point]:
    # a run of an earlier version has a plan without further horizons
    plan = record.plan or {}
    further = [part["horizon_days"] for part in plan.get("further_horizons", [])]
    checks = {check["name"]: check for check in record.checks}
    for horizon in (NEXT_DAY, *further):
        check: Mapping[str, Any] = checks.get(at_horizon(SCORE_CHECK, horizon), {})
        for target, classes in check.get("scores", {}).items():
            scores = next((classes[name] for name in SCORED_CLASSES if classes[name]["rows"]), None)
            ratio = scores["ratio"]["mae"] if scores else None
            if ratio is not None:
                yield Point(MAE_RATIO, (str(record.engine), target, str(horizon)), ratio)
