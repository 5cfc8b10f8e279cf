"""Report of the metrics benchmark: medians, ratios, peaks, stages and goals, as text and JSON. MB
are 2^20 bytes. Performs no measurement.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peer_rules import PEERS
from benchmarks.processes import PROJECT, Timing

OUTSIDE = "outside the ledger"
"""Seconds of a process beyond its ledger's: interpreter, imports, migration check, exit."""

EXPONENT_GOAL = 1.05

IN_PROCESS, NEW_DAY = "full-in-process", "new-day-in-process"


@dataclass(frozen=True)
class Result:
    """One size: all timings in their order, and the number of a peer's rows that differ from the
    product's.
    """

    size: str
    pools: int
    days: int
    raw_rows: int
    timings: Sequence[Timing]
    differing: Mapping[str, int]

    def runs(self, case: str) -> list[Timing]:
        return [timing for timing in self.timings if timing.case == case and timing.error is None]

    def seconds(self, case: str) -> float:
        """Return the median; NaN if the case did not run."""
        return median(run.seconds for run in self.runs(case)) if self.runs(case) else math.nan

    def ledger_seconds(self, case: str) -> float:
        """Return the median of the seconds that the process printed; NaN without any."""
        seconds = [run.ledger_seconds for run in self.runs(case) if run.ledger_seconds is not None]
        return median(seconds) if seconds else math.nan

    def peak_mb(self, case: str) -> float:
        """Return the largest peak; NaN if the case did not run."""
        return max((run.peak_mb for run in self.runs(case)), default=math.nan)

    def stages(self, case: str) -> dict[str, float]:
        """Return the median seconds of each stage, and outside the ledger."""
        runs = [run for run in self.runs(case) if run.ledger_seconds is not None]
        if not runs:
            return {}
        stages = {}
        for name in dict.fromkeys(chain.from_iterable(run.stages for run in runs)):
            stages[name] = median(run.stages.get(name, 0.0) for run in runs)
        return stages | {OUTSIDE: median(run.seconds - (run.ledger_seconds or 0.0) for run in runs)}


