"""The metrics job beside its peers: whole processes, taking turns, on generated raw history in a
PostgreSQL of its own.

In: a size, the cases, how often. Out: a table of medians, ratios, peak memory and goals on standard
output, progress on standard error, and all of it as JSON in benchmarks/results/. Seconds are wall
time of the process, start-up included. Before anything counts, every case runs once on a tiny
history.
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
"""Pools and days by name: 715 thousand, 7.15 million and 28.6 million raw rows."""

TRANSPORTS = {
    "full-read-adbc": {"READ_TRANSPORT": "adbc"},
    "full-write-jdbc": {"WRITE_TRANSPORT": "jdbc"},
}
"""Full runs by another transport than the default one, and the setting that makes them so; up to
SET only, unless asked for.
"""

OURS = dict.fromkeys(["full", *TRANSPORTS, "new-day", "corrections"], "succeeded") | {
    "nothing-new": "nothing_to_do"
}
"""The job's own cases, and the status each must end with."""

CASES = ("full", *TRANSPORTS, *PEERS, "nothing-new", "new-day", "corrections")

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
    """One loaded history and the cases that run on it."""

    settings: Settings
    history: History
    say: Say
    differing: dict[str, int] = field(default_factory=dict)

    def load(self) -> int:
        """Fill the empty database; returns the raw rows."""
        rows = metrics_data.load(make_engine(self.settings), self.history, self.say)
        make_peer_tables(make_engine(self.settings))
        return rows

    def turn(self, cases: Sequence[str]) -> Iterator[Timing]:
        """Each case once, each from the state it needs. The full run is always made: the others
        stand beside its rows.
        """
        engine = make_engine(self.settings)
        for case in (name for name in TRANSPORTS if name in cases):
            empty_products_tables(engine)
            yield self._measured(case, self.settings, "--full-refresh")
        empty_products_tables(engine)
        yield self._measured("full", self.settings, "--full-refresh")
        for peer in (name for name in PEERS if name in cases):
            yield self._peer(peer)
        if "nothing-new" in cases:
            yield self._measured("nothing-new", self.settings)
        for case, arriving in (
            ("new-day", self.history.new_day),
            ("corrections", self.history.corrections),
        ):
            if case in cases:
                with self._copy_with(case, arriving()) as settings:
                    yield self._measured(case, settings)

    def _measured(self, case: str, settings: Settings, *options: str) -> Timing:
        """Raises: RuntimeError where the job did not end as the case must."""
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
            {**environment(settings), **TRANSPORTS.get(case, {})},
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
        timings = [timing for _ in range(repeat) for timing in bench.turn(cases)]
        return Result(size, history.pools, history.days, rows, timings, bench.differing)


def run_exponent(
    server: Settings, sizes: dict[str, History], repeat: int, say: Say
) -> list[Result]:
    """Full runs at two sizes, taking turns; both histories are loaded before the first."""
    (small, first), (large, second) = sizes.items()
    with (
        copied_database(server, "bench_small") as one,
        copied_database(server, "bench_large") as two,
    ):
        benches = {small: Bench(one, first, say), large: Bench(two, second, say)}
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
    """Every case once on a tiny history: what a first run makes (byte code, archives, caches) is
    there, and what can't run says so before hours.
    """
    result = run_size(
        server,
        "rehearsal",
        History.until_today(*REHEARSAL),
        cases,
        1,
        lambda words: _say(f"rehearsal: {words}"),
    )
    for timing in result.timings:
        if timing.error:
            raise RuntimeError(f"{timing.case} can't run: {timing.error}")


def _say(words: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {words}", file=sys.stderr, flush=True)


def chosen_cases(only: str | None, pools: int) -> tuple[str, ...]:
    """The cases of `--only`, or all; pandas and the other transports by themselves only up to SET.
    Raises: ValueError for a name that is none.
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
        raise ValueError(f"--only {','.join(unknown)} is no case; there are {', '.join(CASES)}")
    return tuple(case for case in CASES if case in names)


def size_of(words: str) -> History:
    """`SET`, `L`, `4L` or POOLSxDAYS, as `50x60`. Raises: ValueError."""
    pools, separator, days = words.partition("x")
    if words in SIZES:
        return History.until_today(*SIZES[words])
    if not (separator and pools.isdecimal() and days.isdecimal()):
        raise ValueError(
            f"{words} is no size; there are {', '.join(SIZES)} and POOLSxDAYS, as 50x60"
        )
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
    parser.add_argument(
        "--only", metavar="CASE,..", help=f"cases to run beside `full`: {', '.join(CASES)}"
    )
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
        options.cases = chosen_cases(options.only, options.pools or size_of(options.size).pools)
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
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # the server goes with an interrupt, however it comes
    with temporary_server() as server:
        if options.exponent:
            rehearse(server, ["full"])
            results = run_exponent(server, options.sizes, options.repeat, _say)
            document, words = exponent_document(facts, results), exponent_text(facts, results)
        else:
            rehearse(server, options.cases)
            named = options.sizes[options.size]
            history = History.until_today(options.pools or named.pools, options.days or named.days)
            size = options.size if history == named else f"{history.pools}x{history.days}"
            result = run_size(server, size, history, options.cases, options.repeat, _say)
            document, words = result_document(facts, result), result_text(facts, result)
    results_folder = PROJECT / "benchmarks" / "results"
    results_folder.mkdir(exist_ok=True)
    path = results_folder / f"metrics-{datetime.now(UTC):%Y%m%dt%H%M%S}.json"
    path.write_text(json.dumps(document, indent=1))
    print(json.dumps(document) if options.json else words)
    _say(f"written to {path}")


if __name__ == "__main__":
    main()
