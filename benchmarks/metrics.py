"""Compares the metrics job with its peers: whole processes that take turns, on generated raw
history in a PostgreSQL of its own. The job runs with Spark and, in the cases `*-in-process`,
without a JVM. Prints medians, ratios, peak memory and goals, and writes
JSON to benchmarks/results/. Seconds are wall time with start-up. Every case runs once on a small
history before the measurement.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from benchmarks import metrics_data
from benchmarks.databases import (
    copied_database,
    differing_rows,
    empty_peer,
    empty_products_tables,
    environment,
    make_peer_tables,
    server_process,
    settle,
    temporary_server,
)
from benchmarks.metrics_data import History, Say
from benchmarks.metrics_table import (
    Result,
    exponent_document,
    exponent_text,
    machine_facts,
    result_document,
    result_text,
)
from benchmarks.peer_rules import PEERS
from benchmarks.processes import PROJECT, Timing, measure
from config_spark import Settings
from database.connections.engine import make_engine

JOB = [
    sys.executable,
    str(PROJECT / "data_processing" / "calculate_pool_metrics_spark.py"),
    "--json",
]

SIZES = {"SET": (2_000, 365), "L": (20_000, 365), "4L": (80_000, 365)}
"""Pools and days: 715 thousand, 7.15 million and 28.6 million raw rows."""

TRANSPORTS = {
    "full-read-adbc": {"READ_TRANSPORT": "adbc"},
    "full-write-jdbc": {"WRITE_TRANSPORT": "jdbc"},
}
"""Settings of full runs with another transport than the default. Run up to SET only,
unless requested.
"""

IN_PROCESS = ("full-in-process", "new-day-in-process")
"""Cases without a JVM; the others of the job use Spark."""

FULL_RUNS = ("full-in-process", *TRANSPORTS, "full")
"""Cases that compute everything into empty tables, in the order of a turn."""

OURS = dict.fromkeys(["full", *TRANSPORTS, "new-day", "corrections", *IN_PROCESS], "succeeded") | {
    "nothing-new": "nothing_to_do"
}
"""The job's cases, and the status that each must end with."""

CASES = (
    "full",
    "full-in-process",
    *TRANSPORTS,
    *PEERS,
    "nothing-new",
    "new-day",
    "new-day-in-process",
    "corrections",
)

REHEARSAL = (20, 40)

EXAMPLES = """examples:
  python -m benchmarks.metrics                                      SET, every case, three turns
  python -m benchmarks.metrics --size L --repeat 3                  L, without pandas
  python -m benchmarks.metrics --size L --only full,polars,new-day  these cases alone
  python -m benchmarks.metrics --pools 50 --days 60 --repeat 1      a look whether it runs
  python -m benchmarks.metrics --exponent L,4L --repeat 1           full runs at two sizes: how time
                                                                    and memory grow with rows
"""


@dataclass
class Bench:
    """A loaded history and the cases that run on it."""

    settings: Settings
    history: History
    say: Say
    differing: dict[str, int] = field(default_factory=dict)

    def load(self) -> int:
        """Fill the empty database; return the number of raw rows."""
        rows = metrics_data.load(make_engine(self.settings), self.history, self.say)
        make_peer_tables(make_engine(self.settings))
        return rows

    def turn(self, cases: Sequence[str]) -> Iterator[Timing]:
        """Run each case once from the state it needs. The other cases compare with, or start from,
        the rows of the last full run.
        """
        engine = make_engine(self.settings)
        for case in (name for name in FULL_RUNS if name in cases):
            empty_products_tables(engine)
            yield self._measured(case, self.settings, "--full-refresh")
        for peer in (name for name in PEERS if name in cases):
            yield self._peer(peer)
        if "nothing-new" in cases:
            yield self._measured("nothing-new", self.settings)
        for case, arriving in (
            ("new-day", self.history.new_day),
            ("new-day-in-process", self.history.new_day),
            ("corrections", self.history.corrections),
        ):
            if case in cases:
                with self._copy_with(case, arriving()) as settings:
                    yield self._measured(case, settings)

    def _measured(self, case: str, settings: Settings, *options: str) -> Timing:
        """Run a case of the job.

        Raises:
            RuntimeError: The job did not end with the case's status.
        """
        timing = self._run(case, [*JOB, *options], settings)
        if timing.error or timing.status != OURS[case]:
            raise RuntimeError(
                f"{case} ended as {timing.status} and not as {OURS[case]}: {timing.error}"
            )
        return timing

    def _peer(self, peer: str) -> Timing:
        engine = make_engine(self.settings)
        timing = self._run(peer, [sys.executable, "-m", f"benchmarks.peer_{peer}"], self.settings)
        if timing.error is None:
            self.differing[peer] = differing_rows(engine, peer)
        empty_peer(engine, peer)
        return timing

    def _run(self, case: str, command: Sequence[str], settings: Settings) -> Timing:
        settle(make_engine(settings))
        home = settings.yieldspark_home
        timing = measure(
            case,
            command,
            {
                **environment(settings),
                "EXECUTOR": "inprocess" if case in IN_PROCESS else "spark",
                **TRANSPORTS.get(case, {}),
            },
            folder=home,
            server=server_process(settings),
        )
        self.say(
            f"{timing.case}: {timing.error or f'{timing.seconds:.1f} s, {timing.peak_mb:.0f} MB'}"
        )
        return timing

    @contextmanager
    def _copy_with(self, case: str, arriving: pl.DataFrame) -> Iterator[Settings]:
        settle(make_engine(self.settings))
        with copied_database(
            self.settings, f"{self.settings.db_name}_{case.replace('-', '_')}"
        ) as settings:
            metrics_data.copy_rows(make_engine(settings), arriving)
            yield settings


