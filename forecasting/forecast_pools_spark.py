"""The forecast job: next day's APY and TVL of every active pool with an interval, and the rolling-origin score beside persistence.

Reads `pool_daily_metrics`, `yieldspark.observation_age` and `pools`. Writes, in one commit: `yieldspark.forecasts`, the forecast columns of
`pool_daily_metrics` at (pool, D + 1), and `yieldspark.forecast_evaluation`. Units: APY percent, TVL USD, UTC days.
Runs as `python forecasting/forecast_pools_spark.py`, under spark-submit with the code on the path, and from the command line of the product.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and (Path(__file__).resolve().parents[1] / "config_spark.py").is_file():
    # started by path in the checkout, Python puts this folder on the path and not the root that absolute imports begin at
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from sqlalchemy import text

from config_spark import Settings
from database.connection import checked_connection, make_engine
from database.db_utils_spark import StagedFrame, commit_run, exported_snapshot, get_spark_session, read_table_spark
from database.run_ledger import Run, ledger_row, open_run
from database.spark_interrupt import interruptible
from forecasting.backtest import TargetForecasts, evaluation_rows, forecast_target
from forecasting.engines.choose import ENGINES, choose_engine
from forecasting.features import FEATURES, LABELS, add_features, add_labels
from forecasting.forecast_plan import ForecastPlan, plan_forecast
from forecasting.forecast_rows import evaluation_staging, forecast_staging
from forecasting.panel import build_panel, metrics_query
from forecasting.rules import KNOWN_COLUMNS, KNOWN_QUERY, RuleLimits, apply_rules, join_targets
from forecasting.scores import score_table, sentence
from forecasting.stacked_model import OutOfSample, fit_stacked
from forecasting.targets import targets
from job_entry import run_job

log = logging.getLogger(__name__)

JOB = "forecast_pools"
EXAMPLE = "Example: python forecasting/forecast_pools_spark.py --as-of 2025-09-30 --engine lightgbm --json"


def run_forecast(
    settings: Settings,
    *,
    as_of: dt.date | None = None,
    engine: str | None = None,
    dry_run: bool = False,
    session: Callable[[], SparkSession],
) -> dict[str, Any]:
    """Forecast the day after the as-of day (default: the last complete UTC day, or the newest day with data before it).

    Args: engine wins over the settings' one; session is called only when there is work; dry_run returns the plan and writes nothing.
    Returns: the ledger row, or the plan's document. Raises: NotEnoughHistory, EnvironmentNotReady, RunInProgress, DatabaseError.
    """
    name = engine or settings.engine
    today = dt.datetime.now(dt.UTC).date()
    if dry_run:
        return {"job": JOB, "status": "planned", "plan": plan_forecast(settings, as_of=as_of, engine=name, today=today).document()}
    database = make_engine(settings)
    mode = "as_of" if as_of else "daily"
    with open_run(database, job=JOB, mode=mode, engine_name=name, as_of=as_of, code_version=settings.code_version) as run:
        with run.stage("plan"):
            plan = plan_forecast(settings, as_of=as_of, engine=name, today=today)
        run.as_of, run.plan = plan.as_of, plan.document()
        if plan.age_days:
            log.warning("the newest metrics are of %s: %d days behind the last complete day", plan.as_of, plan.age_days)
        with run.stage("session"):
            spark = session()
            run.jvm_started = True
        # a lost executor's partitions are read again: the snapshot must last until staging is loaded
        with interruptible(spark), exported_snapshot(settings) as snapshot:
            _forecast(spark, settings, plan, run, snapshot)
    return ledger_row(database, run.run_id)


def _forecast(spark: SparkSession, settings: Settings, plan: ForecastPlan, run: Run, snapshot: str) -> None:
    level = settings.interval_level
    sample = _out_of_sample(spark, settings, plan, run, snapshot)
    with run.stage("intervals"):
        both = [
            forecast_target(sample, plan.folds, target, level)
            for target in targets(max_apy_percent=settings.max_apy_percent, max_tvl_usd=settings.max_tvl_usd)
        ]
        evaluated = pd.concat(
            [evaluation_rows(one, sample, plan.folds, engine=plan.engine, level=level, run_id=run.run_id) for one in both], ignore_index=True
        )
        known = pd.DataFrame(_at_snapshot(settings, snapshot, KNOWN_QUERY, as_of=plan.as_of), columns=list(KNOWN_COLUMNS))
        published = _published(settings, plan, known, both, sample, run.run_id)
    run.checks.append(_score_check(evaluated, both, level))
    staged = [
        StagedFrame(*forecast_staging(spark, published, horizon=plan.folds.horizon)),
        StagedFrame(*evaluation_staging(spark, evaluated)),
    ]
    commit_run(run, settings, staged)


def _out_of_sample(spark: SparkSession, settings: Settings, plan: ForecastPlan, run: Run, snapshot: str) -> OutOfSample:
    engine = choose_engine(plan.engine, settings, spark)
    with run.stage("features"):
        query = metrics_query(plan.first_day, plan.as_of)
        # the same statement at the same snapshot: these are the rows that Spark reads
        run.rows["read"] = _at_snapshot(settings, snapshot, f"SELECT count(*) AS rows FROM ({query}) AS metrics")[0]["rows"]
        metrics = read_table_spark(spark, settings, query, partition_by="pool_id", snapshot=snapshot)
        held = engine.hold(_feature_rows(metrics, plan, settings.min_history_days), FEATURES, LABELS)
    try:
        return fit_stacked(held, plan.folds, run.stage)
    finally:
        held.release()


def _feature_rows(metrics: DataFrame, plan: ForecastPlan, min_history_days: int) -> DataFrame:
    """Feature rows of pools with a level and enough history; earlier rows only lend them their past."""
    rows = add_labels(add_features(build_panel(metrics, plan.as_of)), plan.folds.horizon)
    return rows.where((rows["observed_days"] >= min_history_days) & (rows["apy"].isNotNull() | rows["tvl"].isNotNull()))


def _at_snapshot(settings: Settings, snapshot: str, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    """Rows of a statement in the state of the database that Spark's reads see."""
    with checked_connection(make_engine(settings).execution_options(isolation_level="REPEATABLE READ")) as connection:
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        return [dict(row) for row in connection.execute(text(statement), parameters).mappings()]


