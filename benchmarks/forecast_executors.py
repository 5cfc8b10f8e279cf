"""Measures the daily forecast with engine `lightgbm` by both executors: with a champion, and with a
refit.

Generated pools in a PostgreSQL of its own; whole processes that take turns. Each run starts from
the state after the forecast of the day before, which is not timed. Prints the medians of wall and
processor seconds (the server's included), the largest memory, and the goals.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.databases import copied_database, environment, server_process, settle
from benchmarks.databases import temporary_server as own_server
from benchmarks.forecast import ENDS, parse_names, size_of
from benchmarks.forecast_data import COMMAND, Panel, Say, copy_panel
from benchmarks.metrics import say
from benchmarks.metrics_table import machine_facts
from benchmarks.processes import Timing, measure
from config_spark import Settings
from database.connections.engine import make_engine

EXECUTORS = ("spark", "inprocess")
GOALS = {"champion": 8.0, "refit": 45.0}
"""Largest wall seconds in process, of 500 pools x 365 days on two idle cores."""


@dataclass(frozen=True)
class DailyForecast:
    """All runs of one kind by one executor.

    Attributes:
        kind: champion or refit.
        executor: spark or inprocess.
        seconds: median of the wall seconds.
        cpu_seconds: median of the processor seconds.
        peak_mb: largest memory of the processes.
        stages: median seconds by stage of the ledger.
    """

    kind: str
    executor: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    stages: dict[str, float]


def summarize(kind: str, executor: str, timings: Sequence[Timing]) -> DailyForecast:
    """Return the medians of runs of one kind."""
    stages = {}
    for name in timings[0].stages:
        stages[name] = median(run.stages[name] for run in timings)
    return DailyForecast(
        kind,
        executor,
        median(run.seconds for run in timings),
        median(run.cpu_seconds for run in timings),
        max(run.peak_mb for run in timings),
        stages,
    )


def measure_forecasts(
    server: Settings,
    panel: Panel,
    kinds: Sequence[str],
    executors: Sequence[str],
    repeat: int,
    say: Say,
) -> list[DailyForecast]:
    """Run the executors in turns.

    Raises:
        RuntimeError: a run failed.
    """
    timings: dict[tuple[str, str], list[Timing]] = {
        case: [] for case in itertools.product(kinds, executors)
    }
    with copied_database(server, "bench_daily") as settings:
        copy_panel(make_engine(settings), panel, say)
        before = panel.end - dt.timedelta(days=1)
        # the first run of a home with a JVM also records its classes
        run_forecast(settings, executors[0], before, say)
        for number in range(repeat):
            for kind, executor in timings:
                timing = _run(settings, kind, executor, panel.end, number, say)
                if ("fit_apy" in timing.stages) != (kind == "refit"):
                    raise RuntimeError(f"a run of kind {kind} had the stages {timing.stages}")
                timings[kind, executor].append(timing)
    return [summarize(kind, executor, runs) for (kind, executor), runs in timings.items()]


def _run(
    settings: Settings, kind: str, executor: str, as_of: dt.date, number: int, say: Say
) -> Timing:
    """One run; only its copy of the database changes."""
    # the registry has a model for each name of a database: one with a new name has no version, so
    # that a run fits one
    name = settings.db_name if kind == "champion" else f"bench_refit_{executor}_{number}"
    if kind == "champion":
        timing = run_forecast(settings, executor, as_of, say)
        _forget(settings, as_of)
        return timing
    with copied_database(settings, name) as copy:
        return run_forecast(copy, executor, as_of, say)


def run_forecast(settings: Settings, executor: str, as_of: dt.date, say: Say) -> Timing:
    """Run the command as a process.

    Raises:
        RuntimeError: it failed.
    """
    settle(make_engine(settings))
    make_engine(settings).dispose()
    options = ["--engine", "lightgbm", "--as-of", as_of.isoformat(), "--json"]
    timing = measure(
        executor,
        [*COMMAND, "forecast_pools", *options],
        {**environment(settings), "EXECUTOR": executor},
        folder=settings.yieldspark_home,
        server=server_process(settings),
    )
    if timing.error:
        raise RuntimeError(f"the forecast by {executor} failed: {timing.error}")
    say(f"{executor}: {timing.seconds:.1f} s, processor {timing.cpu_seconds:.1f} s")
    return timing


def _forget(settings: Settings, as_of: dt.date) -> None:
    """Remove what a run of this day has written, so that the next one writes the same."""
    with make_engine(settings).begin() as connection:
        for table, day in (
            ("yieldspark.forecasts", "as_of"),
            ("yieldspark.forecast_evaluation", "as_of"),
            ("pool_daily_metrics", "date"),
        ):
            connection.exec_driver_sql(
                f"DELETE FROM {table} WHERE {day} {'>' if day == 'date' else '='} '{as_of}'"
            )
    make_engine(settings).dispose()


def result_text(forecasts: Sequence[DailyForecast]) -> str:
    """Format a Markdown table, and the goals."""
    lines = [
        "| run | executor | wall s | processor s | MB | longest stages |",
        "|---|---|---|---|---|---|",
    ]
    for run in forecasts:
        longest = sorted(run.stages.items(), key=lambda stage: -stage[1])[:4]
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in longest)
        lines.append(
            f"| {run.kind} | {run.executor} | {run.seconds:.1f} | {run.cpu_seconds:.1f}"
            f" | {run.peak_mb:,.0f} | {stages} |"
        )
    for run in forecasts:
        if run.executor == "inprocess":
            goal = GOALS[run.kind]
            verdict = "hit" if run.seconds <= goal else f"missed by {run.seconds - goal:.1f} s"
            lines.append(f"{run.kind}: {run.seconds:.1f} s, goal {goal:g} s: {verdict}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forecast_executors", description=__doc__
    )
    parser.add_argument(
        "--size", type=size_of, default=(500, 365), metavar="POOLSxDAYS", help="default: 500x365"
    )
    parser.add_argument("--only", choices=list(GOALS), help="only this kind of run")
    parser.add_argument(
        "--executors",
        type=lambda text: parse_names(text, EXECUTORS),
        default=list(EXECUTORS),
        metavar="EXECUTOR,..",
        help=f"default: {','.join(EXECUTORS)}",
    )
    parser.add_argument("--repeat", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    kinds = [options.only] if options.only else list(GOALS)
    facts, (pools, days) = machine_facts(), options.size
    with own_server() as server:
        panel = Panel(pools, days, ENDS[0])
        forecasts = measure_forecasts(server, panel, kinds, options.executors, options.repeat, say)
    if options.json:
        print(json.dumps({**facts, "runs": [asdict(run) for run in forecasts]}, indent=2))
        return
    print(*(f"{name}: {value}" for name, value in facts.items()), sep="\n")
    print(result_text(forecasts))


if __name__ == "__main__":
    main()
