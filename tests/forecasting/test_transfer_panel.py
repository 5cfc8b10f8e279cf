"""The transfer panel: its rows, the runs that learn from it, and that no fold learns from days
after its origin.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

import sample_data
from config_spark import Settings
from database.connections.engine import make_engine
from forecasting.engines.engine import FittedModel, Objective
from forecasting.engines.folds import DaySpan, refit_folds
from forecasting.engines.lightgbm_engine import LightgbmEngine
from forecasting.engines.model_parameters import ModelParameters
from forecasting.features.feature_names import FEATURES, LABELS
from forecasting.features.feature_rows import complete_rows
from forecasting.features.labelled_features import FeatureSpec
from forecasting.features.transfer_panel import panel_metrics, pool_days_before
from forecasting.features.transfer_rows import transfer_rows
from forecasting.forecast_pools_spark import run_forecast
from forecasting.models.stacked_model import fit_stacked
from forecasting.registry.versions import list_versions, show_version
from forecasting.run.transfer import SMALL_PANEL_POOLS, transfer_choice
from tests.forecasting.test_engines import engine_or_skip
from tests.forecasting.test_forecast_executors import contents, newest_plan
from tests.forecasting.test_forecast_job import no_session
from tests.forecasting.test_golden_accuracy import untimed
from tests.support.forecast_panels import SHORT, history_rows, metric_rows, panel_rows, store

FIRST, LAST = dt.date(2024, 11, 4), dt.date(2025, 9, 29)
AS_OF = dt.date(2025, 9, 10)
"""As-of day of pools that live in the days of the panel."""


def spec(as_of: dt.date, horizon: int = 1) -> FeatureSpec:
    return FeatureSpec(as_of, as_of, horizon, level=0.8, min_history_days=4)


def test_the_panel_is_the_sample_by_day() -> None:
    expected = metric_rows(
        history_rows(Path(sample_data.__file__).parent / "pool_history.parquet")
    ).sort_by([("pool_id", "ascending"), ("date", "ascending")])
    assert panel_metrics().to_pylist() == expected.to_pylist()
    days = panel_metrics()["date"].to_pylist()
    assert (min(days), max(days)) == (FIRST, LAST)
    assert (pool_days_before(FIRST), pool_days_before(dt.date(2030, 1, 1))) == (0, len(days))


@pytest.mark.parametrize("horizon", [1, 7])
def test_rows_of_an_earlier_as_of_day_know_nothing_of_later_ones(horizon: int) -> None:
    cut = dt.date(2025, 3, 3)
    early, late = transfer_rows(spec(cut, horizon)), transfer_rows(spec(LAST, horizon))
    # a row with a label knows the days up to its target day
    last = pa.scalar(cut - dt.timedelta(days=horizon), pa.date32())
    assert pc.max(early["date"]).as_py() == last.as_py()
    assert early.equals(late.filter(pc.less_equal(late["date"], last)))
    assert len(early) > 1000


def planted(days: int, pools: int, first: dt.date, slope: float) -> pa.Table:
    """Returns rows with label = slope x signal: models of other slopes have other texts."""
    number = pd.RangeIndex(days * pools)
    signal = pd.Series((number * 7919) % 1009 / 1009.0, dtype="float32")
    frame = pd.DataFrame(
        {
            "pool_id": [f"p{row % pools:02d}" for row in number],
            "date": [first + dt.timedelta(days=row // pools) for row in number],
            "signal": signal,
            "label": (slope * signal).astype("float32"),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


DAYS = DaySpan(dt.date(2025, 1, 1), dt.date(2025, 3, 2))
OWN = planted(90, 8, DAYS.start, 1.0)


def fit(settings: Settings, name: str, spark: SparkSession, panel: pa.Table | None) -> FittedModel:
    """Fits an engine on own rows of 60 of 90 days and on the panel's."""
    engine = engine_or_skip(name, spark, settings)
    own = spark.createDataFrame(OWN.to_pandas()) if name == "synapseml" else OWN
    rows = engine.prepare(own, ["signal"], ["label"], panel)
    try:
        (model,) = rows.fit([Objective("label")], DAYS)
    finally:
        rows.release()
    return model


