"""Replaces the bill's modelled inputs by medians of past runs: durations, rows and the billed share
of a batch. Runs with other numbers of pools count too, because the inputs are rates. Performs no
I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from common.jobs import CALCULATE_METRICS, FORECAST_POOLS
from workflows.costs.bill_inputs import BillInputs
from workflows.costs.cost_ledger import PastRun
from workflows.costs.daily_cost import batch_usd, cold_seconds_of, cores_of, has_jvm
from workflows.spec.platform_choice import DATAPROC

Figures = list[tuple[PastRun, float]]


@dataclass(frozen=True)
class BillBasis:
    """Inputs of a bill and their origin.

    Attributes:
        inputs: The inputs.
        sources: Source of each input, for a reader.
        measured_from: Batch ids of the runs behind each measured input.
    """

    inputs: BillInputs
    sources: Mapping[str, str]
    measured_from: Mapping[str, tuple[str, ...]]


def with_measured(
    inputs: BillInputs, sources: Mapping[str, str], runs: Sequence[PastRun]
) -> BillBasis:
    """Replace inputs by medians of past runs.

    Args:
        inputs: Modelled inputs.
        sources: Source of each input.
        runs: Past runs; those of another engine or without a number of pools are left out.
    """
    metrics = [run for run in runs if run.job == CALCULATE_METRICS.name and run.pools and run.rows]
    forecasts = [
        run
        for run in runs
        if run.job == FORECAST_POOLS.name and run.pools and run.engine == inputs.engine
    ]
    shorter = _shorter_than_a_start(metrics + forecasts, inputs)
    starts: dict[str, Any] = {}
    for name, short_runs in shorter.items():
        starts[name] = min(run.seconds for run in short_runs)
    cold_inputs = replace(inputs, **starts)
    # the shortest run defines the start-up time, so it has no work of its own to measure
    working = [run for run in metrics if run.seconds > _cold_seconds(run, cold_inputs)]
    forecasting = [run for run in forecasts if run.seconds > _cold_seconds(run, cold_inputs)]
    figures = {
        "days_read": [(run, _days_read(run, cold_inputs)) for run in metrics],
        "metrics_rows_per_core_second": [
            (run, _rows_per_core_second(run, cold_inputs)) for run in working
        ],
        "forecast_seconds_per_pool": [
            (run, _seconds_per_pool(run, cold_inputs)) for run in forecasting if not run.refits
        ],
        "refit_seconds_per_pool": [
            (run, _seconds_per_pool(run, cold_inputs)) for run in forecasting if run.refits
        ],
        "metrics_billed_share": _billed_shares(metrics, cold_inputs),
        "forecast_billed_share": _billed_shares(forecasts, cold_inputs),
    }
    medians: dict[str, Any] = {}
    sources_by_name, measured_from = dict(sources), {}
    for name, measured in figures.items():
        if measured:
            medians[name] = median(value for _, value in measured)
            sources_by_name[name] = f"measured: median of {_describe([run for run, _ in measured])}"
            measured_from[name] = tuple(run.batch_id for run, _ in measured)
    for name, shorter_runs in shorter.items():
        sources_by_name[name] = f"measured: the shortest of {_describe(shorter_runs)}"
        measured_from[name] = tuple(run.batch_id for run in shorter_runs)
    return BillBasis(replace(cold_inputs, **medians), sources_by_name, measured_from)


def _shorter_than_a_start(
    runs: Sequence[PastRun], inputs: BillInputs
) -> Mapping[str, Sequence[PastRun]]:
    """Return the runs that took less than the modelled start, by the name of its input."""
    shorter: dict[str, list[PastRun]] = {}
    for run in runs:
        if run.seconds < _cold_seconds(run, inputs):
            is_spark = has_jvm(run.job, run.platform, run.rows, inputs)
            name = "cold_seconds" if is_spark else "cold_seconds_without_jvm"
            shorter.setdefault(name, []).append(run)
    return shorter


def _days_read(run: PastRun, inputs: BillInputs) -> float:
    return run.rows / _pools(run) / inputs.snapshots_of_a_day


def _rows_per_core_second(run: PastRun, inputs: BillInputs) -> float:
    # 1 s is the shortest work that is measurable
    work = max(run.seconds - _cold_seconds(run, inputs), 1.0)
    return run.rows / work / cores_of(run.job, run.platform, run.rows, inputs)


def _seconds_per_pool(run: PastRun, inputs: BillInputs) -> float:
    return (run.seconds - _cold_seconds(run, inputs)) / _pools(run)


def _cold_seconds(run: PastRun, inputs: BillInputs) -> float:
    return cold_seconds_of(run.job, run.platform, run.rows, inputs)


def _billed_shares(runs: Sequence[PastRun], inputs: BillInputs) -> Figures:
    """Return the billed cost as a share of all executors for all of the time."""
    return [
        (run, run.cost_usd / batch_usd(run.job, run.rows, run.seconds, inputs))
        for run in runs
        if run.platform == DATAPROC and run.cost_usd is not None
    ]


def _pools(run: PastRun) -> int:
    assert run.pools, "runs without pools are left out"
    return run.pools


def _describe(runs: Sequence[PastRun]) -> str:
    """Describe runs: number, days, platforms and pools."""
    days = sorted(run.started.date() for run in runs)
    pools = sorted(_pools(run) for run in runs)
    platforms = " and ".join(sorted({run.platform for run in runs}))
    return (
        f"{len(runs)} runs, {days[0]} to {days[-1]}, {platforms}, {pools[0]:,} to"
        f" {pools[-1]:,} pools"
    )
