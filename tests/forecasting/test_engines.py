"""One contract for both engines; their scores are compared, never their forecasts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from common.errors import ConfigurationError, EnvironmentNotReady
from config_spark import Settings
from forecasting.engines import synapseml_engine
from forecasting.engines.choose import choose_engine
from forecasting.engines.engine import KEY, Engine, FeatureRows, FittedModel, Objective
from forecasting.engines.folds import DaySpan
from tests.conftest import skip_where_synapseml_cannot_run
from tests.support.forecast_panels import SHORT

FIRST = dt.date(2024, 1, 1)
FEATURES = ("signal", "noise", "sparse")
LABELS = ("label", "other")
MEDIAN = Objective("label")


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
        return choose_engine(name, settings.model_copy(update=SHORT), spark)
    except EnvironmentNotReady as error:
        skip_where_synapseml_cannot_run(error)
        raise


def planted(spark: SparkSession, *, rows: int = 2700, **columns: Any) -> DataFrame:
    """Returns 30 pools x 90 days: label = 2 * signal + noise, other = -signal + noise.

    `sparse` is null in nine of ten rows and NaN in some others.

    Args:
        columns: replace generated columns; NaN becomes null but in `sparse`.
    """
    random = np.random.default_rng(11)
    signal = random.standard_normal(rows)
    share = random.uniform(size=rows)
    columns_of_rows = {
        "signal": signal,
        "noise": random.standard_normal(rows),
        "sparse": [None if number < 0.9 else np.nan if number < 0.95 else 1.0 for number in share],
        "label": 2.0 * signal + 0.3 * random.standard_normal(rows),
        "other": -signal + 0.1 * random.standard_normal(rows),
    }
    values = pd.DataFrame(columns_of_rows | columns).astype(object)
    without_sparse = values.drop(columns="sparse")
    values[without_sparse.columns] = without_sparse.where(without_sparse.notna(), None)
    keys = [(f"p{number % 30:02d}", day(number // 30)) for number in range(rows)]
    data = [(*key, *row) for key, row in zip(keys, values.itertuples(index=False), strict=True)]
    frame = spark.createDataFrame(
        data,
        "pool_id string, date date, signal double, noise double, sparse double, label double, other"
        " double",
    )
    return frame.withColumns({name: frame[name].cast("float") for name in LABELS})


def prepared(engine: Engine, frame: DataFrame) -> FeatureRows:
    return engine.prepare(frame, FEATURES, LABELS)


@pytest.fixture(scope="module")
def planted_rows(
    spark: SparkSession, server: Settings
) -> Iterator[Callable[[Engine], FeatureRows]]:
    """Generated rows in an engine, made once for each module, for tests that only read them."""
    rows_by_engine: dict[str, FeatureRows] = {}

    def rows_of(engine: Engine) -> FeatureRows:
        if engine.name not in rows_by_engine:
            rows_by_engine[engine.name] = prepared(engine, planted(spark))
        return rows_by_engine[engine.name]

    yield rows_of
    for rows in rows_by_engine.values():
        rows.release()


@pytest.fixture
def rows(chosen: Engine, planted_rows: Callable[[Engine], FeatureRows]) -> FeatureRows:
    return planted_rows(chosen)


def fitted(
    rows: FeatureRows, objective: Objective = MEDIAN, days: DaySpan = TRAINING
) -> FittedModel:
    (model,) = rows.fit([objective], days)
    return model


@pytest.fixture(scope="module")
def medians() -> dict[str, FittedModel]:
    """Models of the planted rows by engine, filled by `median`."""
    return {}


@pytest.fixture
def median(name: str, rows: FeatureRows, medians: dict[str, FittedModel]) -> FittedModel:
    """The model of the planted rows' median, fitted once a module for each engine."""
    if name not in medians:
        medians[name] = fitted(rows)
    return medians[name]


def test_learns_a_planted_signal_through_missing_features(
    rows: FeatureRows, median: FittedModel
) -> None:
    forecasts = rows.forecast(TEST, [median], ["label"])
    assert len(forecasts) == 900
    assert np.isfinite(forecasts["0"]).all()
    assert (forecasts["label"] - forecasts["0"]).abs().mean() < 0.3 * forecasts[
        "label"
    ].abs().mean()


