"""Time series of costs: the most expensive batch of each job of a day, and the month so far.

Only `workflows cost --day` writes them, which a schedule runs once a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from config_spark import Settings
from monitoring.emission import emit_points
from monitoring.series import COST, MONTH_COST, Point
from workflows.clients.dataproc import Batches
from workflows.costs.cost import actual_cost

JobCost = tuple[str, float]
"""The job of a batch, and the batch's cost in USD."""


def emit_day_costs(settings: Settings, costs: Sequence[JobCost], end: datetime) -> None:
    """Write the costs of a day and of its month until then; a failure is logged.

    Args:
        settings: the emitter and the project.
        costs: the batches of the day whose cost is known.
        end: the day after, UTC without a zone.
    """
    # the month of the day itself: the last day of a month ends in the next one
    month = (end - timedelta(days=1)).replace(day=1)
    emit_points(settings, lambda now: [*_points_of_day(costs), _month_point(settings, month, end)])


def _points_of_day(costs: Sequence[JobCost]) -> list[Point]:
    most: dict[str, float] = {}
    for job, usd in costs:
        most[job] = max(usd, most.get(job, 0.0))
    return [Point(COST, (job,), usd) for job, usd in most.items()]


def _month_point(settings: Settings, month: datetime, end: datetime) -> Point:
    batches = Batches(settings).list(since=month, before=end)
    costs = [actual_cost(batch) for batch in batches]
    return Point(MONTH_COST, (), sum(cost.usd for cost in costs if cost))
