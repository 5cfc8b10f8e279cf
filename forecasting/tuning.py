"""Search of LightGBM parameters on the metrics of a database, for a person to review.

Writes a file of parameters with their scores; no scheduled job runs it. Folds are in time order;
the last one is not searched and scores the result on new days. The search is a tree-structured
Parzen estimator (Bergstra et al. 2011) by Optuna.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd

from common.errors import ConfigurationError, NotEnoughHistory
from common.horizons import NEXT_DAY
from common.quantities import duration
from config_spark import Settings
from database.connections.engine import make_engine
from database.connections.snapshots import exported_snapshot
from database.ledger.run_records import read_run
from database.ledger.runs import Run, open_run
from forecasting.engines.engine import FeatureRows, Objective
from forecasting.engines.folds import EXPANDING_DAYS, ONE_DAY, DaySpan, Fold, FoldPlan
from forecasting.engines.model_parameters import TUNED, ModelParameters, model_parameters
from forecasting.evaluation.day_bootstrap import mean_ratio_interval
from forecasting.evaluation.error_measures import Integers
from forecasting.evaluation.scores import category_codes
from forecasting.executors.choose import executor_of_engine, open_executor
from forecasting.executors.executor import Executor
from forecasting.features.targets import Values
from forecasting.publishing.persistence_gate import LOSS_LIMIT
from forecasting.run.as_of_day import first_read_day, newest_day, row_counts
from forecasting.run.dataset import cached_dataset
from forecasting.run.transfer import transfer_choice

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

JOB = "tune"
# all folds but the last are searched on; each is scored on FOLD_DAYS days
FOLDS, FOLD_DAYS = 4, 30
# one median APY model without the TVL forecast: the search fits it hundreds of times
OBJECTIVE = Objective("apy_label")


@dataclass(frozen=True)
class Losses:
    """Losses of the scored rows, in scales, each limited to LOSS_LIMIT as in the promotion policy.

    Attributes:
        model: losses of the model.
        persistence: losses of persistence.
        days: number of each row's day, from 0.
    """

    model: Values
    persistence: Values
    days: Integers

    @property
    def ratio(self) -> float:
        """Mean loss of the model to that of persistence."""
        return float(self.model.sum() / self.persistence.sum())


def tune(
    settings: Settings,
    *,
    minutes: float,
    output: Path,
    engine: str | None = None,
    session: Callable[[int], SparkSession],
) -> dict[str, Any]:
    """Searches for `minutes` and writes the best parameters for next-day forecasts.

    The models of all horizons have the same parameters.

    Args:
        minutes: duration of the search.
        output: file of the parameters.
        engine: overrides the setting ENGINE.
        session: makes the Spark session for a number of feature rows;
            called only if Spark computes the features.

    Returns:
        The row of the run ledger with `tuned` (contents of the file) and `output`.

    Raises:
        ConfigurationError: the file can't be written.
        NotEnoughHistory: a fold has no rows to train on or to score.
        RunInProgress: another run of the job is active.
        DatabaseError: the database does not answer or refuses a statement.
    """
    # before the search, which takes `minutes`
    _require_writable(output)
    engine_name = engine or settings.engine
    as_of = newest_day(settings, as_of=None, complete=dt.datetime.now(dt.UTC).date() - ONE_DAY)
    folds = tuning_folds(as_of, NEXT_DAY, settings.train_days)
    rows, pools = row_counts(settings, first_read_day(folds), as_of)
    # a forecast run of these pools fits in the same way
    transfer = transfer_choice(settings, pools, folds.apy[-1].train.end)
    choice = executor_of_engine(settings, engine_name, rows, prefers_spark=False)
    with open_run(
        make_engine(settings),
        job=JOB,
        mode="tune",
        engine_name=engine_name,
        as_of=as_of,
        code_version=settings.code_version,
    ) as run:
        with open_executor(choice, settings, run, partial(session, rows)) as executor:
            tuned = _search_metrics(
                executor, settings, folds, minutes, engine_name, run, transfer=transfer.takes_part
            )
        output.write_text(json.dumps(tuned, indent=2, default=str) + "\n", encoding="utf-8")
        run.plan = {"minutes": minutes, "output": str(output), "tuned": tuned["parameters"]}
    return read_run(make_engine(settings), run.run_id).to_json() | {
        "tuned": tuned,
        "output": str(output),
    }


def _search_metrics(
    executor: Executor,
    settings: Settings,
    folds: FoldPlan,
    minutes: float,
    engine_name: str,
    run: Run,
    *,
    transfer: bool,
) -> dict[str, Any]:
    """Searches on the metrics of the database; returns the contents of the file."""
    engine = executor.engine(engine_name)
    with (
        exported_snapshot(settings) as snapshot,
        cached_dataset(executor, settings, engine, folds, run, snapshot, transfer=transfer) as (
            dataset,
            summary,
        ),
        run.stage("search"),
    ):
        result = search(dataset, folds.apy, model_parameters(settings), minutes)
    return result | {
        "engine": engine_name,
        "as_of": folds.as_of,
        "data_rows": summary.metrics.rows,
        "data_hash": summary.metrics.hash,
        "code_version": settings.code_version,
    }


def tuning_folds(as_of: dt.date, horizon: int, train_days: int) -> FoldPlan:
    """Returns FOLDS folds, FOLD_DAYS apart; each is scored on the days up to the next origin.

    Args:
        as_of: last day whose values are read.
        horizon: days from an as-of day to its target day.
        train_days: training window; 0 for all days.
    """
    end = as_of - dt.timedelta(days=horizon - 1)
    origins = [end - dt.timedelta(days=FOLD_DAYS * number) for number in range(FOLDS, 0, -1)]
    # a training row's target day may not be after the origin
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
    """Searches parameters on all folds but the last.

    Args:
        dataset: feature rows in the engine.
        folds: the folds, in time order.
        present: parameters in use; the first trial, and the ones that are compared with.
        minutes: duration of the search.

    Returns:
        For JSON: parameters, trials and `ratio` (to persistence, of the present and the best
            parameters, on the searched folds and on the last one); `best_to_present` on the last
            fold with its bootstrap interval; `is_better`, whether all of the interval is under 1;
            present.
    """
    searched, last = folds[:-1], folds[-1:]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=present.seed))
    # the first trial: on the searched folds, the result is never worse than the present parameters
    study.enqueue_trial({name: getattr(present, name) for name in TUNED})
    deadline = monotonic() + 60.0 * minutes

    def loss(trial: optuna.Trial) -> float:
        suggested = {name: suggest(trial) for name, suggest in SPACE.items()}
        ratio = losses(dataset, searched, replace(present, **suggested)).ratio
        log.info(
            "trial %d: %.5f of persistence, %s left",
            trial.number,
            ratio,
            duration(max(deadline - monotonic(), 0.0)),
        )
        return ratio

    study.optimize(loss, timeout=60.0 * minutes)
    best = replace(present, **study.best_params)
    candidates = {"present": present, "best": best}
    on_last = {name: losses(dataset, last, parameters) for name, parameters in candidates.items()}
    ratios = {
        name: {
            "searched": losses(dataset, searched, parameters).ratio,
            "last": on_last[name].ratio,
        }
        for name, parameters in candidates.items()
    }
    best_losses, present_losses = on_last["best"], on_last["present"]
    low, high = mean_ratio_interval(best_losses.model, present_losses.model, best_losses.days)
    return {
        "parameters": {name: getattr(best, name) for name in TUNED},
        "trials": len(study.trials),
        "ratio": ratios,
        "best_to_present": [
            float(best_losses.model.sum() / present_losses.model.sum()),
            low,
            high,
        ],
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
    """Fits each fold with these parameters and computes the losses of its forecasts.

    Raises:
        NotEnoughHistory: a fold has no rows to train on or to score.
    """
    model, persistence, dates = [], [], []
    for fold in folds:
        if not (
            dataset.labelled_rows(OBJECTIVE.label, fold.train)
            and dataset.labelled_rows(OBJECTIVE.label, fold.forecast)
        ):
            raise NotEnoughHistory(
                f"no rows to train on before {fold.origin}, or to score after it: `tune` needs"
                f" more than {FOLDS * FOLD_DAYS} days; load more history"
            )
        # the same rows in memory, for other parameters
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
        # "a": the search may fail, and the parameters of an earlier one stay in the file
        with output.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"the parameters can't be written to {output}: {error.strerror}; set --output to a"
            " file that you may write"
        ) from error