def test_models_come_in_the_order_of_their_objectives(rows: FeatureRows) -> None:
    """Two labels, both outer quantiles and two seeds in one call, in order."""
    objectives = [
        Objective("other"),
        MEDIAN,
        Objective("label", alpha=0.1),
        Objective("label", seed_offset=1),
        Objective("label", alpha=0.9),
    ]
    forecasts = rows.forecast(TEST, rows.fit(objectives, TRAINING), LABELS)
    assert list(forecasts.columns) == [*KEY, *LABELS, "0", "1", "2", "3", "4"]
    assert (forecasts["other"] - forecasts["0"]).abs().mean() < 0.3 * forecasts[
        "other"
    ].abs().mean()
    assert (forecasts["1"] - forecasts["3"]).abs().mean() < 0.2
    assert not (forecasts["1"] == forecasts["3"]).all()
    low, median, high = (forecasts[name].mean() for name in ("2", "1", "4"))
    assert low + 0.1 < median < high - 0.1
    assert (forecasts["label"] < forecasts["2"]).mean() == pytest.approx(0.1, abs=0.05)
    assert (forecasts["label"] > forecasts["4"]).mean() == pytest.approx(0.1, abs=0.05)


def test_a_model_does_not_depend_on_parallel_fits(rows: FeatureRows, median: FittedModel) -> None:
    together = rows.fit(
        [Objective("other"), MEDIAN, Objective("label", alpha=0.9, seed_offset=2)], TRAINING
    )
    assert together[1].text == median.text
    assert together[2].text == fitted(rows, Objective("label", alpha=0.9, seed_offset=2)).text


def test_a_second_run_gives_the_same_bits(
    chosen: Engine, spark: SparkSession, rows: FeatureRows, median: FittedModel
) -> None:
    again = prepared(chosen, planted(spark))
    model = fitted(again)
    assert (model.text, model.fingerprint) == (median.text, median.fingerprint)
    first, second = (
        dataset.forecast(TEST, [median], [])["0"].to_numpy() for dataset in (rows, again)
    )
    assert first.tobytes() == second.tobytes()
    again.release()


def test_the_size_of_the_cluster_does_not_change_a_model(
    chosen: Engine, spark: SparkSession, median: FittedModel
) -> None:
    """A laptop has 8 shuffle partitions, a batch as many as its rows need, and they deliver rows in
    another order. The shared session has 2.
    """
    before = str(spark.conf.get("spark.sql.shuffle.partitions"))
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    rows = prepared(chosen, planted(spark).repartition(5, "date"))
    text = fitted(rows).text
    rows.release()
    spark.conf.set("spark.sql.shuffle.partitions", before)
    assert (before, text == median.text) == ("2", True)


def test_another_seed_is_another_model(
    name: str, rows: FeatureRows, median: FittedModel, spark: SparkSession, server: Settings
) -> None:
    other = engine_or_skip(
        name, spark, server.model_copy(update={"model_seed": server.model_seed + 1})
    )
    same, drawn = prepared(other, planted(spark)), Objective("label", seed_offset=1)
    seeded = fitted(same)
    assert seeded.fingerprint != median.fingerprint
    # a draw is nothing but the next seed
    forecasts = [
        dataset.forecast(TEST, [model], [])["0"]
        for dataset, model in ((rows, fitted(rows, drawn)), (same, seeded))
    ]
    assert forecasts[0].equals(forecasts[1])
    same.release()


def test_any_lightgbm_reads_a_model(
    spark: SparkSession, rows: FeatureRows, median: FittedModel
) -> None:
    frame = planted(spark)
    booster = lightgbm.Booster(model_str=median.text)
    data = (
        frame.where(frame["date"] >= TEST.start)
        .orderBy(*KEY)
        .select(*FEATURES)
        .toPandas()
        .astype(float)
    )
    assert booster.feature_name() == list(median.features) == list(FEATURES)
    forecasts = rows.forecast(TEST, [median], [])["0"].to_numpy()
    assert booster.predict(data.to_numpy()) == pytest.approx(forecasts, abs=1e-5)
    assert np.sum(booster.predict(data.to_numpy(), pred_contrib=True), axis=1) == pytest.approx(
        forecasts, abs=1e-5
    )