def run_size(
    server: Settings, size: str, history: History, cases: Sequence[str], repeat: int, say: Say
) -> Result:
    """Load a history into a database of its own and take `repeat` turns."""
    with copied_database(server, f"bench_{history.pools}") as settings:
        bench = Bench(settings, history, say)
        rows = bench.load()
        timings: list[Timing] = []
        for _ in range(repeat):
            timings += bench.turn(cases)
        return Result(size, history.pools, history.days, rows, timings, bench.differing)


def run_exponent(
    server: Settings, sizes: dict[str, History], repeat: int, say: Say
) -> list[Result]:
    """Time full runs at two sizes in turns; both histories are loaded first."""
    (small, first), (large, second) = sizes.items()
    with (
        copied_database(server, "bench_small") as small_settings,
        copied_database(server, "bench_large") as large_settings,
    ):
        benches = {
            small: Bench(small_settings, first, say),
            large: Bench(large_settings, second, say),
        }
        rows = {size: bench.load() for size, bench in benches.items()}
        timings: dict[str, list[Timing]] = {size: [] for size in benches}
        for _ in range(repeat):
            for size, bench in benches.items():
                timings[size] += bench.turn(["full"])
        return [
            Result(size, bench.history.pools, bench.history.days, rows[size], timings[size], {})
            for size, bench in benches.items()
        ]


def rehearse(server: Settings, cases: Sequence[str]) -> None:
    """Run every case once on a small history, to create caches and to fail early."""
    result = run_size(
        server,
        "rehearsal",
        History.until_today(*REHEARSAL),
        cases,
        1,
        lambda message: say(f"rehearsal: {message}"),
    )
    for timing in result.timings:
        if timing.error:
            raise RuntimeError(f"{timing.case} can't run: {timing.error}")


def say(message: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {message}", file=sys.stderr, flush=True)


def parse_cases(only: str | None, pools: int) -> tuple[str, ...]:
    """Return the cases of `--only`, or all. pandas and other transports are included by default up
    to SET only, and a full run in process always.

    Raises:
        ValueError: A name is no case.
    """
    if only is None:
        return tuple(
            case
            for case in CASES
            if pools <= SIZES["SET"][0] or case not in ("pandas", *TRANSPORTS)
        )
    names = only.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f"--only {','.join(unknown)} is no case; allowed: {', '.join(CASES)}")
    if not set(names) & set(FULL_RUNS):
        names.append("full-in-process")
    return tuple(case for case in CASES if case in names)


def size_of(text: str) -> History:
    """Parse `SET`, `L`, `4L` or POOLSxDAYS, as `50x60`.

    Raises:
        ValueError: It is another text.
    """
    pools, separator, days = text.partition("x")
    if text in SIZES:
        return History.until_today(*SIZES[text])
    if not (separator and pools.isdecimal() and days.isdecimal()):
        raise ValueError(f"{text} is no size; allowed: {', '.join(SIZES)} and POOLSxDAYS, as 50x60")
    return History.until_today(int(pools), int(days))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metrics",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--size", default="SET", help=f"{', '.join(SIZES)} or POOLSxDAYS (default: SET)"
    )
    parser.add_argument("--pools", type=int, help="pools, instead of the size's")
    parser.add_argument("--days", type=int, help="days, instead of the size's")
    parser.add_argument("--repeat", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--only", metavar="CASE,..", help=f"cases to run: {', '.join(CASES)}")
    parser.add_argument(
        "--exponent",
        metavar="SIZE,SIZE",
        help="instead of the cases: full runs at two sizes, and log(t2 / t1) / log(n2 / n1)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the JSON document instead of the table"
    )
    options = parser.parse_args(argv)
    try:
        options.cases = parse_cases(options.only, options.pools or size_of(options.size).pools)
        options.sizes = {
            size: size_of(size) for size in (options.exponent or options.size).split(",")
        }
    except ValueError as error:
        parser.error(str(error))
    if options.exponent and len(options.sizes) != 2:
        parser.error("--exponent takes two sizes, as L,4L")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    facts = machine_facts()
    # SIGTERM ends the server too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with temporary_server() as server:
        if options.exponent:
            rehearse(server, ["full"])
            results = run_exponent(server, options.sizes, options.repeat, say)
            payload, report = exponent_document(facts, results), exponent_text(facts, results)
        else:
            rehearse(server, options.cases)
            requested = options.sizes[options.size]
            history = History.until_today(
                options.pools or requested.pools, options.days or requested.days
            )
            size = options.size if history == requested else f"{history.pools}x{history.days}"
            result = run_size(server, size, history, options.cases, options.repeat, say)
            payload, report = result_document(facts, result), result_text(facts, result)
    results_folder = PROJECT / "benchmarks" / "results"
    results_folder.mkdir(exist_ok=True)
    path = results_folder / f"metrics-{datetime.now(UTC):%Y%m%dt%H%M%S}.json"
    path.write_text(json.dumps(payload, indent=1))
    print(json.dumps(payload) if options.json else report)
    say(f"written to {path}")


if __name__ == "__main__":
    main()