@pytest.mark.parametrize("name", ["lightgbm", "synapseml"])
def test_a_fit_learns_from_the_panel_of_earlier_days_only(
    name: str, spark: SparkSession, server: Settings
) -> None:
    alone = fit(server, name, spark, None)
    # years before the own rows, and from the first day on that is not trained on
    old = planted(60, 8, dt.date(2022, 1, 1), -3.0)
    future = planted(60, 8, DAYS.end, -3.0)
    assert fit(server, name, spark, future).text == alone.text
    with_panel = fit(server, name, spark, old)
    assert with_panel.text != alone.text
    both = pa.concat_tables([old, future])
    assert fit(server, name, spark, both).text == with_panel.text


def test_own_rows_outweigh_those_of_the_panel() -> None:
    """As many rows with the opposite label do not turn the forecasts."""
    engine = LightgbmEngine(ModelParameters(seed=1, threads=2, rounds=60, min_data_in_leaf=10))
    rows = engine.prepare(OWN, ["signal"], ["label"], planted(60, 8, dt.date(2022, 1, 1), -1.0))
    assert rows.transfer_rows("label", DAYS) == rows.labelled_rows("label", DAYS) == 480
    models = rows.fit([Objective("label")], DAYS)
    days = DaySpan(DAYS.end, DAYS.end + dt.timedelta(days=30))
    forecasts = rows.forecast(days, models, ["label"])
    assert set(forecasts["pool_id"]) == {f"p{number:02d}" for number in range(8)}
    errors = (forecasts["0"] - forecasts["label"]).abs()
    assert errors.mean() < 0.1 * forecasts["label"].abs().mean()


def test_stacked_features_reach_the_panel() -> None:
    engine = LightgbmEngine(ModelParameters(seed=1, threads=2, rounds=10))
    spans = DaySpan(dt.date(2025, 2, 1), DAYS.end)
    panel = planted(90, 8, DAYS.start, 1.0)
    rows = engine.prepare(OWN, ["signal"], ["label"], panel)
    (model,) = rows.fit([Objective("label")], DaySpan(DAYS.start, spans.start))
    stacked = rows.with_feature("forecast", [(model, spans)])
    assert stacked.transfer is not None
    has_forecast = pd.notna(stacked.transfer.matrix[:, 1])
    dates = stacked.transfer.frame["date"].dt.date
    assert has_forecast.tolist() == [day in spans for day in dates]


def test_only_models_of_apy_learn_from_the_panel() -> None:
    folds = refit_folds(AS_OF, horizon=1, train_days=60, validation_days=45)
    metrics = metric_rows(panel_rows(12, 130, end=AS_OF)).to_batches()
    own = complete_rows(metrics, replace(spec(AS_OF), first_day=folds.first_day), None)
    engine = LightgbmEngine(ModelParameters(seed=1, threads=2, rounds=5))
    alone, with_panel = (
        fit_stacked(engine.prepare(own, FEATURES, LABELS, panel), folds, 0.8, untimed).models[0]
        for panel in (None, transfer_rows(spec(AS_OF)))
    )
    assert [model.text for model in with_panel.tvl] == [model.text for model in alone.tvl]
    assert alone.apy
    for model, other in zip(with_panel.apy, alone.apy, strict=True):
        assert model.text != other.text


def test_the_rule(server: Settings) -> None:
    def choice(pools: int, end: dt.date = AS_OF, **update: Any) -> tuple[int, str]:
        chosen = transfer_choice(server.model_copy(update=update), pools, end)
        assert chosen.takes_part == (chosen.rows > 0)
        return chosen.rows, chosen.reason

    assert choice(SMALL_PANEL_POOLS - 1) == (pool_days_before(AS_OF), "fewer than 30 pools")
    assert choice(SMALL_PANEL_POOLS) == (0, "own rows suffice from 30 pools on")
    assert choice(8, transfer_panel="off") == (0, "TRANSFER_PANEL=off")
    assert choice(8, market_features=True)[0] == 0
    assert choice(8, FIRST) == (0, f"the panel has no day before {FIRST}")