def test_a_model_loaded_from_its_text_forecasts_the_same_bits(
    chosen: Engine, rows: FeatureRows, median: FittedModel
) -> None:
    """A median, an outer quantile and a model with a forecast as a feature, in a new engine."""
    stacked = rows.with_feature("earlier", [(median, TEST)])
    models = [
        median,
        fitted(rows, Objective("label", alpha=0.1)),
        fitted(stacked, Objective("other")),
    ]
    loaded = [chosen.load(model.text, model.features) for model in models]
    assert [
        (fitted_model.text, fitted_model.features, fitted_model.fingerprint)
        for fitted_model in loaded
    ] == [
        (fitted_model.text, fitted_model.features, fitted_model.fingerprint)
        for fitted_model in models
    ]
    for cached_dataset, places in ((rows, (0, 1)), (stacked, (2,))):
        forecasts = cached_dataset.forecast(TEST, [models[place] for place in places], [])
        again = cached_dataset.forecast(TEST, [loaded[place] for place in places], [])
        pd.testing.assert_frame_equal(again, forecasts, check_exact=True)
    by_loaded = rows.with_feature("earlier", [(loaded[0], TEST)])
    pd.testing.assert_frame_equal(
        by_loaded.forecast(TEST, [], ["earlier"]),
        stacked.forecast(TEST, [], ["earlier"]),
        check_exact=True,
    )
    for dataset in (stacked, by_loaded):
        dataset.release()


def test_a_text_that_is_no_model_is_refused(chosen: Engine) -> None:
    with pytest.raises(ValueError, match="no LightGBM model"):
        chosen.load("tree\nversion=v4\nthis is no model", FEATURES)


def test_the_features_come_as_a_matrix_and_a_part_of_them_is_the_same_every_time(
    chosen: Engine, spark: SparkSession
) -> None:
    frame = planted(spark)
    rows, other_layout = (
        prepared(chosen, frame),
        prepared(chosen, frame.orderBy("noise").repartition(3)),
    )
    keys, matrix = rows.feature_matrix(TEST, ())
    assert rows.feature_matrix(TEST, ["label"])[0].columns.tolist() == [*KEY, "label"]
    expected = frame.where(frame["date"] >= TEST.start).orderBy(*KEY).toPandas()
    assert list(keys.columns) == list(KEY)
    assert keys["pool_id"].tolist() == expected["pool_id"].tolist()
    assert keys["date"].dt.date.tolist() == expected["date"].tolist()
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected[list(FEATURES)].to_numpy(np.float32))

    part_keys, part = rows.feature_matrix(TEST, (), at_most=200)
    assert 100 <= len(part) <= 300
    places = keys.reset_index().merge(part_keys, on=list(KEY))["index"].to_numpy()
    assert (np.diff(places) > 0).all()
    assert places[0] >= 0
    np.testing.assert_array_equal(part, matrix[places])
    for again_keys, again in (
        rows.feature_matrix(TEST, (), at_most=200),
        other_layout.feature_matrix(TEST, (), at_most=200),
    ):
        pd.testing.assert_frame_equal(again_keys, part_keys)
        np.testing.assert_array_equal(again, part)
    assert len(rows.feature_matrix(TEST, (), at_most=900)[1]) == 900

    none_keys, nothing = rows.feature_matrix(DaySpan(day(90), day(95)), ())
    assert (len(none_keys), nothing.shape) == (0, (0, 3))
    rows.release()
    other_layout.release()


def test_forecasts_are_sorted_and_have_the_requested_columns(
    chosen: Engine, spark: SparkSession
) -> None:
    frame = planted(
        spark, label=[None if number % 7 == 0 else float(number) for number in range(2700)]
    )
    rows = prepared(chosen, frame.orderBy("label"))
    forecasts = rows.forecast(DaySpan(day(3), day(5)), [], ["label"])
    assert list(forecasts.columns) == [*KEY, "label"]
    pools_and_days = list(product(range(30), (3, 4)))
    keys = [(f"p{pool:02d}", pd.Timestamp(day(number))) for pool, number in pools_and_days]
    assert list(zip(forecasts["pool_id"], forecasts["date"], strict=True)) == keys
    expected = [
        np.nan if (place := 30 * number + pool) % 7 == 0 else float(place)
        for pool, number in pools_and_days
    ]
    assert np.array_equal(forecasts["label"], expected, equal_nan=True)
    rows.release()


