"""One contract for both engines; scores are compared between them, never forecasts: the two carry different native versions of LightGBM."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from config_spark import Settings
from forecasting.engines import synapseml_engine
from forecasting.engines.choose import choose_engine
from forecasting.engines.engine import Engine, FeatureRows
from forecasting.folds import DaySpan
from product_errors import ConfigurationError, EnvironmentNotReady
from tests.conftest import skip_where_synapseml_cannot_run

FIRST = dt.date(2024, 1, 1)
FEATURES = ("signal", "noise", "sparse")


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


TRAINING, TEST = DaySpan(day(0), day(60)), DaySpan(day(60), day(90))


@pytest.fixture(params=["synapseml", "lightgbm"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def chosen(name: str, spark: SparkSession, server: Settings) -> Engine:
    return engine_or_skip(name, spark, server)


def engine_or_skip(name: str, spark: SparkSession, settings: Settings) -> Engine:
    try:
        return choose_engine(name, settings, spark)
    except EnvironmentNotReady as error:
        skip_where_synapseml_cannot_run(error)
        raise


def planted(spark: SparkSession, *, label: float | None = None, rows: int = 2700) -> DataFrame:
    """30 pools x 90 days: label = 2 * signal + noise; the feature `sparse` is null in nine of ten rows and NaN in some others."""
    random = np.random.default_rng(11)
    signal, noise = random.standard_normal(rows), random.standard_normal(rows)
    sparse: list[float | None] = [None if share < 0.9 else float("nan") if share < 0.95 else 1.0 for share in random.uniform(size=rows)]
    target = 2.0 * signal + 0.3 * random.standard_normal(rows) if label is None else np.full(rows, label)
    keys = [(f"p{number % 30:02d}", day(number // 30)) for number in range(rows)]
    data = [(*key, float(a), float(b), c, float(d)) for key, a, b, c, d in zip(keys, signal, noise, sparse, target, strict=True)]
    frame = spark.createDataFrame(data, "pool_id string, date date, signal double, noise double, sparse double, label double")
    return frame.withColumn("label", frame["label"].cast("float"))


def held(engine: Engine, frame: DataFrame) -> FeatureRows:
    return engine.hold(frame, FEATURES, ["label"])


def test_learns_a_planted_signal_through_missing_features(chosen: Engine, spark: SparkSession) -> None:
    rows = held(chosen, planted(spark))
    found = rows.forecast(TEST, [(rows.fit("label", TRAINING), TEST)], ["label"])
    assert len(found) == 900
    assert np.isfinite(found["forecast"]).all()
    assert (found["label"] - found["forecast"]).abs().mean() < 0.3 * found["label"].abs().mean()
    rows.release()


def test_a_second_run_gives_the_same_bits(chosen: Engine, spark: SparkSession) -> None:
    runs = []
    for _ in range(2):
        rows = held(chosen, planted(spark))
        model = rows.fit("label", TRAINING)
        runs.append((model.fingerprint, rows.forecast(TEST, [(model, TEST)], [])["forecast"].to_numpy().tobytes()))
        rows.release()
    assert runs[0] == runs[1]


def test_forecasts_become_a_feature_on_their_days_only(chosen: Engine, spark: SparkSession) -> None:
    rows = held(chosen, planted(spark))
    first, second = DaySpan(day(60), day(70)), DaySpan(day(70), day(80))
    parts = [(rows.fit("label", DaySpan(day(0), day(59))), first), (rows.fit("label", DaySpan(day(0), day(69))), second)]
    stacked = rows.with_forecasts("earlier", parts)
    model = stacked.fit("label", DaySpan(day(60), day(80)))
    found = stacked.forecast(DaySpan(day(50), day(90)), [(model, TEST)], ["earlier"])
    known = found["date"].between(pd.Timestamp(day(60)), pd.Timestamp(day(79)))
    assert model.features == (*FEATURES, "earlier")
    assert found["earlier"].notna().equals(known)
    assert found["forecast"].notna().equals(found["date"] >= pd.Timestamp(day(60)))
    assert len(found) == 40 * 30
    rows.release()
    stacked.release()


def test_labels_are_counted_by_day(chosen: Engine, spark: SparkSession) -> None:
    frame = planted(spark)
    rows = held(chosen, frame.withColumn("label", frame["label"] / (frame["date"] < day(50)).cast("int")))
    assert rows.labelled("label", DaySpan(day(40), day(60))) == 300
    assert rows.labelled("label", TEST) == 0
    rows.release()


def test_a_constant_label_is_forecast_as_it_is(chosen: Engine, spark: SparkSession) -> None:
    rows = held(chosen, planted(spark, label=1.5))
    found = rows.forecast(TEST, [(rows.fit("label", TRAINING), TEST)], [])
    assert found["forecast"].to_numpy() == pytest.approx(np.full(900, 1.5))
    rows.release()


def test_a_few_rows_make_a_constant_model(chosen: Engine, spark: SparkSession) -> None:
    rows = held(chosen, planted(spark, rows=30))
    found = rows.forecast(TRAINING, [(rows.fit("label", TRAINING), TRAINING)], [])
    assert np.isfinite(found["forecast"]).all()
    assert found["forecast"].nunique() == 1
    rows.release()


def test_without_a_model_nothing_is_forecast(chosen: Engine, spark: SparkSession) -> None:
    rows = held(chosen, planted(spark))
    stacked = rows.with_forecasts("earlier", [])
    found = stacked.forecast(TEST, [], ["earlier"])
    assert found[["earlier", "forecast"]].isna().all().all()
    assert np.isfinite(stacked.forecast(TEST, [(stacked.fit("label", TRAINING), TEST)], [])["forecast"]).all()
    rows.release()
    stacked.release()


def test_both_engines_score_alike_on_the_same_rows(spark: SparkSession, server: Settings) -> None:
    errors = {}
    for name in ("synapseml", "lightgbm"):
        rows = held(engine_or_skip(name, spark, server), planted(spark))
        found = rows.forecast(TEST, [(rows.fit("label", TRAINING), TEST)], ["label"])
        errors[name] = (found["label"] - found["forecast"]).abs().mean()
        rows.release()
    assert errors["synapseml"] == pytest.approx(errors["lightgbm"], rel=0.05)


def test_synapseml_without_its_jars_says_how_to_go_on(spark: SparkSession, server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synapseml_engine, "ESTIMATOR_CLASS", "com.example.NotThere")
    with pytest.raises(EnvironmentNotReady, match="--engine lightgbm"):
        choose_engine("synapseml", server, spark)


def test_synapseml_on_another_processor_says_how_to_go_on(spark: SparkSession, server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(EnvironmentNotReady, match=r"aarch64.*--engine lightgbm"):
        choose_engine("synapseml", server, spark)


def test_an_unknown_engine_is_refused(spark: SparkSession, server: Settings) -> None:
    with pytest.raises(ConfigurationError, match="'xgboost' is unknown: allowed are synapseml and lightgbm"):
        choose_engine("xgboost", server, spark)
