"""LightGBM's settings searched on this panel: what a person looks at and checks in, and a nightly
job never does.

In: the metrics of a database, a budget in minutes. Out: a file of model parameters with the scores
that speak for and against them. Folds are in the order of time, each trained on what came before
the days it is scored on; the last is kept out of the search, to say what the choice is worth on
days it has not seen. The loss is the judgement's: mean of min(|came true - move|, LOSS_LIMIT) in
scales, of one median APY model without TVL's forecast, as a ratio to persistence. Source of the
search: tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import optuna
import pandas as pd
from pyspark.sql import SparkSession

from common.errors import ConfigurationError, NotEnoughHistory
from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import exported_snapshot
from database.ledger.runs import ledger_row, open_run
from forecasting.engines.choose import choose_engine
from forecasting.engines.engine import FeatureRows, Objective
from forecasting.engines.folds import EXPANDING_DAYS, ONE_DAY, DaySpan, Fold, FoldPlan
from forecasting.engines.model_parameters import TUNED, ModelParameters, model_parameters
from forecasting.evaluation.day_bootstrap import mean_ratio_interval
from forecasting.evaluation.error_measures import Integers
from forecasting.evaluation.scores import category_codes
from forecasting.features.targets import Values
from forecasting.publishing.persistence_gate import LOSS_LIMIT
from forecasting.run.dataset import cached_dataset
from forecasting.run.plan import newest_day
from spark.interrupt import interruptible

log = logging.getLogger(__name__)

JOB = "tune"
FOLDS, FOLD_DAYS = 4, 30
"""Folds that are searched on, all but the last; each is scored on so many days."""
OBJECTIVE = Objective("apy_label")


@dataclass(frozen=True)
class Losses:
    """Of the scored rows: losses of the model and of persistence, and the number of each
    row's day.
    """

    model: Values
    persistence: Values
    days: Integers

    @property
    def ratio(self) -> float:
        return float(self.model.sum() / self.persistence.sum())


def tune(
    settings: Settings,
    *,
    minutes: float,
    output: Path,
    engine: str | None = None,
    session: Callable[[], SparkSession],
) -> dict[str, Any]:
    """Search for `minutes`, and write the best parameters to `output`. Returns: the ledger row with
    `tuned`, the file's contents.

    Raises: ConfigurationError where the file can't be written; NotEnoughHistory; RunInProgress,
    DatabaseError.
    """
    _require_writable(output)
    name = engine or settings.engine
    as_of = newest_day(settings, as_of=None, complete=dt.datetime.now(dt.UTC).date() - ONE_DAY)
    folds = tuning_folds(as_of, settings.horizon_days, settings.train_days)
    with open_run(
        make_engine(settings),
        job=JOB,
        mode="tune",
        engine_name=name,
        as_of=as_of,
        code_version=settings.code_version,
    ) as run:
        with run.stage("session"):
            spark = session()
            run.jvm_started = True
        chosen = choose_engine(name, settings, spark)
        with (
            interruptible(spark),
            exported_snapshot(settings) as snapshot,
            cached_dataset(spark, settings, chosen, folds, run, snapshot) as (dataset, facts),
        ):
            with run.stage("search"):
                found = search(dataset, folds.apy, model_parameters(settings), minutes)
        tuned = found | {
            "engine": name,
            "as_of": as_of,
            "data_rows": facts.rows,
            "data_hash": facts.hash,
            "code_version": settings.code_version,
        }
        output.write_text(json.dumps(tuned, indent=2, default=str) + "\n", encoding="utf-8")
        run.plan = {"minutes": minutes, "output": str(output), "tuned": tuned["parameters"]}
    return ledger_row(make_engine(settings), run.run_id) | {"tuned": tuned, "output": str(output)}


def tuning_folds(as_of: dt.date, horizon: int, train_days: int) -> FoldPlan:
    """FOLDS origins, FOLD_DAYS apart; each is scored on the days up to the next, whose targets are
    known by `as_of`.
    """
    end = as_of - dt.timedelta(days=horizon - 1)
    origins = [end - dt.timedelta(days=FOLD_DAYS * number) for number in range(FOLDS, 0, -1)]
    window, purged = dt.timedelta(days=train_days or EXPANDING_DAYS), dt.timedelta(days=horizon - 1)
    folds = [
        Fold(
            day,
            DaySpan(day - purged - window, day - purged),
            DaySpan(day, day + FOLD_DAYS * ONE_DAY),
        )
        for day in origins
    ]
    return FoldPlan(as_of, horizon, (), tuple(folds), DaySpan(origins[0], end))


def search(
    dataset: FeatureRows, folds: Sequence[Fold], present: ModelParameters, minutes: float
) -> dict[str, Any]:
    """parameters, trials, and `ratio`: to persistence, of the present parameters and the best ones,
    on the searched folds and on the last; `best_to_present` on the last fold with its bootstrap
    interval, and `is_better`: whether all of it is under 1.
    """
    searched, last = folds[:-1], folds[-1:]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=present.seed))
    study.enqueue_trial({name: getattr(present, name) for name in TUNED})
    deadline = monotonic() + 60.0 * minutes

    def loss(trial: optuna.Trial) -> float:
        found = losses(
            dataset,
            searched,
            replace(present, **{name: suggest(trial) for name, suggest in SPACE.items()}),
        ).ratio
        log.info(
            "trial %d: %.5f of persistence, %.0f s left",
            trial.number,
            found,
            max(deadline - monotonic(), 0.0),
        )
        return found

    study.optimize(loss, timeout=60.0 * minutes)
    best = replace(present, **study.best_params)
    both = {"present": present, "best": best}
    unseen = {name: losses(dataset, last, of) for name, of in both.items()}
    ratios = {
        name: {"searched": losses(dataset, searched, of).ratio, "last": unseen[name].ratio}
        for name, of in both.items()
    }
    now, then = unseen["best"], unseen["present"]
    low, high = mean_ratio_interval(now.model, then.model, now.days)
    return {
        "parameters": {name: getattr(best, name) for name in TUNED},
        "trials": len(study.trials),
        "ratio": ratios,
        "best_to_present": [float(now.model.sum() / then.model.sum()), low, high],
        "is_better": high is not None and high < 1.0,
        "present": {name: getattr(present, name) for name in TUNED},
    }


SPACE: dict[str, Callable[[optuna.Trial], Any]] = {
    "rounds": lambda trial: trial.suggest_int("rounds", 50, 600, step=50),
    "learning_rate": lambda trial: trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
    "leaves": lambda trial: trial.suggest_int("leaves", 4, 63, log=True),
    "min_data_in_leaf": lambda trial: trial.suggest_int("min_data_in_leaf", 20, 500, log=True),
    "feature_fraction": lambda trial: trial.suggest_float("feature_fraction", 0.2, 1.0),
    "bagging_fraction": lambda trial: trial.suggest_float("bagging_fraction", 0.4, 1.0),
    "lambda_l2": lambda trial: trial.suggest_float("lambda_l2", 0.1, 100.0, log=True),
}


def losses(dataset: FeatureRows, folds: Sequence[Fold], parameters: ModelParameters) -> Losses:
    """Raises: NotEnoughHistory where a fold has nothing to train on or to score."""
    model, persistence, dates = [], [], []
    for fold in folds:
        if not (
            dataset.labelled_rows(OBJECTIVE.label, fold.train)
            and dataset.labelled_rows(OBJECTIVE.label, fold.forecast)
        ):
            raise NotEnoughHistory(
                f"nothing to learn from before {fold.origin}, or to score after it: `tune` needs"
                f" more than {FOLDS * FOLD_DAYS} days"
            )
        fitted = replace(dataset, parameters=parameters).fit([OBJECTIVE], fold.train)  # type: ignore[type-var]
        rows = dataset.forecast(fold.forecast, fitted, (OBJECTIVE.label,))
        rows = rows[rows[OBJECTIVE.label].notna()]
        label = rows[OBJECTIVE.label].to_numpy(float)
        model.append(np.minimum(np.abs(label - rows["0"].to_numpy(float)), LOSS_LIMIT))
        persistence.append(np.minimum(np.abs(label), LOSS_LIMIT))
        dates.append(rows["date"])
    return Losses(
        np.concatenate(model), np.concatenate(persistence), category_codes(pd.concat(dates))
    )


def _require_writable(output: Path) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"the parameters can't be written to {output}: {error.strerror}; give --output a file"
            " you may write"
        ) from error
