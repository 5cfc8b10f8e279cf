"""The speed part of the forecast benchmark: the nightly job as a whole process, and generated pools
against native LightGBM.

In: an embedded server. Out: timings. A night begins with a ledger of the days before, made by the
night before it, which is not counted; each repeat runs on a copy of that state, and fits a new
model version: the longest kind of night.
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
"""Stage of the comparison that is no part of the product's time: native LightGBM's fits."""


@dataclass(frozen=True)
class Nights:
    """All runs of one engine's night; `as_of` is the day it forecast from."""

    engine: str
    as_of: dt.date
    timings: Sequence[Timing]


@dataclass(frozen=True)
class Scale:
    """Generated pools and the comparison's process: its stages hold `native`, its seconds in the
    ledger are the product's.
    """

    pools: int
    days: int
    timing: Timing


def run_nights(
    loaded: Settings, engines: Sequence[str], as_of: dt.date, repeat: int, say: Say
) -> list[Nights]:
    """The engines take turns. Raises: RuntimeError where a night failed."""
    before = (as_of - dt.timedelta(days=1)).isoformat()
    timings: dict[str, list[Timing]] = {engine: [] for engine in engines}
    with copied_database(loaded, f"{loaded.db_name}_ledger") as ledger:
        for engine in engines:
            run_command(
                f"night before, {engine}",
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
                # the registry goes by the database's name: without a champion under a new one, each
                # of these nights fits and judges
                with copied_database(ledger, f"{loaded.db_name}_night_{number}") as settings:
                    options = ["--as-of", as_of.isoformat(), "--engine", engine]
                    timings[engine].append(
                        run_command(
                            f"night {engine}", settings, "forecast_pools", *options, say=say
                        )
                    )
    return [Nights(engine, as_of, runs) for engine, runs in timings.items()]


def run_scale(server: Settings, panel: Panel, say: Say) -> Scale:
    """Generated metrics into a database of their own, then the comparison. Raises: RuntimeError
    where it failed.
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