def _published(
    settings: Settings, plan: ForecastPlan, known: pd.DataFrame, both: Sequence[TargetForecasts], sample: OutOfSample, run_id: str
) -> pd.DataFrame:
    limits = RuleLimits(settings.stale_after_days, settings.max_fill_days, settings.min_history_days)
    rows = join_targets(*(apply_rules(known, one, plan.as_of, limits) for one in both))
    versions = ".".join(f"{target}-{sample.version(target, plan.as_of)}" for target in ("apy", "tvl"))
    return rows.assign(
        target_date=plan.as_of + dt.timedelta(days=plan.folds.horizon),
        horizon_days=plan.folds.horizon,
        as_of=plan.as_of,
        interval_level=settings.interval_level,
        engine=plan.engine,
        model_version=versions,
        run_id=run_id,
    )


def _score_check(evaluated: pd.DataFrame, both: Sequence[TargetForecasts], level: float) -> dict[str, Any]:
    """The rolling-origin score as an entry of the ledger's checks; it informs and never blocks."""
    table = score_table(evaluated, level)
    weights = {one.target.name: {day.isoformat(): weight for day, weight in one.weights.items()} for one in both}
    found = sentence(table)
    log.info("rolling origin: %s", found)
    return {"name": "rolling_origin_score", "passed": True, "severity": "info", "found": found, "scores": table, "weights": weights}


def main(argv: Sequence[str] | None = None) -> int:
    """The job's own command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=JOB, description="Forecast tomorrow's APY and TVL of every active pool.", epilog=EXAMPLE)
    parser.add_argument(
        "--as-of", type=dt.date.fromisoformat, help="last day whose values may be used, YYYY-MM-DD; default: the last complete UTC day"
    )
    parser.add_argument("--engine", choices=ENGINES, help="default: the setting ENGINE")
    return run_job(parser, _work, _lines, argv)


def _work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    session = _session(settings, options.engine)
    return run_forecast(settings, as_of=options.as_of, engine=options.engine, dry_run=options.dry_run, session=session)


def _session(settings: Settings, engine: str | None) -> Callable[[], SparkSession]:
    return lambda: get_spark_session(settings, JOB, synapseml=(engine or settings.engine) == "synapseml")


def _lines(document: dict[str, Any]) -> str:
    """The document for a reader: one line for each key, those of a dry run's plan among them, and of a check what it found."""
    flat = {key: value for key, value in document.items() if key != "plan"} | document.get("plan", {})
    shown = {key: [f"{check['name']}: {check['found']}" for check in value] if key == "checks" else value for key, value in flat.items()}
    return "\n".join(f"{key}: {value}" for key, value in shown.items())


if __name__ == "__main__":
    sys.exit(main())