QUICK = SHORT | {"refit_days": 7, "executor": "inprocess"}


@pytest.fixture
def short(database: Settings) -> Settings:
    return database.model_copy(update=QUICK)


@pytest.fixture
def off(second_database: Settings) -> Settings:
    return second_database.model_copy(update=QUICK | {"transfer_panel": "off"})


def forecast(
    settings: Settings, rows: pd.DataFrame | None = None, **options: Any
) -> dict[str, Any]:
    """Runs the whole job, on these metrics if they are given, and returns its plan."""
    database = make_engine(settings)
    if rows is not None:
        store(database, rows)
    defaults: dict[str, Any] = {"engine": "lightgbm", "session": no_session, "full_refresh": True}
    run_forecast(settings, **(defaults | options))
    return newest_plan(database)


def versions(settings: Settings) -> list[dict[str, Any]]:
    native = settings.model_copy(update={"engine": "lightgbm"})
    database = make_engine(native)
    names = [version.version for version in list_versions(native, database)]
    return [show_version(native, database, name) for name in names]


def test_few_pools_learn_from_the_panel_and_off_turns_it_off(
    short: Settings, off: Settings
) -> None:
    rows = panel_rows(12, 130, end=AS_OF)
    store(make_engine(short), rows)
    planned = run_forecast(short, engine="lightgbm", session=no_session, dry_run=True)["plan"]
    with_panel, without = forecast(short), forecast(off, rows)
    origin = AS_OF - dt.timedelta(days=short.validation_days)
    for plan in (planned, with_panel):
        assert (plan["transfer_reason"], plan["pools"]) == ("fewer than 30 pools", 12)
        assert plan["transfer_rows"] == pool_days_before(origin)
    assert (without["transfer_rows"], without["transfer_reason"]) == (0, "TRANSFER_PANEL=off")
    (version,), (version_of_own_rows,) = versions(short), versions(off)
    # rows with a label and a target day on or before the origin
    labelled = transfer_rows(spec(origin))["apy_label"].drop_null()
    assert version["settings"]["transfer_rows"] == len(labelled) > 0
    assert "transfer_rows" not in version_of_own_rows["settings"]
    assert version["version"] != version_of_own_rows["version"]
    # a run that fits nothing needs no panel
    assert "transfer_rows" not in forecast(short)


def test_thirty_pools_forecast_as_without_the_panel(short: Settings, off: Settings) -> None:
    rows = panel_rows(SMALL_PANEL_POOLS, 130, end=AS_OF)
    results = []
    for settings in (short, off):
        assert forecast(settings, rows)["transfer_rows"] == 0
        results.append((contents(make_engine(settings)), versions(settings)[0]["settings"]))
    assert results[0] == results[1]


def test_both_executors_learn_the_same_from_the_panel(
    spark: SparkSession, short: Settings, second_database: Settings
) -> None:
    in_process = short.model_copy(update={"horizons": (1, 7)})
    on_spark = second_database.model_copy(update=QUICK | {"horizons": (1, 7), "executor": "spark"})
    rows = panel_rows(12, 130, end=AS_OF)
    plan = forecast(in_process, rows)
    plan_on_spark = forecast(on_spark, rows, session=lambda _: spark)
    assert plan["transfer_rows"] == plan_on_spark["transfer_rows"] > 0
    assert contents(make_engine(in_process)) == contents(make_engine(on_spark))


def test_young_pools_get_a_model_once_they_have_some_rows_of_their_own(
    short: Settings, off: Settings
) -> None:
    rows = panel_rows(10, short.validation_days + 15, end=AS_OF)
    is_validated = rows["date"] > AS_OF - dt.timedelta(days=short.validation_days)
    forecast(short, rows[is_validated])
    assert versions(short) == []
    forecast(short, rows[~is_validated])
    assert len(versions(short)) == 1
    forecast(off, rows)
    assert versions(off) == []


def test_the_panel_has_the_features_of_the_model() -> None:
    assert {*FEATURES, *LABELS} <= set(transfer_rows(spec(AS_OF)).column_names)
