"""Compares the product's features, fits and predictions of one day with native LightGBM's fits of
the same matrices, labels and parameters, in one process. Prints JSON with stages in seconds and
the number of identical models. Run by `python -m benchmarks.forecast --speed`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from unittest.mock import patch

import lightgbm
import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from benchmarks.forecast_speed import NATIVE
from common.errors import summarize_error
from common.horizons import NEXT_DAY
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.connections.snapshots import exported_snapshot
from database.db_utils_spark import get_spark_session
from database.ledger.runs import open_run
from forecasting.engines.engine import FittedModel, Objective, without_threads
from forecasting.engines.folds import DaySpan, refit_folds
from forecasting.engines.lightgbm_engine import LightgbmRows, native_parameters
from forecasting.executors.on_spark import SparkExecutor
from forecasting.models.stacked_model import fit_stacked
from forecasting.run.dataset import cached_dataset
from local_runtime import jars as local_jars
from spark.interrupt import interruptible

JOB = "benchmark_scale"
ENGINE = "lightgbm"


@dataclass(frozen=True)
class Fit:
    """One fit of the product: rows of these days with a label, and a model for each objective."""

    dataset: LightgbmRows
    objectives: Sequence[Objective]
    days: DaySpan
    models: Sequence[FittedModel]


@contextmanager
def recorded_fits() -> Iterator[list[Fit]]:
    """Record every fit of the engine while the block runs."""
    fits: list[Fit] = []
    fit = LightgbmRows.fit

    def record(
        dataset: LightgbmRows, objectives: Sequence[Objective], days: DaySpan
    ) -> list[FittedModel]:
        fits.append(Fit(dataset, objectives, days, fit(dataset, objectives, days)))
        return list(fits[-1].models)

    with patch.object(LightgbmRows, "fit", record):
        yield fits


def fit_natively(fit: Fit) -> tuple[float, int]:
    """Fit the same models by LightGBM, with bins made once.

    Returns:
        Seconds, and the number of models with the same text.
    """
    date, label = fit.dataset.frame["date"], fit.dataset.frame[fit.objectives[0].label]
    rows = (
        (date >= pd.Timestamp(fit.days.start)) & (date < pd.Timestamp(fit.days.end)) & label.notna()
    ).to_numpy()
    matrix = fit.dataset.matrix[rows]
    labels = [
        fit.dataset.frame.loc[rows, objective.label].to_numpy(np.float32)
        for objective in fit.objectives
    ]
    parameters = [
        dict(native_parameters(fit.dataset.parameters, objective)) for objective in fit.objectives
    ]
    started = monotonic()
    data = lightgbm.Dataset(matrix, feature_name=list(fit.dataset.features), params=parameters[0])
    boosters = []
    for values, model_parameters in zip(labels, parameters, strict=True):
        data.set_label(values)
        boosters.append(lightgbm.train(model_parameters, data, fit.dataset.parameters.rounds))
    seconds = monotonic() - started
    return seconds, sum(
        without_threads(booster.model_to_string()) == model.text
        for booster, model in zip(boosters, fit.models, strict=True)
    )


def compare(spark: SparkSession, settings: Settings, as_of: dt.date) -> dict[str, Any]:
    """Run the comparison.

    Returns:
        status, seconds (the product's), stages and rows, as in a ledger row; `rows` has the number
        of models, and of identical ones.
    """
    folds = refit_folds(as_of, horizon=NEXT_DAY, train_days=settings.train_days, validation_days=0)
    run_context = open_run(
        make_engine(settings),
        job=JOB,
        mode="benchmark",
        engine_name=ENGINE,
        as_of=as_of,
        code_version=settings.code_version,
    )
    executor = SparkExecutor(settings, spark)
    with recorded_fits() as fits, run_context as run, exported_snapshot(settings) as snapshot:
        started = monotonic()
        with cached_dataset(executor, settings, executor.engine(ENGINE), folds, run, snapshot) as (
            dataset,
            _,
        ):
            sample = fit_stacked(dataset, folds, settings.interval_level, run.stage)
        seconds = monotonic() - started
    native = [fit_natively(fit) for fit in fits]
    return {
        "status": run.status,
        "seconds": round(seconds, 2),
        "stages": run.stages | {NATIVE: round(sum(fit_seconds for fit_seconds, _ in native), 2)},
        "rows": {
            "read": run.rows["read"],
            "feature rows": len(fits[-1].dataset.frame),
            "features": len(fits[-1].dataset.features),
            "forecast": len(sample.rows),
            "models": sum(len(fit.models) for fit in fits),
            "same models": sum(identical for _, identical in native),
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forecast_scale", description=__doc__
    )
    parser.add_argument(
        "--as-of", type=dt.date.fromisoformat, required=True, help="last day of the metrics"
    )
    options = parser.parse_args(argv)
    settings = load_settings()
    local_jars.prepare_process()
    with make_engine(settings).connect() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM pool_daily_metrics").scalar_one()
    try:
        spark = get_spark_session(settings, JOB, feature_rows=rows)
        with interruptible(spark):
            figures = compare(spark, settings, options.as_of)
    except Exception as error:
        # Spark's messages are pages of Java
        sys.exit(summarize_error(error))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
