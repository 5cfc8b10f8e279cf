"""Inputs of a bill that past runs know better than the model: durations by job, rows of a night,
and the share of a batch that the service billed.

In: inputs, their sources, past runs of the ledger. Out: the inputs with medians of the runs in
place of the model's figures, and for each one which runs they are from. A run of another number of
pools counts too: figures are rates. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from common.jobs import CALCULATE_METRICS, FORECAST_POOLS
from workflows.costs.bill_inputs import BillInputs
from workflows.costs.cost_ledger import PastRun
from workflows.costs.night_model import batch_usd, cores_of
from workflows.spec.platform_choice import DATAPROC

Figures = list[tuple[PastRun, float]]


@dataclass(frozen=True)
class KnownInputs:
    """Inputs, each one's source in words, and the runs of those that were measured, by their ids in
    the ledger (`batch_id`).
    """

    inputs: BillInputs
    sources: Mapping[str, str]
    measured_from: Mapping[str, tuple[str, ...]]


def with_measured(
    inputs: BillInputs, sources: Mapping[str, str], runs: Sequence[PastRun]
) -> KnownInputs:
    """Runs of another engine, and those that did not say how many pools they had, are left out."""
    metrics = [run for run in runs if run.job == CALCULATE_METRICS.name and run.pools and run.rows]
    forecasts = [
        run
        for run in runs
        if run.job == FORECAST_POOLS.name and run.pools and run.engine == inputs.engine
    ]
    shorter = [run for run in metrics + forecasts if run.seconds < inputs.cold_seconds]
    cold = min((run.seconds for run in shorter), default=inputs.cold_seconds)
    known = replace(inputs, cold_seconds=cold)
    figures = {
        "days_read": [(run, _days_read(run, known)) for run in metrics],
        "metrics_rows_per_core_second": [
            (run, _rows_per_core_second(run, known)) for run in metrics
        ],
        "forecast_seconds_per_pool": [
            (run, _seconds_per_pool(run, cold)) for run in forecasts if not run.refits
        ],
        "refit_seconds_per_pool": [
            (run, _seconds_per_pool(run, cold)) for run in forecasts if run.refits
        ],
        "metrics_billed_share": _billed_shares(metrics, known),
        "forecast_billed_share": _billed_shares(forecasts, known),
    }
    medians: dict[str, Any] = {}
    words, measured_from = dict(sources), {}
    for name, measured in figures.items():
        if measured:
            medians[name] = median(value for _, value in measured)
            words[name] = f"measured: median of {_words([run for run, _ in measured])}"
            measured_from[name] = tuple(run.batch_id for run, _ in measured)
    if shorter:
        words["cold_seconds"] = f"measured: the shortest of {_words(shorter)}"
        measured_from["cold_seconds"] = tuple(run.batch_id for run in shorter)
    return KnownInputs(replace(known, **medians), words, measured_from)


def _days_read(run: PastRun, inputs: BillInputs) -> float:
    return run.rows / _pools(run) / inputs.snapshots_of_a_day


def _rows_per_core_second(run: PastRun, inputs: BillInputs) -> float:
    # a run that is all start gives no rate: a second of work is the least that is told apart
    work = max(run.seconds - inputs.cold_seconds, 1.0)
    return run.rows / work / cores_of(run.job, run.platform, run.rows, inputs)


def _seconds_per_pool(run: PastRun, cold_seconds: float) -> float:
    return (run.seconds - cold_seconds) / _pools(run)


def _billed_shares(runs: Sequence[PastRun], inputs: BillInputs) -> Figures:
    """What the service billed, as a share of all executors for all of the time."""
    return [
        (run, run.cost_usd / batch_usd(run.job, run.rows, run.seconds, inputs))
        for run in runs
        if run.platform == DATAPROC and run.cost_usd is not None
    ]


def _pools(run: PastRun) -> int:
    assert run.pools, "runs without pools are left out"
    return run.pools


def _words(runs: Sequence[PastRun]) -> str:
    """How many runs, of which days, where, and of how many pools."""
    days = sorted(run.started.date() for run in runs)
    pools = sorted(_pools(run) for run in runs)
    platforms = " and ".join(sorted({run.platform for run in runs}))
    return (
        f"{len(runs)} runs, {days[0]} to {days[-1]}, {platforms}, {pools[0]:,} to"
        f" {pools[-1]:,} pools"
    )
