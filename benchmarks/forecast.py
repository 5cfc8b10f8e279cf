"""Compares the forecasts with persistence, simple baselines and mlforecast on the same rows
(accuracy), or times the daily forecast and the fits (`--speed`). Prints tables, and writes JSON to
benchmarks/results/. Uses a PostgreSQL of its own and real pool history.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.databases import copied_database, temporary_server
from benchmarks.forecast_accuracy import Peer, run_period
from benchmarks.forecast_data import SHARED_DATA, Panel, history_files, largest_pools, load_history
from benchmarks.forecast_speed import run_daily_forecasts, run_scale
from benchmarks.forecast_table import Result, result_document, result_text
from benchmarks.metrics_table import machine_facts
from benchmarks.processes import PROJECT
from config_spark import Settings
from forecasting.engines.choose import ENGINES

ENDS = (dt.date(2025, 10, 5), dt.date(2025, 8, 6))
"""The shared data's last complete day, and the last day of the sixty before those."""

SPEED_PARTS = ("daily", "scale")

EXAMPLES = """examples:
  python -m benchmarks.forecast
      both engines, two periods of 60 days, mlforecast where it is installed
  python -m benchmarks.forecast --engines lightgbm --end 2025-10-05
      one backtest
  python -m benchmarks.forecast --pools 40 --days 10 --end 2025-10-05 --engines lightgbm
      a look whether it runs
  python -m benchmarks.forecast --data sample_data --end 2025-09-29
      the pools that come with the product
  python -m benchmarks.forecast --peer-python /opt/peer/bin/python
      mlforecast lives in another environment
  python -m benchmarks.forecast --speed
      the daily run, and 20,000 generated pools x 180 days
  python -m benchmarks.forecast --speed --only daily --repeat 5
  python -m benchmarks.forecast --speed --only scale --scale 500x180
"""


def run_accuracy(server: Settings, options: argparse.Namespace) -> Result:
    with _loaded(server, options) as (settings, result):
        peer = Peer.of(options.peer_python)
        if peer.missing:
            _say(f"mlforecast: {peer.missing}")
        periods = [
            run_period(settings, options.engines, end, options.days, options.refit, peer, _say)
            for end in options.ends
        ]
        return Result(result.source, result.pools, result.rows, result.loading, periods)


def run_speed(server: Settings, options: argparse.Namespace) -> Result:
    scale, daily_runs, panel = None, [], Result("generated", 0, 0)
    if "daily" in options.parts:
        with _loaded(server, options) as (settings, panel):
            daily_runs = run_daily_forecasts(
                settings, options.engines, options.ends[0], options.repeat, _say
            )
    if "scale" in options.parts:
        pools, days = options.scale
        scale = run_scale(server, Panel(pools, days, ENDS[0]), _say)
    return Result(
        panel.source, panel.pools, panel.rows, panel.loading, daily_runs=daily_runs, scale=scale
    )


@contextmanager
def _loaded(server: Settings, options: argparse.Namespace) -> Iterator[tuple[Settings, Result]]:
    """Load the history into a database of its own.

    Yields:
        Its settings, and the loaded rows.
    """
    with tempfile.TemporaryDirectory(prefix="yieldspark-benchmark-") as folder:
        files = (
            largest_pools(options.files, options.pools, Path(folder))
            if options.pools
            else options.files
        )
        ids = pq.read_table(files[0], columns=["pool_id"])["pool_id"]
        with copied_database(server, "bench_forecast") as settings:
            timings = load_history(settings, files, _say)
            yield settings, Result(options.files[0].name, len(ids.unique()), len(ids), timings)


def _say(message: str) -> None:
    print(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {message}", file=sys.stderr, flush=True)


def parse_names(text: str, allowed: Sequence[str]) -> list[str]:
    """Parse names separated by commas.

    Raises:
        argparse.ArgumentTypeError: A name is not allowed.
    """
    names = text.split(",")
    if unknown := [name for name in names if name not in allowed]:
        raise argparse.ArgumentTypeError(f"{','.join(unknown)} is none of {', '.join(allowed)}")
    return names


def size_of(text: str) -> tuple[int, int]:
    """Parse POOLSxDAYS, as `20000x180`.

    Raises:
        argparse.ArgumentTypeError: It is another text.
    """
    pools, _, days = text.partition("x")
    if not (pools.isdecimal() and days.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is no size; give POOLSxDAYS, as 20000x180")
    return int(pools), int(days)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forecast",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        default=SHARED_DATA,
        help=f"folder with a pool history and its pools (default: {SHARED_DATA})",
    )
    add("--pools", type=int, help="number of pools, those with the most rows; default: all")
    add(
        "--engines",
        type=lambda text: parse_names(text, ENGINES),
        default=list(ENGINES),
        metavar="ENGINE,..",
        help=f"default: {','.join(ENGINES)}",
    )
    add("--days", type=int, default=60, help="target days of a period (default: 60)")
    add("--refit", type=int, default=7, help="days between refits (default: 7)")
    add(
        "--end",
        type=dt.date.fromisoformat,
        action="append",
        dest="ends",
        metavar="DAY",
        help="last day of a period; repeatable",
    )
    add(
        "--peer-python",
        default=sys.executable,
        metavar="FILE",
        help="interpreter that has mlforecast (default: this one)",
    )
    _add_speed_options(parser)
    add("--json", action="store_true", help="print the JSON document instead of the tables")
    return parser


def _add_speed_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--speed",
        action="store_true",
        help="time the daily forecast and the fits, instead of the scores",
    )
    add(
        "--only",
        type=lambda text: parse_names(text, SPEED_PARTS),
        dest="parts",
        default=list(SPEED_PARTS),
        help="with --speed: daily or scale",
    )
    add(
        "--scale",
        type=size_of,
        default=(20_000, 180),
        metavar="POOLSxDAYS",
        help="with --speed: generated pools (default: 20000x180)",
    )
    add(
        "--repeat", type=int, default=3, help="with --speed: daily runs of each engine (default: 3)"
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    options.ends = options.ends or list(ENDS)
    if not options.speed or "daily" in options.parts:
        try:
            options.files = history_files(options.data)
        except FileNotFoundError as error:
            parser.error(str(error))
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    facts = machine_facts()
    # SIGTERM ends the server too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with temporary_server() as server:
            result = run_speed(server, options) if options.speed else run_accuracy(server, options)
    except RuntimeError as error:
        # a process failed; the message has the end of its output
        sys.exit(f"error: {error}")
    payload = result_document(facts, result)
    results_folder = PROJECT / "benchmarks" / "results"
    results_folder.mkdir(exist_ok=True)
    path = results_folder / f"forecast-{dt.datetime.now(dt.UTC):%Y%m%dt%H%M%S}.json"
    path.write_text(json.dumps(payload, indent=1))
    print(json.dumps(payload) if options.json else result_text(facts, result))
    _say(f"written to {path}")


if __name__ == "__main__":
    main()