@dataclass(frozen=True)
class Goal:
    """A figure of a `Result` and its bound.

    Attributes:
        name: Name of the goal.
        size: Size that it is set for; None for any.
        case: Case whose stages explain a miss.
        figure: Computes the figure.
        bound: Bound of the figure.
        unit: Unit of both.
        at_least: Whether the bound is a minimum.
    """

    name: str
    size: str | None
    case: str
    figure: Callable[[Result], float]
    bound: float
    unit: str = ""
    at_least: bool = False

    def is_hit(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound


def _ratio(over: str, under: str) -> Callable[[Result], float]:
    return lambda result: result.seconds(over) / result.seconds(under)


def _largest_peak(result: Result) -> float:
    cases = ("full", "new-day", "corrections", IN_PROCESS, NEW_DAY)
    peaks = [result.peak_mb(case) for case in cases]
    return max((peak for peak in peaks if not math.isnan(peak)), default=math.nan)


def _over_floor(case: str) -> Callable[[Result], float]:
    """Return the ratio of a case to the three statements of `peer_floor`, without start-up."""
    return lambda result: result.seconds(case) / result.ledger_seconds("floor")


GOALS = (
    Goal("full in process / polars", "SET", IN_PROCESS, _ratio(IN_PROCESS, "polars"), 0.8),
    Goal("full by Spark / polars", "SET", "full", _ratio("full", "polars"), 1.3),
    Goal("pandas / full in process", "SET", IN_PROCESS, _ratio("pandas", IN_PROCESS), 12, "", True),
    Goal("new day in process", "SET", NEW_DAY, lambda result: result.seconds(NEW_DAY), 2.5, " s"),
    Goal("full in process / floor", "L", IN_PROCESS, _over_floor(IN_PROCESS), 1.5),
    Goal("full by Spark / floor", "L", "full", _over_floor("full"), 1.5),
    Goal("full in process / plain Spark", "L", IN_PROCESS, _ratio(IN_PROCESS, "spark"), 0.5),
    Goal("new day in process / polars full", "L", NEW_DAY, _ratio(NEW_DAY, "polars"), 0.1),
    Goal("peak memory", "L", "full", _largest_peak, 6144, " MB"),
    Goal(
        "nothing new", None, "nothing-new", lambda result: result.seconds("nothing-new"), 2.0, " s"
    ),
)


def goal_results(result: Result) -> list[dict[str, Any]]:
    """Compare each goal whose cases ran.

    Returns:
        name, size it is set for, figure, bound, hit, missed_by (in the figure's unit), longest
        stage of its case.
    """
    results = []
    for goal in GOALS:
        figure = goal.figure(result)
        if math.isnan(figure):
            continue
        hit = goal.is_hit(figure)
        stages = result.stages(goal.case)
        results.append(
            {
                "name": goal.name,
                "set_for": goal.size,
                "figure": round(figure, 3),
                "unit": goal.unit,
                "bound": goal.bound,
                "at_least": goal.at_least,
                "hit": hit,
                "missed_by": 0.0 if hit else round(abs(figure - goal.bound), 3),
                "longest_stage": max(stages, key=lambda name: stages[name]) if stages else None,
                "case": goal.case,
            }
        )
    return results


def machine_facts() -> dict[str, Any]:
    """Return commit, machine and its load: a busy machine also measures other processes."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_kb = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "command": " ".join(sys.argv),
        "commit": commit,
        "machine": (
            f"{cpu}, {os.cpu_count()} cores, {memory_kb / 2**20:.0f} GB, {platform.system()}"
            f" {platform.machine()}"
        ),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def result_document(facts: Mapping[str, Any], result: Result) -> dict[str, Any]:
    return {
        **facts,
        **asdict(result),
        "stages": {case: result.stages(case) for case in _cases(result)},
        "goals": goal_results(result),
    }


def _cases(result: Result) -> list[str]:
    return list(dict.fromkeys(timing.case for timing in result.timings))


def result_text(facts: Mapping[str, Any], result: Result) -> str:
    """Return the table, the stages of the job's cases and the goals."""
    title = (
        f"{result.size}: {result.pools:,} pools x {result.days} days, {result.raw_rows:,} raw rows"
    )
    head = (
        f"{'':24}{'seconds':>9}{'/ full':>8}{'/ polars':>10}{'CPU s':>8}"
        f"{'peak MB':>9}{'server MB':>11}{'differ':>9}  runs, s"
    )
    rows = [_row(result, case) for case in _cases(result)]
    stages = [_stages_line(result, case) for case in _cases(result) if result.stages(case)]
    goals = [_goal_line(result, goal) for goal in goal_results(result)]
    return "\n".join(
        [
            title,
            facts_line(facts),
            "",
            head,
            *rows,
            "",
            "stages, median seconds",
            *stages,
            "",
            "goals",
            *goals,
            *_notes(result),
        ]
    )


def facts_line(facts: Mapping[str, Any]) -> str:
    return (
        f"commit {facts['commit']}, {facts['machine']}, Python {facts['python']}, load"
        f" {facts['load_at_start']} at the start"
    )


def _row(result: Result, case: str) -> str:
    name = case if case in PEERS else f"ours {case}"
    runs = result.runs(case)
    failed = [timing.error for timing in result.timings if timing.case == case and timing.error]
    if not runs:
        return f"{name:24}  failed: {failed[0].splitlines()[-1] if failed and failed[0] else ''}"
    differ = f"{result.differing[case]:,}" if case in result.differing else ""
    seconds, server_mb = result.seconds(case), max(run.server_mb for run in runs)
    ratios = (
        f"{_share(seconds, result.seconds('full')):>8}"
        f"{_share(seconds, result.seconds('polars')):>10}"
    )
    run_seconds = " ".join(
        f"{run.seconds:.1f}" for run in runs
    ) + f" ({len(failed)} failed)" * bool(failed)
    cpu_seconds = median(run.cpu_seconds for run in runs)
    return (
        f"{name:24}{seconds:>9.1f}{ratios}{cpu_seconds:>8.1f}"
        f"{result.peak_mb(case):>9.0f}{server_mb:>11.0f}{differ:>9}  {run_seconds}"
    )


def _share(seconds: float, other: float) -> str:
    return "" if math.isnan(other) else f"{seconds / other:.2f}"


def _stages_line(result: Result, case: str) -> str:
    rows = ", ".join(
        f"{count:,} {name}" for name, count in result.runs(case)[-1].rows.items() if count
    )
    return (
        f"  {case}:"
        f" {', '.join(f'{name} {seconds:.1f}' for name, seconds in result.stages(case).items())}"
        + f" | {rows}"
        * bool(rows)
    )


def _goal_line(result: Result, goal: Mapping[str, Any]) -> str:
    sign = ">=" if goal["at_least"] else "<="
    verdict = (
        "hit"
        if goal["hit"]
        else (
            f"missed by {goal['missed_by']:g}{goal['unit']}"
            f" ({goal['missed_by'] / goal['bound']:.0%})"
        )
    )
    elsewhere = (
        f" (a goal for {goal['set_for']})" if goal["set_for"] not in (None, result.size) else ""
    )
    longest = (
        f"; longest stage of {goal['case']}: {goal['longest_stage']}"
        if goal["longest_stage"]
        else ""
    )
    return (
        f"  {goal['name']}: {goal['figure']:g}{goal['unit']}, goal {sign}"
        f" {goal['bound']:g}{goal['unit']}: {verdict}{elsewhere}{longest}"
    )


def _notes(result: Result) -> list[str]:
    notes = [
        "",
        "CPU s: processor seconds of the process, its descendants and the server together.",
    ]
    notes += [
        "differ: rows not the same in the product's table and the peer's, beyond the last stored"
        " decimal."
    ]
    if "pandas" in result.differing:
        notes.append(
            "pandas, in the common way, fills without end and follows other rules: `python -m"
            " benchmarks.pandas_parity` counts each cause."
        )
    return notes


def exponent(results: Sequence[Result]) -> float:
    """Return log(t2 / t1) / log(n2 / n1) of the full runs' medians over raw rows."""
    small, large = results
    return math.log(large.seconds("full") / small.seconds("full")) / math.log(
        large.raw_rows / small.raw_rows
    )


def exponent_document(facts: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    power = exponent(results)
    return {
        **facts,
        "exponent": round(power, 3),
        "bound": EXPONENT_GOAL,
        "hit": power <= EXPONENT_GOAL,
        "sizes": [asdict(result) | {"stages": result.stages("full")} for result in results],
    }


def exponent_text(facts: Mapping[str, Any], results: Sequence[Result]) -> str:
    small, large = results
    overall_power = exponent(results)
    lines = [
        facts_line(facts),
        "",
        f"{'full':14}{'raw rows':>12}{'seconds':>9}{'peak MB':>9}  runs, s",
    ]
    for result in results:
        run_seconds = " ".join(f"{run.seconds:.1f}" for run in result.runs("full"))
        lines.append(
            f"{result.size:14}{result.raw_rows:>12,}{result.seconds('full'):>9.1f}{result.peak_mb('full'):>9.0f}"
            f"  {run_seconds}"
        )
    verdict = (
        "hit"
        if overall_power <= EXPONENT_GOAL
        else f"missed by {overall_power - EXPONENT_GOAL:.3f}"
    )
    lines += [
        "",
        f"time grows with rows to the power {overall_power:.3f},"
        f" goal <= {EXPONENT_GOAL}: {verdict}",
        "each stage's own power:",
    ]
    for name, seconds in large.stages("full").items():
        before = small.stages("full").get(name, 0.0)
        stage_power = (
            f"{math.log(seconds / before) / math.log(large.raw_rows / small.raw_rows):.2f}"
            if before > 0 and seconds > 0
            else "-"
        )
        lines.append(f"  {name}: {before:.1f} -> {seconds:.1f} s, {stage_power}")
    return "\n".join(lines)