def test_days_without_rows_are_forecast_by_no_row(rows: FeatureRows, median: FittedModel) -> None:
    forecasts = rows.forecast(DaySpan(day(90), day(95)), [median], ["label"])
    assert (len(forecasts), list(forecasts.columns)) == (0, [*KEY, "label", "0"])


def test_forecasts_become_a_feature_on_their_days_only(rows: FeatureRows) -> None:
    first, second = DaySpan(day(60), day(70)), DaySpan(day(70), day(80))
    early, late = (
        fitted(rows, days=DaySpan(day(0), day(40))),
        fitted(rows, days=DaySpan(day(0), day(69))),
    )
    stacked = rows.with_feature("earlier", [(early, first), (late, second)])
    model = fitted(stacked, Objective("other"), DaySpan(day(60), day(80)))
    days = DaySpan(day(50), day(90))
    forecasts, direct = (
        stacked.forecast(days, [model], ["earlier"]),
        rows.forecast(days, [early, late], []),
    )
    date = forecasts["date"].dt.date
    expected = (
        direct["0"]
        .where(date < second.start, direct["1"])
        .where((date >= first.start) & (date < second.end))
        .astype("float32")
    )
    pd.testing.assert_series_equal(
        forecasts["earlier"].astype("float32"), expected, check_exact=True, check_names=False
    )
    assert forecasts["0"].notna().all()
    assert len(forecasts) == 40 * 30
    stacked.release()


def test_a_new_feature_leaves_the_old_rows_as_they_were(
    rows: FeatureRows, median: FittedModel
) -> None:
    before = rows.forecast(TEST, [median], LABELS)
    stacked = rows.with_feature("earlier", [(median, TEST)])
    pd.testing.assert_frame_equal(rows.forecast(TEST, [median], LABELS), before, check_exact=True)
    assert fitted(rows).text == median.text
    stacked.release()


def test_without_a_model_nothing_is_forecast(rows: FeatureRows) -> None:
    stacked = rows.with_feature("earlier", [])
    assert stacked.forecast(TEST, [], ["earlier"])["earlier"].isna().all()
    assert np.isfinite(stacked.forecast(TEST, [fitted(stacked)], [])["0"]).all()
    stacked.release()


def test_a_null_and_a_nan_are_the_same_missing_value(chosen: Engine, spark: SparkSession) -> None:
    texts = []
    for missing in (None, np.nan):
        rows = prepared(
            chosen,
            planted(
                spark, sparse=[missing if number % 3 else number / 1000 for number in range(2700)]
            ),
        )
        texts.append(fitted(rows).text)
        rows.release()
    assert texts[0] == texts[1]


def test_missing_values_can_be_the_signal(chosen: Engine, spark: SparkSession) -> None:
    """The label is 3 if `sparse` is null, and 1 if it is 0."""
    is_present = [number % 2 == 0 for number in range(2700)]
    rows = prepared(
        chosen,
        planted(
            spark,
            sparse=[0.0 if show else None for show in is_present],
            label=[1.0 if show else 3.0 for show in is_present],
        ),
    )
    forecasts = rows.forecast(TEST, [fitted(rows)], ["label"])
    assert (forecasts["label"] - forecasts["0"]).abs().max() < 0.5
    rows.release()


def test_a_feature_without_any_value_changes_nothing(chosen: Engine, spark: SparkSession) -> None:
    rows = prepared(chosen, planted(spark, sparse=[None] * 2700))
    forecasts = rows.forecast(TEST, [fitted(rows)], ["label"])
    assert (forecasts["label"] - forecasts["0"]).abs().mean() < 0.3 * forecasts[
        "label"
    ].abs().mean()
    rows.release()


