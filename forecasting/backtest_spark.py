"""The backtest: what would have been published on each of the last days, from a model refitted
every few days, beside what came true.

Reads what the forecast job reads, and nothing after the last day. Writes
`yieldspark.forecast_evaluation`, where it replaces nothing that a night has published. Units: APY
percent, TVL USD, UTC days.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession

from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import StagedFrame, commit_run, exported_snapshot
from database.ledger.runs import Run, ledger_row, open_run
from forecasting.engines.choose import choose_engine
from forecasting.engines.folds import FoldPlan
from forecasting.evaluation.backtest import evaluation_rows, publish_days
from forecasting.evaluation.evaluate import scores_of
from forecasting.features.targets import targets_of
from forecasting.models.stacked_model import OutOfSample, fit_stacked
from forecasting.publishing.forecast_history import BACKTEST
from forecasting.publishing.past_forecasts import empty_history
from forecasting.run.dataset import cached_dataset
from forecasting.run.forecast_rows import evaluation_staging
from forecasting.run.plan import plan_backtest
from spark.interrupt import interruptible

JOB = "backtest"


def run_backtest(
    settings: Settings,
    *,
    days: int,
    end: dt.date | None = None,
    engine: str | None = None,
    dry_run: bool = False,
    session: Callable[[], SparkSession],
    keep: Callable[[pd.DataFrame], None] = lambda rows: None,
) -> dict[str, Any]:
    """Score the `days` target days that end with `end` (default: the newest day with data).

    Gate and interval learn from forecasts of the same backtest alone, made for the 90 days before;
    horizon and refit interval are the settings'.
    Args: keep is given the scored evaluation rows, of this backtest alone, when they are written.
    Returns: the ledger row with `targets` (scores by target and by restricted or all rows) and
    `groups`; a dry run: the plan's document.
    Raises: NotEnoughHistory, EnvironmentNotReady, RunInProgress, DatabaseError.
    """
    name, today = engine or settings.engine, dt.datetime.now(dt.UTC).date()
    if dry_run:
        return {
            "job": JOB,
            "status": "planned",
            "plan": (
                plan_backtest(settings, end=end, days=days, engine=name, today=today).document()
            ),
        }
    database = make_engine(settings)
    with open_run(
        database,
        job=JOB,
        mode="backtest",
        engine_name=name,
        as_of=end,
        code_version=settings.code_version,
    ) as run:
        with run.stage("plan"):
            plan = plan_backtest(settings, end=end, days=days, engine=name, today=today)
        run.as_of, run.plan = (
            plan.as_of,
            plan.document() | {"scored_days": days, "refit_days": settings.refit_days},
        )
        with run.stage("session"):
            spark = session()
            run.jvm_started = True
        with interruptible(spark):
            with exported_snapshot(settings) as snapshot:
                rows = forecast_backtest_days(spark, settings, name, plan.folds, run, snapshot)
            scored = rows[rows["target_date"] > plan.as_of - dt.timedelta(days=days)]
            with run.stage("score"):
                scores = scores_of(database, scored, settings.interval_level)
            commit_run(run, settings, [StagedFrame(*evaluation_staging(spark, scored, BACKTEST))])
            keep(scored)
    return ledger_row(database, run.run_id) | scores


def forecast_backtest_days(
    spark: SparkSession, settings: Settings, engine: str, folds: FoldPlan, run: Run, snapshot: str
) -> pd.DataFrame:
    """Evaluation rows of both targets whose value has come true, of every day that the plan
    forecasts; gate and interval begin without a past.
    """
    with cached_dataset(
        spark, settings, choose_engine(engine, settings, spark), folds, run, snapshot
    ) as (dataset, _):
        sample = fit_stacked(dataset, folds, settings.interval_level, run.stage)
    with run.stage("publish"):
        return backtest_rows(settings, engine, sample, folds, run)


def backtest_rows(
    settings: Settings, engine: str, sample: OutOfSample, folds: FoldPlan, run: Run
) -> pd.DataFrame:
    """Evaluation rows of an out-of-sample run that have come true, as a backtest makes them: gate
    and interval learn from the run's own days.
    """
    publish = partial(
        publish_days, horizon=folds.horizon, level=settings.interval_level, ledger=empty_history()
    )
    evaluated = partial(
        evaluation_rows,
        engine=engine,
        horizon=folds.horizon,
        level=settings.interval_level,
        source=BACKTEST,
        run_id=run.run_id,
    )
    rows = []
    for target in targets_of(settings):
        found = publish(sample.rows, target, folds.forecast.days)
        rows.append(evaluated(found[found["next"].notna()], sample, target))
    return pd.concat(rows, ignore_index=True)
