"""The search of LightGBM parameters: folds in time order, a last one that it does not search."""

from __future__ import annotations

import datetime as dt
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine

from common.errors import ConfigurationError, NotEnoughHistory
from config_spark import Settings
from forecasting import tuning
from forecasting.engines.choose import choose_engine
from forecasting.engines.folds import Fold
from forecasting.engines.lightgbm_engine import LightgbmRows
from forecasting.engines.model_parameters import TUNED, ModelParameters, model_parameters
from forecasting.tuning import FOLD_DAYS, FOLDS, losses, search, tune, tuning_folds
from tests.forecasting.test_forecast_job import no_session
from tests.support.forecast_panels import END, panel_rows, store

PRESENT = ModelParameters(seed=1, threads=2, rounds=50, min_data_in_leaf=20)


def planted(days: int = 300, pools: int = 12) -> LightgbmRows:
    """Returns rows with a label that follows one of two features."""
    random = np.random.default_rng(3)
    dates = pd.date_range(end=END, periods=days)
    frame = pd.DataFrame(
        list(product([f"p{pool:02d}" for pool in range(pools)], dates)),
        columns=["pool_id", "date"],
    )
    matrix = random.standard_normal((len(frame), 2)).astype(np.float32)
    frame["apy_label"] = matrix[:, 0] + 0.3 * random.standard_normal(len(frame))
    counts = {"apy_label": {day.date(): pools for day in dates}}
    return LightgbmRows(frame, matrix, ("signal", "noise"), counts, PRESENT)


@pytest.mark.parametrize("horizon", [1, 3])
def test_folds_train_on_earlier_days_and_end_with_the_as_of_day(horizon: int) -> None:
    plan = tuning_folds(END, horizon, 60)
    assert len(plan.apy) == FOLDS
    for fold in plan.apy:
        assert fold.train.end - dt.timedelta(days=1) + dt.timedelta(days=horizon) == fold.origin
        assert (len(fold.train.days), len(fold.forecast.days)) == (60, FOLD_DAYS)
    assert [fold.forecast.start for fold in plan.apy[1:]] == [
        fold.forecast.end for fold in plan.apy[:-1]
    ]
    assert plan.apy[-1].forecast.days[-1] + dt.timedelta(days=horizon) == END


def test_losses_are_those_of_the_scored_days_alone() -> None:
    dataset, fold = planted(), tuning_folds(END, 1, 60).apy[0]
    result = losses(dataset, [fold], PRESENT)
    assert result.model.size == 12 * FOLD_DAYS == result.persistence.size
    assert result.ratio < 0.6
    label = dataset.frame.loc[
        dataset.frame["date"].dt.date.isin(fold.forecast.days), "apy_label"
    ].abs()
    assert result.persistence.sum() == pytest.approx(label.clip(upper=8.0).sum())
    with pytest.raises(NotEnoughHistory, match="`tune` needs more than 120 days"):
        losses(planted(days=100), [fold], PRESENT)


def test_the_last_fold_is_kept_out_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    trials_of_days: list[tuple[list[dt.date], ModelParameters]] = []

    def remembered(dataset: Any, folds: Any, parameters: ModelParameters) -> Any:
        trials_of_days.append(([fold.origin for fold in folds], parameters))
        return losses(dataset, folds, parameters)

    monkeypatch.setattr(tuning, "losses", remembered)
    folds: tuple[Fold, ...] = tuning_folds(END, 1, 60).apy
    result = search(planted(), folds, PRESENT, minutes=0.02)
    origins = [fold.origin for fold in folds]
    trials = [parameters for days, parameters in trials_of_days if days == origins[:-1]][
        : result["trials"]
    ]
    assert trials[0] == PRESENT, "what is in use is tried first"
    assert [days for days, _ in trials_of_days[: result["trials"]]] == [origins[:-1]] * result[
        "trials"
    ]
    assert set(result["parameters"]) == set(TUNED)
    assert result["ratio"]["best"]["searched"] <= result["ratio"]["present"]["searched"]
    assert isinstance(result["is_better"], bool)


def test_tune_writes_a_file_that_the_settings_take(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    store(engine, panel_rows(12, 240))
    output = tmp_path / "folder" / "tuned.json"
    in_process = database.model_copy(update={"executor": "inprocess"})
    row = tune(in_process, minutes=0.01, output=output, engine="lightgbm", session=no_session)
    assert (row["job"], row["status"]) == ("tune", "succeeded")
    content = json.loads(output.read_text())
    assert content["parameters"] == row["tuned"]["parameters"]
    assert {"engine", "as_of", "data_hash", "ratio", "best_to_present", "is_better"} <= set(content)
    settings = database.model_copy(update={"model_parameters_file": output})
    parameters = model_parameters(settings)
    assert {name: getattr(parameters, name) for name in TUNED} == content["parameters"]
    assert parameters.seed == database.model_seed
    assert choose_engine("lightgbm", settings, None).parameters == parameters  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read"),
        ("[]", "can't be read"),
        ('{"parameters": {"depth": 3}}', "depth=3 is wrong; allowed are rounds 1 to 5000"),
        ('{"parameters": {"leaves": 1}}', "leaves=1 is wrong"),
        ('{"parameters": {"leaves": 7.5}}', "leaves=7.5 is wrong"),
        ('{"parameters": {"rounds": true}}', "rounds=True is wrong"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "parameters.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        model_parameters(Settings(model_parameters_file=path, environment="local"))


def test_a_file_that_can_not_be_written_is_refused_before_the_search(
    database: Settings, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="--output"):
        tune(database, minutes=1.0, output=tmp_path, session=no_session)