def test_rows_without_a_label_are_counted_and_trained_on_by_nobody(
    chosen: Engine, spark: SparkSession
) -> None:
    frame = planted(spark)
    partly_labelled = frame.withColumns(
        {name: F.when(frame["date"] < day(50), frame[name]) for name in LABELS}
    )
    rows = prepared(chosen, partly_labelled)
    assert rows.labelled_rows("label", DaySpan(day(40), day(60))) == 300
    assert rows.labelled_rows("label", TEST) == 0
    assert rows.labelled_rows("other", DaySpan(day(0), day(90))) == 1500
    assert (
        fitted(rows, days=DaySpan(day(0), day(90))).text
        == fitted(rows, days=DaySpan(day(0), day(50))).text
    )
    rows.release()


@pytest.mark.parametrize("alpha", [None, 0.1])
def test_a_constant_label_is_forecast_as_it_is(
    chosen: Engine, spark: SparkSession, alpha: float | None
) -> None:
    rows = prepared(chosen, planted(spark, label=1.5))
    forecasts = rows.forecast(TEST, [fitted(rows, Objective("label", alpha))], [])
    assert forecasts["0"].to_numpy() == pytest.approx(np.full(900, 1.5))
    rows.release()


def test_a_few_rows_make_a_constant_model(chosen: Engine, spark: SparkSession) -> None:
    rows = prepared(chosen, planted(spark, rows=30))
    forecasts = rows.forecast(TRAINING, [fitted(rows)], [])
    assert np.isfinite(forecasts["0"]).all()
    assert forecasts["0"].nunique() == 1
    rows.release()


def test_released_rows_are_kept_nowhere(chosen: Engine, spark: SparkSession) -> None:
    before = kept_in_spark(spark)
    rows = prepared(chosen, planted(spark))
    stacked = rows.with_feature("earlier", [(fitted(rows), TEST)])
    assert len(stacked.forecast(TEST, [], ["earlier"])) == 900
    stacked.release()
    rows.release()
    assert kept_in_spark(spark) == before


def kept_in_spark(spark: SparkSession) -> int:
    return int(spark.sparkContext._jsc.getPersistentRDDs().size())


def test_both_engines_score_alike_on_the_same_rows(
    spark: SparkSession,
    server: Settings,
    planted_rows: Callable[[Engine], FeatureRows],
    medians: dict[str, FittedModel],
) -> None:
    errors = {}
    for name in ("synapseml", "lightgbm"):
        rows = planted_rows(engine_or_skip(name, spark, server))
        forecasts = rows.forecast(TEST, [medians.get(name) or fitted(rows)], ["label"])
        errors[name] = (forecasts["label"] - forecasts["0"]).abs().mean()
    assert errors["synapseml"] == pytest.approx(errors["lightgbm"], rel=0.05)


def test_both_engines_make_the_same_matrix_of_the_same_rows(
    spark: SparkSession, server: Settings, planted_rows: Callable[[Engine], FeatureRows]
) -> None:
    matrices = []
    for name in ("synapseml", "lightgbm"):
        rows = planted_rows(engine_or_skip(name, spark, server))
        matrices.append(rows.feature_matrix(TEST, ()))
    pd.testing.assert_frame_equal(matrices[0][0], matrices[1][0])
    np.testing.assert_array_equal(matrices[0][1], matrices[1][1])


def test_synapseml_without_its_jars_names_the_next_step(
    spark: SparkSession, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synapseml_engine, "ESTIMATOR_CLASS", "com.example.NotThere")
    with pytest.raises(EnvironmentNotReady, match="--engine lightgbm"):
        choose_engine("synapseml", server, spark)


def test_synapseml_on_another_processor_names_the_next_step(
    spark: SparkSession, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(EnvironmentNotReady, match=r"aarch64.*--engine lightgbm"):
        choose_engine("synapseml", server, spark)


def test_an_unknown_engine_is_refused(spark: SparkSession, server: Settings) -> None:
    with pytest.raises(
        ConfigurationError, match="'xgboost' is unknown: allowed are synapseml and lightgbm"
    ):
        choose_engine("xgboost", server, spark)
