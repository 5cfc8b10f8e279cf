"""The forecast job: next day's APY and TVL of every active pool, with intervals.

Reads the metrics table, the staleness of its values, `pools`, the forecast history and the model
registry. Writes `yieldspark.forecasts`, the forecast columns of the metrics table at (pool, D + 1),
`yieldspark.forecast_evaluation` and the decision on a new model version in one commit. Units: APY
percent, TVL USD, UTC days.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__" and (Path(__file__).resolve().parents[1] / "config_spark.py").is_file():
    # a script that is started by its path has its own folder on the path, not the checkout's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from cli.job_script import run_job_script
from common.jobs import FORECAST_POOLS
from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import StagedFrame, commit_run, exported_snapshot
from database.ledger.check_result import CheckResult
from database.ledger.run_records import read_run
from database.ledger.runs import Run, open_run
from database.schema.metrics_table import metrics_table
from forecasting.engines.choose import choose_engine
from forecasting.evaluation.backtest import backtest_rows
from forecasting.evaluation.scores import score_table, summary_line, table_json
from forecasting.features.targets import Target, targets_of
from forecasting.publishing.fallbacks import apply_fallbacks, join_targets
from forecasting.publishing.forecast_history import (
    BACKTEST,
    PRODUCTION,
    history_by_target,
    scored_rows,
    to_past_rows,
    update_actuals,
)
from forecasting.publishing.intervals import relative_quantiles
from forecasting.publishing.past_forecasts import past_forecasts
from forecasting.publishing.publish import evaluation_rows, publish_days
from forecasting.run.dataset import active_pools, cached_dataset
from forecasting.run.forecast_rows import evaluation_staging, forecast_staging
from forecasting.run.health_checks import forecast_explanations, model_health_checks
from forecasting.run.plan import ForecastPlan, plan_forecast
from forecasting.run.registration import model_checks, record_refit, register_versions
from forecasting.run.serving_model import ServingModel, select_or_fit_model
from spark.interrupt import interruptible

log = logging.getLogger(__name__)

JOB = FORECAST_POOLS.name
# target days of the score check, without the run's own forecasts
SCORED_DAYS = 30


def run_forecast(
    settings: Settings,
    *,
    as_of: dt.date | None = None,
    engine: str | None = None,
    dry_run: bool = False,
    session: Callable[[], SparkSession],
) -> dict[str, Any]:
    """Forecasts the day HORIZON_DAYS after the as-of day.

    Args:
        as_of: last day whose values may be used; default: the last complete UTC day, or the newest
            day with data before it.
        engine: overrides the setting ENGINE.
        dry_run: returns the plan and writes nothing.
        session: makes the Spark session; called only if there is work.

    Returns:
        The row of the run ledger; of a dry run `job`, `status` and `plan`.

    Raises:
        NotEnoughHistory: no metrics exist, or none of the as-of day.
        EnvironmentNotReady: the engine's runtime is missing.
        RunInProgress: another run of the job is active.
        DatabaseError: the database does not answer or refuses a statement.
    """
    engine_name = engine or settings.engine
    today = dt.datetime.now(dt.UTC).date()
    if dry_run:
        plan = plan_forecast(settings, as_of=as_of, engine=engine_name, today=today)
        return {"job": JOB, "status": "planned", "plan": plan.summary()}
    database = make_engine(settings)
    with open_run(
        database,
        job=JOB,
        mode="as_of" if as_of else "daily",
        engine_name=engine_name,
        as_of=as_of,
        code_version=settings.code_version,
        batch_id=settings.batch_id,
    ) as run:
        # before the plan: gate and interval learn from the newest actual values
        with run.stage("evaluate"), run.connection.begin():
            updated_actuals = update_actuals(run.connection)
        with run.stage("plan"):
            plan = plan_forecast(settings, as_of=as_of, engine=engine_name, today=today)
        run.as_of, run.plan = plan.as_of, plan.summary() | {"updated_actuals": updated_actuals}
        if plan.age_days:
            log.warning(
                "the newest metrics are of %s: %d days behind the last complete day",
                plan.as_of,
                plan.age_days,
            )
        with run.stage("session"):
            spark = session()
            run.jvm_started = True
        with interruptible(spark):
            _forecast(spark, settings, database, plan, run)
    register_versions(settings, database, plan)
    return read_run(database, run.run_id).to_json()


def _forecast(
    spark: SparkSession, settings: Settings, database: Engine, plan: ForecastPlan, run: Run
) -> None:
    engine = choose_engine(plan.engine, settings, spark)
    with exported_snapshot(settings) as snapshot:
        with cached_dataset(
            spark, settings, engine, plan.folds, run, snapshot, first_day=plan.first_day
        ) as (dataset, summary):
            serving = select_or_fit_model(dataset, summary, plan, engine, settings, run)
        pools = active_pools(settings, plan.as_of, snapshot)
    run.checks += model_checks(plan, serving)
    with run.stage("publish"):
        backfill = _backfill(settings, plan, serving, run)
        history = _history(database, plan, backfill)
        published = _published(settings, plan, serving, history)
        evaluation = pd.concat(
            [
                evaluation_rows(
                    rows,
                    serving.sample,
                    target,
                    engine=plan.engine,
                    horizon=plan.folds.horizon,
                    level=settings.interval_level,
                    source=PRODUCTION,
                    run_id=run.run_id,
                )
                for target, rows in published.items()
            ],
            ignore_index=True,
        )
        forecasts = _forecasts(settings, plan, pools, published, history)
        forecasts = forecasts.assign(
            model_version=serving.sample.version(plan.as_of), run_id=run.run_id
        )
        reasons = forecasts["apy_fallback_reason"][forecasts["apy"].notna()].tolist()
        run.checks += [
            _score_check(database, plan, backfill, settings.interval_level),
            *model_health_checks(serving, pools, reasons, settings),
        ]
    with run.stage("explain"):
        apy, _ = published.values()
        explanations = forecast_explanations(serving, apy, settings)
        forecasts["explanation"] = forecasts["pool_id"].map(explanations).astype(object)
    metrics = metrics_table(settings.metrics_table)
    staged = [
        StagedFrame(
            *forecast_staging(spark, forecasts, horizon=plan.folds.horizon, metrics=metrics)
        ),
        StagedFrame(*evaluation_staging(spark, evaluation, PRODUCTION)),
        *(StagedFrame(*evaluation_staging(spark, rows, BACKTEST)) for rows in backfill),
    ]
    record = partial(record_refit, plan=plan, serving=serving, run_id=run.run_id)
    commit_run(run, settings, staged, in_transaction=record)


def _backfill(
    settings: Settings, plan: ForecastPlan, serving: ServingModel, run: Run
) -> list[pd.DataFrame]:
    """Evaluation rows of a refit's validation days, if the forecast history is too short."""
    if not serving.refit or not plan.backfills_history:
        return []
    return [backtest_rows(settings, plan.engine, serving.refit.sample, plan.folds, run)]


