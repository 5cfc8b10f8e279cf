"""Measures what it costs to keep the rows that metrics runs replace (`UNDO_DAYS`), and an undo.

Runs without a JVM in this process, on generated history in a PostgreSQL of its own, with and
without kept rows in turns. Prints processor seconds of the server, which depend less on other
processes than wall seconds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from sqlalchemy import Engine

from benchmarks.databases import copied_database, server_process, settle, temporary_server
from benchmarks.metrics import say
from benchmarks.metrics_data import History, copy_rows, load
from benchmarks.metrics_table import machine_facts
from benchmarks.processes import family, processor_seconds
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from database.undo.undo import undo_run

CASES = ("first full refresh", "full refresh without a change", "increment of one day")
CHANGED, UNDO = "full refresh that changes every row", "undo of that refresh"

Seconds = dict[tuple[str, int], list[float]]
"""Processor seconds of the server by case and UNDO_DAYS."""


def server_seconds(postmaster: int) -> float:
    """Return the processor seconds of the server so far, ended sessions included."""
    fields = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    # fields 16 and 17 of proc(5): its children that have ended
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return ended + sum(processor_seconds(pid) for pid in family(postmaster))


def measure(server: Settings, history: History, repeat: int) -> Seconds:
    """Measure all cases `repeat` times, each on a copy of the loaded database."""
    engine, seconds = make_engine(server), Seconds()
    load(engine, history, say)
    settle(engine)
    engine.dispose()
    for number in range(repeat):
        for undo_days in (0, 7):
            with copied_database(server, f"undo_{undo_days}_{number}") as settings:
                kept = settings.model_copy(update={"undo_days": undo_days, "executor": "inprocess"})
                _measure_runs(kept, history, seconds)
    return seconds


def _measure_runs(settings: Settings, history: History, seconds: Seconds) -> None:
    engine, postmaster = make_engine(settings), server_process(settings)
    assert postmaster is not None

    def timed(case: str, request: Request) -> str:
        settle(engine)
        before = server_seconds(postmaster)
        run_id: str = run_metrics(settings, request)["run_id"]
        spent = server_seconds(postmaster) - before
        seconds.setdefault((case, settings.undo_days), []).append(spent)
        return run_id

    first, unchanged, increment = CASES
    timed(first, Request())
    timed(unchanged, Request(full_refresh=True))
    copy_rows(engine, history.new_day())
    timed(increment, Request())
    _change_every_row(engine)
    run_id = timed(CHANGED, Request(full_refresh=True))
    if settings.undo_days:
        before = server_seconds(postmaster)
        undo_run(engine, run_id, by="benchmark")
        spent = server_seconds(postmaster) - before
        seconds.setdefault((UNDO, settings.undo_days), []).append(spent)
    engine.dispose()


def _change_every_row(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE pool_daily_metrics SET rolling_apy_7d = -1")


def result_text(seconds: Seconds) -> str:
    """Format a Markdown table of the means."""
    lines = ["| run | `UNDO_DAYS=0` | `UNDO_DAYS=7` |", "|---|---|---|"]
    for case in (*CASES, CHANGED, UNDO):
        cells = [
            f"{mean(seconds[case, days]):.1f}" if (case, days) in seconds else "-"
            for days in (0, 7)
        ]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.undo", description=__doc__)
    parser.add_argument("--pools", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--repeat", type=int, default=2, help="turns (default: 2)")
    options = parser.parse_args(argv)
    print(*(f"{name}: {value}" for name, value in machine_facts().items()), sep="\n")
    with temporary_server() as server:
        history = History.until_today(options.pools, options.days)
        print(result_text(measure(server, history, options.repeat)))


if __name__ == "__main__":
    main()
