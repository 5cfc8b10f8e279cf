"""The nights of a soak: rows arrive, the schedule starts the workflow, something breaks, and an
operator may start it again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from time import monotonic

from benchmarks.soak import source as soak_source
from benchmarks.soak.faults import SERVER_SKEWS, Fault, faults_of_nights
from benchmarks.soak.source import Source
from benchmarks.soak.world import Execution, World

ARRIVAL, START, AGAIN, COSTS = time(1, 0), time(2, 20), time(3, 50), time(6, 0)
"""Times of a night, UTC: rows arrive, the schedule starts the workflow, an operator does, and the
costs of its batches are written.
"""

SECOND_DELIVERY_SECONDS = 0.3
SILENT, FLOODED, STARTED_AGAIN = 0.07, 0.07, 0.6
"""Share of nights whose data come a night later, of nights with a broken source, and of failed
executions that an operator starts again.
"""


@dataclass
class Night:
    """One night.

    Attributes:
        number: from 0.
        fault: what was broken.
        source: `silent`, `flooded` or empty.
        rows: inserted rows by kind.
        since: when its rows arrived, on the soak's clock; the next night's is its end.
        executions: ended executions, in order.
        fault_applied: the fault has met its run.
        newest_day: newest day with a good row.
        seconds: real duration.
        problems: what was not as it must be.
        fired: alerts that fired until the next night.
        expected: alerts that should have.
    """

    number: int
    fault: Fault
    source: str
    since: datetime
    rows: dict[str, int] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    fault_applied: bool = True
    newest_day: date | None = None
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    @property
    def fault_name(self) -> str:
        """Return the fault, and whether it came too late."""
        return self.fault.name + ("" if self.fault_applied else " (too late)")


def night_time(source: Source, night: int, at: time) -> datetime:
    """Return a time of the night after a day of the data."""
    return datetime.combine(source.day(night) + timedelta(days=1), at, UTC)


def run_nights(
    world: World,
    source: Source,
    faults: Sequence[Fault],
    seed: int,
    tell: Callable[[Night], None],
) -> list[Night]:
    """Run all nights of the source.

    Args:
        world: the project, whose database has the history.
        source: the rows.
        faults: faults that may happen.
        seed: of the faults.
        tell: receives each night when it is over.
    """
    draw = random.Random(seed)
    nights: list[Night] = []
    for number, fault in enumerate(faults_of_nights(faults, source.nights, draw)):
        night = _run_night(world, source, number, fault, draw)
        nights.append(night)
        tell(night)
    return nights


def _run_night(
    world: World, source: Source, number: int, fault: Fault, draw: random.Random
) -> Night:
    began = monotonic()
    kind = draw.choices(("silent", "flooded", ""), (SILENT, FLOODED, 1 - SILENT - FLOODED))[0]
    night = Night(number, fault, kind, night_time(source, number, ARRIVAL))
    skew = draw.choice(SERVER_SKEWS) if fault.skews_server else 0.0
    _insert(world, source, night, skew)
    world.set_clock(night_time(source, number, START), skew)
    world.execution, world.fault_applied = "", True
    with fault.apply(world, draw):
        names = [world.start()]
        for _ in range(fault.deliveries - 1):
            names.append(world.start())
        night.executions += [world.wait(name) for name in names]
    first = night.executions[0]
    night.fault_applied = world.fault_applied
    is_last = number == source.nights - 1
    # a killed run of the last night is closed by another one
    if first.failed and (draw.random() < STARTED_AGAIN or is_last):
        world.set_clock(night_time(source, number, AGAIN), skew)
        again = world.wait(world.start())
        night.executions.append(again)
        if again.failed:
            night.problems.append(f"the second execution failed: {again.error}")
    _check_outcome(night, first)
    costs_at = night_time(source, number, COSTS)
    world.set_clock(costs_at)
    if error := world.price(costs_at.date()):
        night.problems.append(f"the costs were not written: {error}")
    night.seconds = monotonic() - began
    return night


def _insert(world: World, source: Source, night: Night, skew: float) -> None:
    before = dict(source.inserted)
    rows = source.rows_of_night(
        night.number, silent=night.source == "silent", flooded=night.source == "flooded"
    )
    night.rows = {kind: source.inserted[kind] - before.get(kind, 0) for kind in soak_source.KINDS}
    night.newest_day = source.newest_day
    world.set_clock(night.since, skew)
    soak_source.insert(world.engine, rows)
    day = source.day(night.number)
    soak_source.insert_market(world.engine, day, day)


def _check_outcome(night: Night, first: Execution) -> None:
    expected = night.fault.outcome
    if night.fault_applied and expected != "either" and first.failed != (expected == "fails"):
        night.problems.append(
            f"the execution ended {first.state}, and with the fault {night.fault.name} it"
            f" {expected}: {first.error}"
        )
    others: Sequence[Execution] = night.executions[1 : night.fault.deliveries]
    night.problems += [
        f"the second delivery was not skipped: {other.state} {other.error}"
        for other in others
        if not other.skipped
    ]
