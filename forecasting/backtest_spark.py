"""The backtest: scores of what would have been published on each of the last days.

Refits the model every REFIT_DAYS days and reads nothing after the last day. Writes
`yieldspark.forecast_evaluation`, but never over a row of a production run. Units: APY percent, TVL
USD, UTC days.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from config_spark import Settings
from database.connections.engine import make_engine
from database.connections.snapshots import exported_snapshot
from database.ledger.run_records import read_run
from database.ledger.runs import Run, open_run
from database.staging import commit_run
from forecasting.engines.folds import FoldPlan
from forecasting.evaluation.backtest import backtest_rows
from forecasting.evaluation.evaluate import EvaluationScores, scores_json, scores_of
from forecasting.executors.choose import open_executor
from forecasting.executors.executor import Executor
from forecasting.models.stacked_model import fit_stacked
from forecasting.publishing.forecast_history import BACKTEST
from forecasting.run.dataset import cached_dataset
from forecasting.run.forecast_rows import evaluation_to_stage
from forecasting.run.plan import RunPlan, plan_backtest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JOB = "backtest"


def run_backtest(
    settings: Settings,
    *,
    days: int,
    end: dt.date | None = None,
    engine: str | None = None,
    horizon: int | None = None,
    dry_run: bool = False,
    session: Callable[[int], SparkSession],
    keep: Callable[[pd.DataFrame], None] = lambda rows: None,
) -> dict[str, Any]:
    """Scores forecasts of the last target days, each from earlier data only.

    Gate and interval learn from forecasts of this backtest for the 90 days before the scored ones.

    Args:
        days: number of target days that are scored.
        end: last of them; default: the newest day with data.
        engine: overrides the setting ENGINE.
        horizon: days from an as-of day to its target day; default: each of HORIZONS.
        dry_run: returns the plan and writes nothing.
        session: makes the Spark session for a number of feature rows;
            called only if there is work for Spark.
        keep: receives the scored evaluation rows of all horizons once they are written.

    Returns:
        The row of the run ledger with `targets` (scores by target, of large pools and of all) and
        `groups` (by segment) of the shortest horizon, and `further_horizons`, if there are any;
        of a dry run `job`, `status` and `plan`.

    Raises:
        NotEnoughHistory: no metrics exist, or none of the last day.
        EnvironmentNotReady: the engine's runtime is missing.
        RunInProgress: another run of the job is active.
        DatabaseError: the database does not answer or refuses a statement.
    """
    engine_name = engine or settings.engine
    make_plan = partial(
        plan_backtest,
        settings,
        end=end,
        days=days,
        engine=engine_name,
        horizons=(horizon,) if horizon else settings.horizons,
        today=dt.datetime.now(dt.UTC).date(),
    )
    if dry_run:
        return {"job": JOB, "status": "planned", "plan": make_plan().summary()}
    database = make_engine(settings)
    with open_run(
        database,
        job=JOB,
        mode="backtest",
        engine_name=engine_name,
        as_of=end,
        code_version=settings.code_version,
    ) as run:
        with run.stage("plan"):
            plan = make_plan()
        run.as_of = plan.as_of
        run.plan = plan.summary() | {"scored_days": days, "refit_days": settings.refit_days}
        with open_executor(plan.executor, settings, run, partial(session, plan.rows)) as executor:
            rows, scores = _backtest(executor, settings, plan, days, run)
            keep(rows)
    return read_run(database, run.run_id).to_json() | scores_json(scores)


def _backtest(
    executor: Executor, settings: Settings, plan: RunPlan, days: int, run: Run
) -> tuple[pd.DataFrame, dict[int, EvaluationScores]]:
    """The scored rows of all horizons, committed, and their scores by horizon."""
    rows, scores = [], {}
    with exported_snapshot(settings) as snapshot:
        for part in plan.horizons:
            forecasts = forecast_backtest_days(
                executor,
                settings,
                plan.engine,
                part.folds,
                run,
                snapshot,
                transfer=part.transfers,
            )
            # the days before only gave gate and interval a history
            first = plan.as_of - dt.timedelta(days=days - 1)
            rows.append(forecasts[forecasts["target_date"] >= first])
    with run.stage("score"):
        for part, scored in zip(plan.horizons, rows, strict=True):
            scores[part.horizon] = scores_of(make_engine(settings), scored, settings.interval_level)
    all_rows = pd.concat(rows, ignore_index=True)
    staged = executor.staged(evaluation_to_stage(all_rows, BACKTEST))
    commit_run(run, [staged], on_loaded=executor.on_loaded)
    return all_rows, scores


def forecast_backtest_days(
    executor: Executor,
    settings: Settings,
    engine: str,
    folds: FoldPlan,
    run: Run,
    snapshot: str,
    *,
    transfer: bool = False,
) -> pd.DataFrame:
    """Fits the plan's folds and publishes every day that they forecast.

    Args:
        engine: name of the forecasting engine.
        snapshot: id of an exported snapshot of the database.
        transfer: whether fits learn from the transfer panel too.

    Returns:
        Rows of `yieldspark.forecast_evaluation` for both targets, of target days with an actual
        value. The first days have no gate and no interval yet.
    """
    with cached_dataset(
        executor, settings, executor.engine(engine), folds, run, snapshot, transfer=transfer
    ) as (dataset, _):
        sample = fit_stacked(dataset, folds, settings.interval_level, run.stage)
    with run.stage("publish"):
        return backtest_rows(settings, engine, sample, folds, run)
