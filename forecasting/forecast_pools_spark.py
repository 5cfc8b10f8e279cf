"""The forecast job: next day's APY and TVL of every active pool with an interval, and how the last
weeks' forecasts did beside persistence.

Reads the metrics table, `yieldspark.value_staleness`, `pools`, the ledger of forecasts and the
model registry. Writes, in one commit: `yieldspark.forecasts`, the forecast columns of the metrics
table at (pool, D + 1), `yieldspark.forecast_evaluation`, and for a version of
tonight `yieldspark.promotion` and `yieldspark.model_outbox`, from where it goes to the registry.
Units: APY percent, TVL USD, UTC days. Runs as `python forecasting/forecast_pools_spark.py`, under
spark-submit with the code on the path, and from the command line of the product.
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
    # started by path in the checkout, Python puts this folder on the path and not the root that
    # absolute imports begin at
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from cli.job_script import run_job_script
from common.jobs import FORECAST_POOLS
from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import StagedFrame, commit_run, exported_snapshot
from database.ledger.runs import Run, ledger_row, open_run
from database.schema.metrics_table import metrics_table
from forecasting.backtest_spark import past_evaluation
from forecasting.engines.choose import choose_engine
from forecasting.evaluation.backtest import evaluation_rows, publish_days
from forecasting.evaluation.scores import score_table, sentence
from forecasting.features.targets import Target, targets_of
from forecasting.publishing.fallbacks import apply_rules, join_targets
from forecasting.publishing.forecast_history import (
    BACKTEST,
    PRODUCTION,
    as_past,
    past_rows,
    score_what_came_true,
    scored_rows,
)
from forecasting.publishing.intervals import relative_quantiles
from forecasting.publishing.past_forecasts import past_forecasts
from forecasting.run.dataset import held_rows, known_pools
from forecasting.run.forecast_rows import evaluation_staging, forecast_staging
from forecasting.run.health_checks import explained, watch
from forecasting.run.plan import ForecastPlan, plan_forecast
from forecasting.run.registration import record_refit, register, registry_checks
from forecasting.run.serving_model import model_of_tonight
from spark.interrupt import interruptible

log = logging.getLogger(__name__)

JOB = FORECAST_POOLS.name
SCORED_DAYS = 30
"""What the ledger's entry of a night is scored on: the last month, tonight's own forecasts not
among it.
"""


def run_forecast(
    settings: Settings,
    *,
    as_of: dt.date | None = None,
    engine: str | None = None,
    dry_run: bool = False,
    session: Callable[[], SparkSession],
) -> dict[str, Any]:
    """Forecast the day after the as-of day (default: the last complete UTC day, or the newest day
    with data before it).

    Args: engine wins over the settings' one; session is called only when there is work; dry_run
    returns the plan and writes nothing.
    Returns: the ledger row, or the plan's document. Raises: NotEnoughHistory, EnvironmentNotReady,
    RunInProgress, DatabaseError.
    """
    name = engine or settings.engine
    today = dt.datetime.now(dt.UTC).date()
    if dry_run:
        return {
            "job": JOB,
            "status": "planned",
            "plan": plan_forecast(settings, as_of=as_of, engine=name, today=today).document(),
        }
    database = make_engine(settings)
    mode = "as_of" if as_of else "daily"
    with open_run(
        database,
        job=JOB,
        mode=mode,
        engine_name=name,
        as_of=as_of,
        code_version=settings.code_version,
        batch_id=settings.batch_id,
    ) as run:
        with run.stage("evaluate"), run.connection.begin():
            came_true = score_what_came_true(run.connection)
        with run.stage("plan"):
            plan = plan_forecast(settings, as_of=as_of, engine=name, today=today)
        run.as_of, run.plan = plan.as_of, plan.document() | {"came_true": came_true}
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
    register(settings, database, plan)
    return ledger_row(database, run.run_id)


def _forecast(
    spark: SparkSession, settings: Settings, database: Engine, plan: ForecastPlan, run: Run
) -> None:
    folds, level = plan.folds, settings.interval_level
    engine = choose_engine(plan.engine, settings, spark)
    with exported_snapshot(settings) as snapshot:
        with held_rows(spark, settings, engine, folds, run, snapshot, first_day=plan.first_day) as (
            held,
            facts,
        ):
            night = model_of_tonight(held, facts, plan, engine, settings, run)
        known = known_pools(settings, plan.as_of, snapshot)
    run.checks += registry_checks(plan, night)
    with run.stage("publish"):
        made = (
            [past_evaluation(settings, plan.engine, night.refit.sample, folds, run)]
            if night.refit and plan.makes_up
            else []
        )
        past = _past(database, plan, made)
        publish = partial(
            publish_days,
            horizon=folds.horizon,
            level=level,
            serves=night.serves or night.model is None,
        )
        evaluated = partial(
            evaluation_rows,
            engine=plan.engine,
            horizon=folds.horizon,
            level=level,
            source=PRODUCTION,
            run_id=run.run_id,
        )
        tonight = {
            target: publish(night.sample.rows, target, [plan.as_of], ledger=past[target.name])
            for target in targets_of(settings)
        }
        ledger = pd.concat(
            [evaluated(rows, night.sample, target) for target, rows in tonight.items()],
            ignore_index=True,
        )
        forecasts = _forecasts(settings, plan, known, tonight, past)
        forecasts = forecasts.assign(
            model_version=night.sample.version(plan.as_of), run_id=run.run_id
        )
        run.checks += [
            _score_check(database, plan, made, level),
            *watch(
                night,
                known,
                forecasts["apy_fallback_reason"][forecasts["apy"].notna()].tolist(),
                settings,
            ),
        ]
    with run.stage("explain"):
        apy, _ = tonight.values()
        forecasts["explanation"] = (
            forecasts["pool_id"].map(explained(night, apy, settings)).astype(object)
        )
    staged = [
        StagedFrame(
            *forecast_staging(
                spark,
                forecasts,
                horizon=folds.horizon,
                metrics=metrics_table(settings.metrics_table),
            )
        ),
        StagedFrame(*evaluation_staging(spark, ledger, PRODUCTION)),
        *(StagedFrame(*evaluation_staging(spark, rows, BACKTEST)) for rows in made),
    ]
    commit_run(
        run, settings, staged, also=partial(record_refit, plan=plan, night=night, run_id=run.run_id)
    )


def _past(
    database: Engine, plan: ForecastPlan, made: Sequence[pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """What gate and interval of the as-of day learn from, by target: the ledger, and what was made
    up for where it has nothing itself.
    """
    ledger = past_rows(database, plan.engine, horizon=plan.folds.horizon, as_of=plan.as_of)
    for rows in map(as_past, made):
        for target, known in ledger.items():
            both = pd.concat([known, rows[rows["target"] == target]], ignore_index=True)
            ledger[target] = both.drop_duplicates(["pool_id", "target_day"]).sort_values(
                ["target_day", "pool_id"], ignore_index=True
            )
    return ledger


def _forecasts(
    settings: Settings,
    plan: ForecastPlan,
    known: pd.DataFrame,
    tonight: Mapping[Target, pd.DataFrame],
    past: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """A row of `yieldspark.forecasts` for each active pool, but for model_version, explanation and
    run_id.
    """
    rows = []
    for target, published in tonight.items():
        relative = relative_quantiles(
            past_forecasts(target, past[target.name], plan.as_of), settings.interval_level
        )
        rows.append(apply_rules(known, published, target, relative, plan.as_of))
    return join_targets(*rows).assign(
        target_date=plan.as_of + dt.timedelta(days=plan.folds.horizon),
        horizon_days=plan.folds.horizon,
        as_of=plan.as_of,
        interval_level=settings.interval_level,
        engine=plan.engine,
    )


def _score_check(
    database: Engine, plan: ForecastPlan, made: Sequence[pd.DataFrame], level: float
) -> dict[str, Any]:
    """How the last month's forecasts did, as an entry of the ledger's checks; it informs and never
    blocks.
    """
    known = scored_rows(
        database, plan.engine, horizon=plan.folds.horizon, last=plan.as_of, days=SCORED_DAYS
    )
    first = plan.as_of - dt.timedelta(days=SCORED_DAYS - 1)
    key = ["pool_id", "target_date", "target"]
    rows = pd.concat(
        [known, *(rows[rows["target_date"] >= first] for rows in made)], ignore_index=True
    ).drop_duplicates(key)
    table = score_table(rows, level)
    found = sentence(table)
    log.info("the last %d days: %s", SCORED_DAYS, found)
    return {
        "name": "rolling_origin_score",
        "passed": True,
        "severity": "info",
        "found": found,
        "scores": table,
    }


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the job's command line and exit with its code."""
    run_job_script(FORECAST_POOLS, arguments)


if __name__ == "__main__":
    main()
