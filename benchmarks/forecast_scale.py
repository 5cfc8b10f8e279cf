"""The product's features, fits and predictions of one night beside native LightGBM's fits alone, in
one process, on the metrics of DB_NAME.

In: DB_* and the as-of day. Out: one JSON document on standard output with the product's stages and
`native`, in seconds, and how many of the models came out with the same text. Native LightGBM gets
the very matrices, labels and parameters that the product's engine `lightgbm` fitted; the product's
time holds what lies between the metrics in the database and the moves in memory. Run by `python -m
benchmarks.forecast --speed`.
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
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.db_utils_spark import exported_snapshot, get_spark_session
from database.ledger.runs import open_run
from forecasting.engines.choose import choose_engine
from forecasting.engines.engine import FittedModel, Objective, without_threads
from forecasting.engines.folds import DaySpan, refit_folds
from forecasting.engines.lightgbm_engine import LightgbmRows, native_parameters
from forecasting.models.stacked_model import fit_stacked
from forecasting.run.dataset import cached_dataset
from local_runtime import jars as spark_runtime

JOB = "benchmark_scale"
ENGINE = "lightgbm"


@dataclass(frozen=True)
class Fit:
    """What the product fitted: rows of these days with a label, a model for each objective."""

    dataset: LightgbmRows
    objectives: Sequence[Objective]
    days: DaySpan
    models: Sequence[FittedModel]


@contextmanager
def remembered_fits() -> Iterator[list[Fit]]:
    """Every fit of the engine while the block runs."""
    fits: list[Fit] = []
    fit = LightgbmRows.fit

    def remember(
        dataset: LightgbmRows, objectives: Sequence[Objective], days: DaySpan
    ) -> list[FittedModel]:
        fits.append(Fit(dataset, objectives, days, fit(dataset, objectives, days)))
        return list(fits[-1].models)

    with patch.object(LightgbmRows, "fit", remember):
        yield fits


def fit_natively(fit: Fit) -> tuple[float, int]:
    """Seconds that LightGBM takes for the same models, bins included and made once; and how many of
    them have the same text.
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
    began = monotonic()
    data = lightgbm.Dataset(matrix, feature_name=list(fit.dataset.features), params=parameters[0])
    boosters = []
    for values, wanted in zip(labels, parameters, strict=True):
        data.set_label(values)
        boosters.append(lightgbm.train(wanted, data, fit.dataset.parameters.rounds))
    seconds = monotonic() - began
    return seconds, sum(
        without_threads(booster.model_to_string()) == model.text
        for booster, model in zip(boosters, fit.models, strict=True)
    )


def compare(spark: SparkSession, settings: Settings, as_of: dt.date) -> dict[str, Any]:
    """status, seconds (the product's), stages and rows as a ledger row has them; `rows` counts
    models, and those that are the same natively.
    """
    folds = refit_folds(
        as_of, horizon=settings.horizon_days, train_days=settings.train_days, validation_days=0
    )
    opened = open_run(
        make_engine(settings),
        job=JOB,
        mode="benchmark",
        engine_name=ENGINE,
        as_of=as_of,
        code_version=settings.code_version,
    )
    with remembered_fits() as fits, opened as run, exported_snapshot(settings) as snapshot:
        began = monotonic()
        with cached_dataset(
            spark, settings, choose_engine(ENGINE, settings, spark), folds, run, snapshot
        ) as (dataset, _):
            sample = fit_stacked(dataset, folds, settings.interval_level, run.stage)
        seconds = monotonic() - began
    native = [fit_natively(fit) for fit in fits]
    return {
        "status": run.status,
        "seconds": round(seconds, 2),
        "stages": run.stages | {NATIVE: round(sum(taken for taken, _ in native), 2)},
        "rows": {
            "read": run.rows["read"],
            "feature rows": len(fits[-1].dataset.frame),
            "features": len(fits[-1].dataset.features),
            "forecast": len(sample.rows),
            "models": sum(len(fit.models) for fit in fits),
            "same models": sum(same for _, same in native),
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
    spark_runtime.prepare_process()
    try:
        document = compare(get_spark_session(settings, JOB), settings, options.as_of)
    except Exception as error:  # Spark's own words are pages of Java
        sys.exit(summarize_error(error))
    print(json.dumps(document))


if __name__ == "__main__":
    main()