def _history(
    database: Engine, plan: ForecastPlan, backfill: Sequence[pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """PAST_COLUMNS by target, of the forecast history and, for days it lacks, of the backfill."""
    history = history_by_target(database, plan.engine, horizon=plan.folds.horizon, as_of=plan.as_of)
    for rows in map(to_past_rows, backfill):
        for target, past in history.items():
            both = pd.concat([past, rows[rows["target"] == target]], ignore_index=True)
            history[target] = both.drop_duplicates(["pool_id", "target_day"]).sort_values(
                ["target_day", "pool_id"], ignore_index=True
            )
    return history


def _published(
    settings: Settings,
    plan: ForecastPlan,
    serving: ServingModel,
    history: Mapping[str, pd.DataFrame],
) -> dict[Target, pd.DataFrame]:
    """PUBLISHED_COLUMNS of the as-of day, by target; APY first."""
    return {
        target: publish_days(
            serving.sample.rows,
            target,
            [plan.as_of],
            horizon=plan.folds.horizon,
            level=settings.interval_level,
            history=history[target.name],
            is_shadow=serving.is_shadow,
        )
        for target in targets_of(settings)
    }


def _forecasts(
    settings: Settings,
    plan: ForecastPlan,
    pools: pd.DataFrame,
    published: Mapping[Target, pd.DataFrame],
    history: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Rows of `yieldspark.forecasts` without model_version, explanation and run_id."""
    rows = []
    for target, rows_of_target in published.items():
        relative = relative_quantiles(
            past_forecasts(target, history[target.name], plan.as_of), settings.interval_level
        )
        rows.append(apply_fallbacks(pools, rows_of_target, target, relative, plan.as_of))
    return join_targets(*rows).assign(
        target_date=plan.as_of + dt.timedelta(days=plan.folds.horizon),
        horizon_days=plan.folds.horizon,
        as_of=plan.as_of,
        interval_level=settings.interval_level,
        engine=plan.engine,
    )


def _score_check(
    database: Engine, plan: ForecastPlan, backfill: Sequence[pd.DataFrame], level: float
) -> CheckResult:
    """The score of the last SCORED_DAYS target days, as a check that never blocks."""
    scored = scored_rows(
        database, plan.engine, horizon=plan.folds.horizon, last=plan.as_of, days=SCORED_DAYS
    )
    first = plan.as_of - dt.timedelta(days=SCORED_DAYS - 1)
    recent = [rows[rows["target_date"] >= first] for rows in backfill]
    # stored rows come first: they win over the backfill of the same day
    rows = pd.concat([scored, *recent], ignore_index=True).drop_duplicates(
        ["pool_id", "target_date", "target"]
    )
    table = score_table(rows, level)
    line = summary_line(table)
    log.info("the last %d days: %s", SCORED_DAYS, line)
    figures = {"scores": table_json(table)}
    return CheckResult("rolling_origin_score", True, "info", line, figures=figures)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the job's command line and exit with its code."""
    run_job_script(FORECAST_POOLS, arguments)


if __name__ == "__main__":
    main()
