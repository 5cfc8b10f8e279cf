"""Measures both executors of the metrics job by the number of raw rows, to find the number from
which Spark is faster: the limit of `EXECUTOR=auto`.

Full refreshes into empty tables, as whole processes that take turns, in a PostgreSQL of its own.
Prints the medians of wall and processor seconds (the server's included) and peak memory, and the
crossing. Every size runs once on a small history before the measurement.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

from benchmarks.databases import temporary_server
from benchmarks.metrics import rehearse, run_size, say, size_of
from benchmarks.metrics_table import Result, machine_facts

SIZES = "100x365,500x365,2000x365,4000x365,8000x365"
"""36 thousand to 2.9 million raw rows."""

CASES = {"spark": "full", "inprocess": "full-in-process"}


@dataclass(frozen=True)
class Comparison:
    """Both executors at one size.

    Attributes:
        rows: raw rows.
        seconds: median of the wall seconds, by executor.
        cpu_seconds: median of the processor seconds, by executor.
        peak_mb: largest memory of the processes, by executor.
    """

    rows: int
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    peak_mb: dict[str, float]

    @property
    def ratio(self) -> float:
        """Wall seconds of Spark, relative to those without a JVM."""
        return self.seconds["spark"] / self.seconds["inprocess"]


def compare(result: Result) -> Comparison:
    """Return the medians of one size."""
    comparison = Comparison(result.raw_rows, {}, {}, {})
    for name, case in CASES.items():
        runs = [timing for timing in result.timings if timing.case == case]
        comparison.seconds[name] = median(run.seconds for run in runs)
        comparison.cpu_seconds[name] = median(run.cpu_seconds for run in runs)
        comparison.peak_mb[name] = max(run.peak_mb for run in runs)
    return comparison


def crossing(comparisons: Sequence[Comparison]) -> float | None:
    """Return the number of rows from which Spark is faster, between two sizes by interpolation of
    the logarithms.

    Args:
        comparisons: by ascending rows.

    Returns:
        The rows; None if one executor is the faster one at all sizes.
    """
    for smaller, larger in pairwise(comparisons):
        if smaller.ratio > 1 >= larger.ratio:
            share = math.log(smaller.ratio) / math.log(smaller.ratio / larger.ratio)
            return float(smaller.rows * (larger.rows / smaller.rows) ** share)
    return None


def result_text(comparisons: Sequence[Comparison]) -> str:
    """Format a Markdown table, and the crossing."""
    lines = [
        "| raw rows | Spark | in process | Spark / in process | processor s, Spark | in process"
        " | MB, Spark | in process |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in comparisons:
        seconds, cpu, peak = size.seconds, size.cpu_seconds, size.peak_mb
        lines.append(
            f"| {size.rows:,} | {seconds['spark']:.1f} s | {seconds['inprocess']:.1f} s"
            f" | {size.ratio:.2f} | {cpu['spark']:.1f} | {cpu['inprocess']:.1f}"
            f" | {peak['spark']:,.0f} | {peak['inprocess']:,.0f} |"
        )
    rows = crossing(comparisons)
    found = f"from {rows:,.0f} raw rows on" if rows else "at none or all of these sizes"
    return "\n".join([*lines, f"Spark is faster {found}"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executors", description=__doc__)
    parser.add_argument(
        "--sizes", default=SIZES, help=f"POOLSxDAYS, ascending, separated by commas ({SIZES})"
    )
    parser.add_argument("--repeat", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    try:
        histories = {size: size_of(size) for size in options.sizes.split(",")}
    except ValueError as error:
        parser.error(str(error))
    cases = tuple(CASES.values())
    facts, comparisons = machine_facts(), []
    with temporary_server() as server:
        rehearse(server, cases)
        for size, history in histories.items():
            result = run_size(server, size, history, cases, options.repeat, say)
            comparisons.append(compare(result))
            say(f"{comparisons[-1].rows:,} rows: {comparisons[-1].seconds}")
    if options.json:
        print(json.dumps({**facts, "sizes": [asdict(size) for size in comparisons]}, indent=2))
        return
    print(*(f"{name}: {value}" for name, value in facts.items()), sep="\n")
    print(result_text(comparisons))


if __name__ == "__main__":
    main()
