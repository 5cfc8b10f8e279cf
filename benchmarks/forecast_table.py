"""Report of the forecast benchmark: scores of all methods, seconds, stages and goals, as text and
JSON. Errors are APY points and USD; ratios are to persistence on the same rows, with a bootstrap
interval over days. MB are 2^20 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from statistics import median
from typing import Any

from benchmarks.forecast_accuracy import CLASSES, Period
from benchmarks.forecast_goals import (
    GoalResult,
    accuracy_goals,
    daily_run_goals,
    scale_goal,
    scale_ratio,
)
from benchmarks.forecast_speed import NATIVE, DailyRuns, Scale
from benchmarks.metrics_table import OUTSIDE, facts_line
from benchmarks.processes import Timing
from forecasting.evaluation.day_bootstrap import LEVEL

CLASS_LABELS = {
    "restricted": "restricted rows (TVL over 1 M USD, APY under 100 %)",
    "all": "all rows",
}
UNITS = {"apy": "points", "tvl": "USD"}
HEAD = (
    f"{'':24}{'MAE':>11}{'ratio':>8}  {'between':15}{'median':>11}{'ratio':>8} "
    f" {'between':15}{'RMSE':>11}{'MASE':>7}"
)
INTERVAL_HEAD = f"{'coverage':>10}{'width':>11}{'pinball':>9}"


@dataclass(frozen=True)
class Result:
    """Results of the requested parts. `pools` and `rows` (pool-days of history) describe
    the panel.
    """

    source: str
    pools: int
    rows: int
    loading: Sequence[Timing] = ()
    periods: Sequence[Period] = ()
    daily_runs: Sequence[DailyRuns] = ()
    scale: Scale | None = None

    def goals(self) -> list[GoalResult]:
        accuracy = chain.from_iterable(
            accuracy_goals(period, self.pools) for period in self.periods
        )
        return [
            *accuracy,
            *daily_run_goals(self.daily_runs, self.pools),
            *([scale_goal(self.scale)] if self.scale else []),
        ]


def result_document(facts: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """Return the JSON payload, with days as text."""
    payload = asdict(result)
    for part in (*payload["periods"], *payload["daily_runs"]):
        part |= {name: part[name].isoformat() for name in ("end", "as_of") if name in part}
    if result.scale:
        payload["scale"] |= {"ratio": round(scale_ratio(result.scale), 3)}
    return {**facts, **payload, "goals": [goal.document() for goal in result.goals()]}


def result_text(facts: Mapping[str, Any], result: Result) -> str:
    lines = [f"{result.source}: {result.pools:,} pools, {result.rows:,} rows", facts_line(facts)]
    for period in result.periods:
        lines += ["", *_period_lines(period)]
    of_periods = chain.from_iterable(period.timings.values() for period in result.periods)
    timings = [*result.loading, *of_periods]
    if timings:
        lines += ["", *_timing_lines(timings)]
    for runs in result.daily_runs:
        lines += ["", *_daily_run_lines(runs)]
    if result.scale:
        lines += ["", *_scale_lines(result.scale)]
    return "\n".join([*lines, "", "goals", *(goal.line() for goal in result.goals())])


def _period_lines(period: Period) -> Iterator[str]:
    yield (
        f"{period.days} days that end with {period.end}: {period.pools:,} pools, a refit every"
        f" {period.refit} days"
    )
    for target in period.scores:
        for name in CLASSES:
            class_scores = period.scores[target][name]
            yield ""
            yield (
                f"{target.upper()} ({UNITS[target]}), {CLASS_LABELS[name]}:"
                f" {class_scores['rows']:,} rows of {class_scores.get('pools', 0):,} pools"
            )
            yield HEAD + INTERVAL_HEAD
            yield from (
                _method_line(method, scores) for method, scores in class_scores["methods"].items()
            )
    yield ""
    yield (
        f"between: {LEVEL:.0%} of the bootstrap over days. pinball: ratio to the outer quantiles of"
        " each pool's last 60 changes."
    )
    if period.no_peer:
        yield f"mlforecast: {period.no_peer}"


def _method_line(name: str, scores: Mapping[str, Any]) -> str:
    ratio, interval = scores["ratio"], scores["interval"]
    parts = [f"{name:24}"]
    for error in ("mae", "median_ae"):
        parts.append(
            f"{_number(scores[error]):>11}{_ratio(ratio[error]):>8} "
            f" {_between(ratio[f'{error}_low'], ratio[f'{error}_high']):15}"
        )
    parts.append(f"{_number(scores['rmse']):>11}{_ratio(scores['mase']):>7}")
    if interval:
        parts.append(f"{_ratio(interval['coverage']):>10}{_number(interval['mean_width']):>11}")
        parts.append(f"{_ratio(interval['pinball_ratio']):>9}")
    return "".join(parts).rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _timing_lines(timings: Sequence[Timing]) -> Iterator[str]:
    yield f"{'':30}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}{'server MB':>11}  stages, seconds"
    for run in timings:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in _stages(run).items())
        yield (
            f"{run.case:30}{run.seconds:>9.1f}{run.cpu_seconds:>8.1f}{run.peak_mb:>9.0f}"
            f"{run.server_mb:>11.0f}  {stages}".rstrip()
        )


def _stages(run: Timing) -> dict[str, float]:
    """Return the ledger's stages and the seconds outside the ledger."""
    return dict(run.stages) | (
        {OUTSIDE: run.seconds - run.ledger_seconds} if run.ledger_seconds is not None else {}
    )


def _daily_run_lines(daily_runs: DailyRuns) -> Iterator[str]:
    runs = daily_runs.timings
    every = " ".join(f"{run.seconds:.1f}" for run in runs)
    peak, cpu_seconds = max(run.peak_mb for run in runs), median(run.cpu_seconds for run in runs)
    seconds = median(run.seconds for run in runs)
    yield (
        f"daily run {daily_runs.engine}, as of {daily_runs.as_of}: {seconds:.1f} s ({every}), CPU"
        f" {cpu_seconds:.1f} s, peak {peak:.0f} MB"
    )
    stages = [_stages(run) for run in runs]
    medians = []
    for name in dict.fromkeys(chain.from_iterable(stages)):
        seconds_of_stage = median(run_stages.get(name, 0.0) for run_stages in stages)
        medians.append(f"{name} {seconds_of_stage:.1f}")
    yield "  " + ", ".join(medians)


def _scale_lines(scale: Scale) -> Iterator[str]:
    rows, stages = scale.timing.rows, scale.timing.stages
    matrix = (
        f"{rows['feature rows']:,} rows of {rows['features']} features, {rows['models']} models"
    )
    yield f"{scale.pools:,} generated pools x {scale.days} days: {matrix}"
    yield "  " + ", ".join(
        f"{name} {seconds:.1f}" for name, seconds in stages.items() if name != NATIVE
    )
    identical = f"{rows['same models']} of {rows['models']} models the same to the last digit"
    yield (
        f"  ours {scale.timing.ledger_seconds:.1f} s, native fits {stages[NATIVE]:.1f} s,"
        f" {identical}; peak {scale.timing.peak_mb:.0f} MB"
    )
