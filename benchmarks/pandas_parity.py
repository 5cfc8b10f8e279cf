"""Compares the product's rows with the same metrics in common pandas code: counts differences by
column and cause. Uses generated history or files, in a PostgreSQL of its own. Exit code 1 if a
difference has no cause. Run: `python -m benchmarks.pandas_parity`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import metrics_data
from benchmarks.databases import environment, temporary_server
from benchmarks.metrics import JOB
from benchmarks.metrics_data import History
from benchmarks.parity import CAUSES, UNEXPLAINED, ComparisonData, Parity, compare
from benchmarks.processes import PROJECT, measure
from config_spark import Settings
from data_processing.ingest.loading.load_files import load_files
from database.connections.engine import make_engine
from database.schema.owner_tables import METRIC_COLUMNS

SHARED_HISTORY = PROJECT.parent / "shared" / "data" / "defillama_pool_history.parquet"

COMPANION_FILES = ("defillama_pools.parquet", "ETHUSDT_1d.csv", "BTCUSDT_1d.csv", "AvgGasPrice.csv")
"""Also loaded if they are next to the history: pools, prices and gas."""

EXAMPLES = f"""examples:
  python -m benchmarks.pandas_parity                          200 generated pools x 365 days
  python -m benchmarks.pandas_parity --pools 50 --days 90
  python -m benchmarks.pandas_parity --data                   {SHARED_HISTORY.name}
                                                              next to the checkout
  python -m benchmarks.pandas_parity --data HISTORY.parquet   a history of your own
"""


def run(settings: Settings) -> Parity:
    """Compute the metrics of a loaded database with the job, and compare.

    Raises:
        RuntimeError: The job failed.
    """
    timing = measure(
        "full", [*JOB, "--full-refresh"], environment(settings), folder=settings.yieldspark_home
    )
    if timing.error:
        raise RuntimeError(f"the job failed, {timing.error}")
    return compare(ComparisonData.read(make_engine(settings)))


def report(parity: Parity) -> str:
    """Describe each column (cells compared, equal, different, causes), then the meaning of
    each cause.
    """
    lines = [f"{parity.rows_of_both:,} rows in both"]
    for owner, causes in (("pandas", parity.only_pandas), ("the product", parity.only_product)):
        lines.append(f"{sum(causes.values()):,} rows in {owner} alone{_counts_text(causes)}")
    lines += ["", f"{'column':28}{'compared':>12}{'equal':>12}{'different':>11}{'share':>9}  why"]
    for name in METRIC_COLUMNS:
        different = sum(parity.cells[name].values())
        share = different / parity.rows_of_both if parity.rows_of_both else 0.0
        counts = (
            f"{parity.rows_of_both:>12,}{parity.rows_of_both - different:>12,}"
            f"{different:>11,}{share:>9.2%}"
        )
        lines.append(f"{name:28}{counts}{_counts_text(parity.cells[name]).replace(': ', '  ', 1)}")
    lines += [
        "",
        (
            "causes, in the order in which pandas is corrected; a cell with several causes counts"
            " for the last of them"
        ),
    ]
    lines += [f"  {name}: {meaning}" for name, meaning in CAUSES.items()]
    return "\n".join([*lines, "", f"{UNEXPLAINED}: {parity.unexplained:,}"])


def _counts_text(causes: dict[str, int]) -> str:
    ordered = sorted(causes.items(), key=lambda item: -item[1])
    return ": " * bool(ordered) + ", ".join(f"{name} {count:,}" for name, count in ordered)


def _load(settings: Settings, options: argparse.Namespace) -> None:
    if options.data is None:
        metrics_data.load(
            make_engine(settings), History.until_today(options.pools, options.days), _say
        )
        return
    companions = [options.data.with_name(name) for name in COMPANION_FILES]
    load_files(
        settings, [options.data, *(path for path in companions if path.exists())], progress=_say
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pandas_parity",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pools", type=int, default=200, help="generated pools (default: 200)")
    parser.add_argument("--days", type=int, default=365, help="generated days (default: 365)")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="?",
        const=SHARED_HISTORY,
        help="a history file instead of generated rows",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON document")
    options = parser.parse_args(argv)
    if options.data and not options.data.exists():
        parser.error(f"--data {options.data}: there is no such file")
    # SIGTERM ends the server too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with temporary_server() as settings:
        _load(settings, options)
        parity = run(settings)
    print(json.dumps(parity.document()) if options.json else report(parity))
    return 1 if parity.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
