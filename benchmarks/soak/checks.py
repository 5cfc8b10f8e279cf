"""What must hold at the end of a soak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from benchmarks.databases import copied_database, empty_products_tables
from benchmarks.soak.alerts import (
    batches_without_points,
    expected_alerts,
    fired_alerts,
    ledger_runs,
)
from benchmarks.soak.clock import set_server_clock
from benchmarks.soak.nights import Night
from benchmarks.soak.source import Source
from benchmarks.soak.world import World
from common.jobs import JOBS
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from database.schema.owner_tables import METRIC_COLUMNS
from workflows.spec.release_paths import VALIDATE

RECOMPUTED = "soak_recomputed"


@dataclass(frozen=True)
class Check:
    """A check of the end.

    Attributes:
        name: what must hold.
        problems: why it does not.
        found: what was counted.
    """

    name: str
    problems: Sequence[str]
    found: str


def check_all(world: World, source: Source, nights: Sequence[Night], end: datetime) -> list[Check]:
    """Check tables, rows, staging, ledger, alerts and the ends of executions.

    Args:
        world: the project after the last night.
        source: the rows.
        nights: the nights; their `fired` and `expected` alerts are set.
        end: end of the last night, on the soak's clock.
    """
    fired = fired_alerts(world, nights, end)
    lost = batches_without_points(world)
    expected = expected_alerts(world, nights, end)
    without_lost = expected_alerts(world, nights, end, lost)
    for night, fires, should, least in zip(nights, fired, expected, without_lost, strict=True):
        night.fired = sorted(fires)
        # some of the points of a lost emission may have been written: either is right
        night.expected = sorted((should & least) | ((should ^ least) & fires))
    with world.engine.connect() as connection:
        found = [
            _staging(connection),
            _ledger(connection, nights),
        ]
    return [*_recomputed(world, source), *found, _alerts(nights, len(lost)), _outcomes(nights)]


def _staging(connection: Connection) -> Check:
    names = connection.execute(
        text("SELECT tablename FROM pg_tables WHERE tablename LIKE 'staging%' ORDER BY 1")
    ).scalars()
    left = list(names)
    return Check("no staging table is left", left, f"{len(left)} tables")


UNFINISHED = text("SELECT run_id FROM yieldspark.run_ledger WHERE status = 'running'")


def _ledger(connection: Connection, nights: Sequence[Night]) -> Check:
    """Each night has a run of the first job, and each successful execution a good one of all."""
    runs = ledger_runs(connection, nights)
    problems = [f"{run_id} is running" for run_id in connection.execute(UNFINISHED).scalars()]
    for night in nights:
        own = [run for run in runs if run.night == night.number]
        if not own:
            problems.append(f"night {night.number} has no run")
        if any(execution.state == "SUCCEEDED" for execution in night.executions):
            missing = {job.name for job in JOBS} - {run.job for run in own if run.is_good}
            # its checks may fail: that is an alert
            missing |= {VALIDATE} - {run.job for run in own}
            problems += [
                f"night {night.number} has no good run of {job}" for job in sorted(missing)
            ]
    return Check("every night is in the ledger", problems, f"{len(runs)} runs")


def _alerts(nights: Sequence[Night], lost: int = 0) -> Check:
    problems = []
    for night in nights:
        missing = sorted(set(night.expected) - set(night.fired))
        more = sorted(set(night.fired) - set(night.expected))
        problems += [f"night {night.number}: {name} did not fire" for name in missing]
        problems += [f"night {night.number}: {name} fired without a reason" for name in more]
    found = f"{sum(len(night.fired) for night in nights)} alerts; {lost} runs without all points"
    return Check("alerts fired where they should, and nowhere else", problems, found)


def _outcomes(nights: Sequence[Night]) -> Check:
    problems = [f"night {night.number}: {text}" for night in nights for text in night.problems]
    ended = sum(len(night.executions) for night in nights)
    return Check("executions ended as their fault demands", problems, f"{ended} executions")


QUARANTINED = """
    SELECT source_table, source_id, reason
    FROM yieldspark.quarantine
    WHERE resolution IS NULL
"""

METRICS = f"""
    SELECT pool_id, date, {", ".join(METRIC_COLUMNS)}
    FROM pool_daily_metrics
    WHERE date <= (SELECT max(date) FROM pool_daily_metrics WHERE actual_tvl IS NOT NULL)
"""
"""Without the day of the newest forecasts, which has no metrics yet."""


def _recomputed(world: World, source: Source) -> Iterator[Check]:
    """Compare the tables with one full refresh from the raw rows into empty tables."""
    kept = {
        name: _rows(world.engine, query)
        for name, query in (("metrics", METRICS), ("quarantine", QUARANTINED))
    }
    world.engine.dispose()
    with copied_database(world.settings, RECOMPUTED) as copied:
        shift = world.clock.shift_seconds
        settings = copied.model_copy(
            update={
                "executor": "inprocess",
                "clock_shift_seconds": shift,
                "monitoring_emitter": "null",
            }
        )
        set_server_clock(world.settings, RECOMPUTED, shift)
        engine = make_engine(settings)
        empty_products_tables(engine)
        row = run_metrics(settings, Request(full_refresh=True))
        again = {
            name: _rows(engine, query)
            for name, query in (("metrics", METRICS), ("quarantine", QUARANTINED))
        }
        engine.dispose()
    for name in kept:
        differing = kept[name] ^ again[name]
        problems = [str(row) for row in sorted(map(str, differing))[:5]]
        found = f"{len(kept[name]):,} rows, {len(differing):,} differ"
        yield Check(f"{name} equal a full recompute", problems, found)
    yield _accounting(source, row["rows"], len({key[1] for key in again["quarantine"]}))


def _accounting(source: Source, rows: dict[str, int], quarantined: int) -> Check:
    """Accepted + quarantined = inserted, by the source's own count of broken rows."""
    inserted, broken = source.inserted.total(), source.inserted["broken"]
    problems = []
    if rows["read"] != inserted:
        problems.append(f"{rows['read']:,} rows read, {inserted:,} inserted")
    if not rows["quarantined"] == quarantined == broken:
        problems.append(
            f"{rows['quarantined']:,} rows rejected, {quarantined:,} in quarantine,"
            f" {broken:,} broken rows inserted"
        )
    found = f"{inserted - broken:,} + {broken:,} = {inserted:,}"
    return Check("accepted + quarantined = inserted", problems, found)


def _rows(engine: Engine, query: str) -> set[tuple[object, ...]]:
    with engine.connect() as connection:
        return {tuple(row) for row in connection.exec_driver_sql(query)}
