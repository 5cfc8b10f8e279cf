"""Speed part of the forecast benchmark: the daily forecast as a whole process, and generated pools
against native LightGBM. Each repeat runs on a copy of the state after the previous day's forecast,
which is not timed, and fits a new model version, the longest kind of run.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.databases import copied_database, environment, server_process, settle
from benchmarks.forecast_data import Panel, Say, copy_panel, run_command
from benchmarks.processes import PASSIVE_THREADS, Timing, measure
from config_spark import Settings
from database.connections.engine import make_engine

NATIVE = "native"
"""Stage with native LightGBM's fits, which is not part of the product's time."""


@dataclass(frozen=True)
class DailyRuns:
    """All daily forecasts of one engine, from the day `as_of`."""

    engine: str
    as_of: dt.date
    timings: Sequence[Timing]


@dataclass(frozen=True)
class Scale:
    """Generated pools and the comparison's timing: its stages include `native`, its ledger seconds
    are the product's.
    """

    pools: int
    days: int
    timing: Timing


def run_daily_forecasts(
    loaded: Settings, engines: Sequence[str], as_of: dt.date, repeat: int, say: Say
) -> list[DailyRuns]:
    """Time the daily forecast; the engines take turns.

    Raises:
        RuntimeError: A run failed.
    """
    before = (as_of - dt.timedelta(days=1)).isoformat()
    timings: dict[str, list[Timing]] = {engine: [] for engine in engines}
    with copied_database(loaded, f"{loaded.db_name}_ledger") as ledger:
        for engine in engines:
            run_command(
                f"day before, {engine}",
                ledger,
                "forecast_pools",
                "--as-of",
                before,
                "--engine",
                engine,
                say=say,
            )
        for number in range(repeat):
            for engine in engines:
                # the registry is per database name: a new name has no champion, so that each run
                # fits and validates
                with copied_database(ledger, f"{loaded.db_name}_run_{number}") as settings:
                    options = ["--as-of", as_of.isoformat(), "--engine", engine]
                    timings[engine].append(
                        run_command(
                            f"daily run {engine}", settings, "forecast_pools", *options, say=say
                        )
                    )
    return [DailyRuns(engine, as_of, runs) for engine, runs in timings.items()]


def run_scale(server: Settings, panel: Panel, say: Say) -> Scale:
    """Generate metrics into a database of their own and run the comparison.

    Raises:
        RuntimeError: It failed.
    """
    with copied_database(server, "bench_scale") as settings:
        copy_panel(make_engine(settings), panel, say)
        settle(make_engine(settings))
        command = [
            sys.executable,
            "-m",
            "benchmarks.forecast_scale",
            "--as-of",
            panel.end.isoformat(),
        ]
        variables = {**environment(settings), **PASSIVE_THREADS}
        timing = measure(
            "scale",
            command,
            variables,
            folder=settings.yieldspark_home,
            server=server_process(settings),
        )
    if timing.error:
        raise RuntimeError(f"{panel.pools} x {panel.days} failed, {timing.error}")
    say(f"{panel.pools} x {panel.days}: {timing.ledger_seconds} s, {timing.peak_mb:.0f} MB")
    return Scale(panel.pools, panel.days, timing)
