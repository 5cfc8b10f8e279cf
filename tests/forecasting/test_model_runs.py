"""Runs with a registry: the version that forecasts, the decisions, and forecasts in spite of a
registry that fails.
"""

from __future__ import annotations

import datetime as dt
import socket
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine

from common.errors import RunInProgress
from config_spark import Settings
from database.connections.engine import make_engine
from forecasting.compare_versions import compare_versions
from forecasting.engines.folds import inference_folds
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.promotion_policy import KEPT, PROMOTED, REFUSED, PromotionDecision
from forecasting.models.stacked_model import OutOfSample
from forecasting.registry import outbox
from forecasting.registry.mlflow_registry import Registry
from forecasting.registry.model_archive import ModelArchive
from forecasting.registry.serving import ServingVersions, serving_versions
from forecasting.registry.versions import list_versions
from forecasting.run.dataset import active_pools
from forecasting.run.plan import HorizonPlan
from forecasting.run.registration import model_checks, record_refit, register_versions
from forecasting.run.serving_model import Refit, ServingModel
from spark.executor_choice import ExecutorChoice
from tests.forecasting.test_forecast_job import forecast, no_session, table
from tests.support.forecast_panels import END, SHORT, panel_rows, pool_rows, store
from tests.support.model_archives import archive

MODEL: dict[str, Any] = {"engine": "lightgbm", "horizon": 1}
FIRST_DAY = END - dt.timedelta(days=10)
FITS = {"fit_tvl", "fit_apy", "validate"}


@pytest.fixture
def weekly(database: Settings) -> Settings:
    return database.model_copy(update=SHORT | {"refit_days": 7, "executor": "inprocess"})


def day(number: int) -> dt.date:
    return FIRST_DAY + dt.timedelta(days=number)


def checks_of(row: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    return {
        check["name"]: (check["passed"], check["found"])
        for check in row["checks"]
        if check["name"].startswith("model_")
    }


def versions_of(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {version.version: version.aliases for version in Registry(settings, **MODEL).versions()}


def made_by(settings: Settings, as_of: dt.date) -> set[str]:
    forecasts = table(settings, "yieldspark.forecasts")
    return set(forecasts.loc[forecasts["as_of"] == as_of, "model_version"])


def closed_port() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


def test_a_model_is_fitted_served_validated_again_and_replaced_if_damaged(
    weekly: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six runs and a comparison, each on the result of the one before: 20 seconds."""
    store(engine, panel_rows(12, 130))
    with monkeypatch.context() as patched:
        version = _first_run_fits_and_validates_a_version(weekly, patched)
    _next_run_loads_it(weekly, version)
    challenger, champion = _later_run_compares_a_new_version(weekly, version)
    _versions_are_compared_by_hand(weekly, version, challenger)
    _run_of_a_past_day_fits_its_own_version(weekly)
    _damaged_champion_is_replaced(weekly, champion)


def _first_run_fits_and_validates_a_version(weekly: Settings, patched: pytest.MonkeyPatch) -> str:
    """The version is fitted on data up to 45 days ago, and validated on the days since."""

    def read_while_another_asks(*arguments: Any) -> pd.DataFrame:
        with pytest.raises(
            RunInProgress, match="forecast_pools is already running: run forecast_pools_"
        ):
            forecast(weekly, as_of=day(0))
        return active_pools(*arguments)

    # the first run fits a version on data up to 45 days ago, and validates it on the days since
    patched.setattr("forecasting.run.execution.active_pools", read_while_another_asks)
    row = forecast(weekly, as_of=day(0), full_refresh=False)
    ((version, aliases),) = versions_of(weekly).items()
    assert (row["status"], aliases, version[:8]) == (
        "succeeded",
        (CHAMPION,),
        f"{day(-45):%Y%m%d}",
    )
    card = Registry(weekly, **MODEL).load(version).card
    assert (card.origin, card.known, card.data_rows, card.passed) == (
        day(-45),
        day(0),
        row["rows"]["read"],
        True,
    )
    assert (card.scores["days"], set(card.scores["ratio"])) == (45, {"challenger/persistence"})
    decided = table(weekly, "yieldspark.promotion")
    assert decided[
        ["decision", "challenger", "champion", "serving_version", "run_id"]
    ].to_numpy().tolist() == [[PROMOTED, version, None, version, row["run_id"]]]
    assert decided["numbers"].iloc[0] == card.scores
    assert checks_of(row)["model_registry"] == (
        True,
        "the registry answers and its versions are intact",
    )
    assert checks_of(row)["model_decision"][1].startswith(
        "promoted: the challenger loses less than persistence"
    )
    assert checks_of(row)["model_serves"] == (True, f"{version} serves")
    assert outbox.pending_versions(make_engine(weekly), **MODEL) == []
    return version


def _next_run_loads_it(weekly: Settings, version: str) -> None:
    row = forecast(weekly, as_of=day(1))
    assert not FITS & set(row["stages"])
    assert (made_by(weekly, day(0)), made_by(weekly, day(1)), set(checks_of(row))) == (
        {version},
        {version},
        {"model_registry", "model_serves"},
    )


def _later_run_compares_a_new_version(weekly: Settings, version: str) -> tuple[str, str]:
    """A week later. Returns the challenger and the champion."""
    row = forecast(weekly, as_of=day(7))
    assert set(row["stages"]) >= FITS
    challenger, (_, decision) = (
        max(versions_of(weekly)),
        table(weekly, "yieldspark.promotion").iterrows(),
    )
    decision = decision[1]
    assert (challenger[:8], decision["challenger"], decision["champion"]) == (
        f"{day(-38):%Y%m%d}",
        challenger,
        version,
    )
    assert decision["decision"] in (KEPT, PROMOTED)
    champion = challenger if decision["decision"] == PROMOTED else version
    assert (
        decision["serving_version"],
        made_by(weekly, day(7)),
        versions_of(weekly)[champion],
    ) == (
        champion,
        {champion},
        (CHAMPION,),
    )
    assert set(decision["numbers"]["ratio"]) == {
        "challenger/persistence",
        "challenger/champion",
        "champion/persistence",
    }
    assert decision["numbers"]["days"] == 45
    return challenger, champion


def _versions_are_compared_by_hand(weekly: Settings, version: str, challenger: str) -> None:
    """On the newest 45 days, which neither was fitted on."""
    compared = compare_versions(
        weekly.model_copy(update={"engine": "lightgbm"}), version, challenger, session=no_session
    )
    assert (
        compared["first"],
        compared["first_day"],
        compared["last_day"],
        compared["numbers"]["days"],
    ) == (version, day(-35), END, 45)
    assert set(compared["numbers"]["ratio"]) == {
        "challenger/persistence",
        "challenger/champion",
        "champion/persistence",
    }


def _run_of_a_past_day_fits_its_own_version(weekly: Settings) -> None:
    """The day is before all versions. The run moves no alias."""
    before = versions_of(weekly)
    row = forecast(weekly, as_of=day(-1))
    after = versions_of(weekly)
    ((past, aliases),) = set(after.items()) - set(before.items())
    assert (row["status"], past[:8], aliases, made_by(weekly, day(-1))) == (
        "succeeded",
        f"{day(-46):%Y%m%d}",
        (),
        {past},
    )
    assert (
        set(before.items()) <= set(after.items()),
        len(table(weekly, "yieldspark.promotion")),
    ) == (True, 2)


def _damaged_champion_is_replaced(weekly: Settings, champion: str) -> None:
    """The run reports the damaged files, and another version that passed forecasts."""
    content = Registry(weekly, **MODEL).load(champion).files()["apy-00.txt"]
    (path,) = [
        path
        for path in (weekly.yieldspark_home / "mlflow").rglob("apy-00.txt")
        if path.read_bytes() == content
    ]
    path.write_bytes(content[:-1])
    row = forecast(weekly, as_of=day(8))
    assert row["status"] == "succeeded"
    assert checks_of(row)["model_registry"][0] is False
    assert f"model version {champion} is damaged: apy-00.txt" in checks_of(row)["model_registry"][1]
    (other,) = made_by(weekly, day(8))
    assert (other != champion, checks_of(row)["model_serves"]) == (True, (True, f"{other} serves"))


def test_a_registry_that_is_down_costs_no_forecast_and_gets_the_version_later(
    weekly: Settings, engine: Engine
) -> None:
    store(engine, panel_rows(12, 130))
    uri = closed_port()
    row = forecast(weekly.model_copy(update={"mlflow_tracking_uri": uri}), as_of=day(9))
    assert (row["status"], row["rows"]["inserted"]) == ("succeeded", 12)
    passed, message = checks_of(row)["model_registry"]
    assert (passed, f"the model registry at {uri} failed" in message) == (False, True)
    (waiting,) = outbox.pending_versions(engine, **MODEL)
    version = waiting.archive.card.version
    assert (waiting.alias, made_by(weekly, day(9)), versions_of(weekly)) == (
        CHALLENGER,
        {version},
        {},
    )
    assert table(weekly, "yieldspark.promotion")[
        ["decision", "serving_version"]
    ].to_numpy().tolist() == [[PROMOTED, version]]

    row = forecast(weekly, as_of=day(10))
    assert (checks_of(row)["model_registry"][0], FITS & set(row["stages"])) == (True, set())
    assert (made_by(weekly, day(10)), checks_of(row)["model_serves"]) == (
        {version},
        (True, f"{version} serves"),
    )
    assert (versions_of(weekly), outbox.pending_versions(engine, **MODEL)) == (
        {version: (CHAMPION,)},
        [],
    )


def test_where_nothing_can_be_forecast_persistence_is_published_with_the_reason(
    weekly: Settings, engine: Engine
) -> None:
    """Random walks: the past does not predict the future."""
    random = np.random.default_rng(12)
    walks = np.exp(0.05 * np.cumsum(random.standard_normal((2, 12, 130)), axis=2))
    pools = [
        pool_rows(f"p{number:02d}", list(10.0 * apy), list(1e6 * tvl))
        for number, (apy, tvl) in enumerate(zip(*walks, strict=True))
    ]
    store(engine, pd.concat(pools, ignore_index=True))
    row = forecast(weekly, as_of=day(9))
    (version,) = versions_of(weekly)
    assert (row["status"], versions_of(weekly)) == ("succeeded", {version: (CHALLENGER,)})
    assert table(weekly, "yieldspark.promotion")[
        ["decision", "challenger", "serving_version"]
    ].to_numpy().tolist() == [[REFUSED, version, None]]
    passed, message = checks_of(row)["model_decision"]
    assert (
        passed,
        message.startswith("refused: no version beats persistence by more than chance"),
    ) == (False, True)
    assert checks_of(row)["model_serves"] == (
        False,
        f"persistence is published; {version} is only recorded",
    )
    assert_persistence(weekly, day(9), version)

    row = forecast(weekly, as_of=day(10))
    assert FITS & set(row["stages"]) == set()
    assert_persistence(weekly, day(10), version)
    assert not checks_of(row)["model_serves"][0]


def assert_persistence(settings: Settings, as_of: dt.date, version: str) -> None:
    """All pools have persistence with an interval; the ledger has the version's moves."""
    forecasts, metrics = (
        table(settings, "yieldspark.forecasts"),
        table(settings, "pool_daily_metrics"),
    )
    forecasts, metrics = (
        rows[rows[day] == as_of].set_index("pool_id").sort_index()
        for rows, day in ((forecasts, "as_of"), (metrics, "date"))
    )
    assert len(forecasts) == 12
    assert (
        set(forecasts["apy_fallback_reason"])
        == set(forecasts["tvl_fallback_reason"])
        == {"no_champion"}
    )
    assert (forecasts["apy"] == metrics["actual_apy"]).all()
    assert (forecasts["tvl"] == metrics["actual_tvl"]).all()
    assert (forecasts["apy_low"] < forecasts["apy"]).all()
    assert (forecasts["apy"] < forecasts["apy_high"]).all()
    ledger = table(settings, "yieldspark.forecast_evaluation")
    as_of_rows = ledger[(ledger["as_of"] == as_of) & (ledger["source"] == "production")]
    assert (len(as_of_rows), set(as_of_rows["model_version"]), set(as_of_rows["gate_weight"])) == (
        24,
        {version},
        {0.0},
    )
    assert as_of_rows["model_change"].abs().gt(0.0).all()


OLD, NEW = archive("old", known=50), archive("new", known=57)


def planned(champion: ModelArchive | None, **serving: Any) -> HorizonPlan:
    flags = {"is_reached": True, "is_past": False} | serving
    folds = inference_folds(NEW.card.known, horizon=1)
    return HorizonPlan(
        as_of=NEW.card.known,
        age_days=0,
        engine="lightgbm",
        folds=folds,
        refits=False,
        first_day=NEW.card.origin,
        rows=0,
        pools=0,
        executor=ExecutorChoice("inprocess", "for a test"),
        history_days=45,
        serving=ServingVersions(champion, champion, **flags),
    )


def refit_model(decision: str) -> ServingModel:
    promotion = PromotionDecision(decision, "for a test", decision == PROMOTED, {"days": 45})
    sample = OutOfSample(pd.DataFrame(), ())
    return ServingModel(
        sample=sample,
        model=NEW,
        is_shadow=decision != PROMOTED,
        rows=pd.DataFrame(),
        features=np.zeros((0, 0), np.float32),
        refit=Refit(sample, NEW, promotion),
    )


@pytest.mark.parametrize(
    ("decision", "serving", "alias", "decided", "served"),
    [
        (PROMOTED, {}, CHAMPION, [[PROMOTED, "old", "new"]], {"new": (CHAMPION,), "old": ()}),
        (KEPT, {}, CHALLENGER, [[KEPT, "old", "old"]], {"new": (CHALLENGER,), "old": (CHAMPION,)}),
        (REFUSED, {}, CHALLENGER, [[REFUSED, "old", None]], {"new": (CHALLENGER,), "old": ()}),
        (
            PROMOTED,
            {"is_reached": False},
            CHALLENGER,
            [[PROMOTED, "old", "new"]],
            {"new": (CHALLENGER,), "old": (CHAMPION,)},
        ),
        (PROMOTED, {"is_past": True}, None, [], {"new": (), "old": (CHAMPION,)}),
        (REFUSED, {"is_past": True}, None, [], {"new": (), "old": (CHAMPION,)}),
    ],
    ids=[
        "promoted",
        "kept",
        "refused",
        "promoted unseen by the registry",
        "promoted on a past day",
        "refused on a past day",
    ],
)
def test_a_decision_changes_outbox_record_and_aliases(
    engine: Engine,
    database: Settings,
    decision: str,
    serving: dict[str, bool],
    alias: str | None,
    decided: list[list[str | None]],
    served: dict[str, tuple[str, ...]],
) -> None:
    registry = Registry(database, **MODEL)
    registry.register(OLD, CHAMPION)
    plan, model = planned(OLD, **serving), refit_model(decision)
    with engine.begin() as connection:
        record_refit(connection, plan=plan, serving=model, run_id="run")
    assert [
        (version.archive, version.alias) for version in outbox.pending_versions(engine, **MODEL)
    ] == [(NEW, alias)]
    names = {OLD.card.version: "old", NEW.card.version: "new", None: None}
    promotions = table(database, "yieldspark.promotion").reindex(
        columns=["decision", "champion", "serving_version"]
    )
    assert [
        [row[0], names[row[1]], names[row[2]]]
        for row in promotions.astype(object).to_numpy().tolist()
    ] == decided
    register_versions(database, engine, plan)
    assert {names[version.version]: version.aliases for version in registry.versions()} == served
    assert outbox.pending_versions(engine, **MODEL) == []


@pytest.mark.parametrize(("decision", "serves"), [(PROMOTED, "new"), (REFUSED, None)])
def test_a_run_that_ends_between_commit_and_registry_is_completed_by_the_next(
    engine: Engine, database: Settings, decision: str, serves: str | None
) -> None:
    registry = Registry(database, **MODEL)
    registry.register(OLD, CHAMPION)
    model = refit_model(decision)
    assert model.refit
    assert model.refit.archive
    card = replace(NEW.card, passed=decision == PROMOTED)
    refit = replace(model.refit, archive=replace(model.refit.archive, card=card))
    with engine.begin() as connection:
        record_refit(
            connection, plan=planned(OLD), serving=replace(model, refit=refit), run_id="run"
        )

    def champions() -> list[str]:
        versions = list_versions(database.model_copy(update={"engine": "lightgbm"}), engine)
        return [version.version for version in versions if CHAMPION in version.aliases]

    expected = NEW.card.version if serves else None
    assert registry.versions()[0].aliases == (CHAMPION,)
    assert champions() == [name for name in [expected] if name]
    serving = serving_versions(database, engine, engine="lightgbm", horizon=1, as_of=NEW.card.known)
    assert (serving.champion.card.version if serving.champion else None) == expected
    register_versions(database, engine, planned(None))
    assert [
        version.version for version in registry.versions() if CHAMPION in version.aliases
    ] == champions()
    assert champions() == [name for name in [expected] if name]
    assert table(database, "yieldspark.model_outbox").empty


def test_a_registry_that_goes_away_after_the_commit_costs_a_warning(
    engine: Engine, database: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    plan, model = planned(None), refit_model(PROMOTED)
    with engine.begin() as connection:
        record_refit(connection, plan=plan, serving=model, run_id="run")
    register_versions(
        database.model_copy(update={"mlflow_tracking_uri": closed_port()}), engine, plan
    )
    assert "the model registry at http://127.0.0.1" in caplog.text
    assert [version.alias for version in outbox.pending_versions(engine, **MODEL)] == [CHAMPION]


def test_problems_of_the_registry_are_checks_that_warn() -> None:
    results = model_checks(
        planned(OLD, problems=("one is damaged", "one is silent")), refit_model(REFUSED)
    )
    assert [(result.name, result.passed, result.severity) for result in results] == [
        ("model_registry", False, "warn"),
        ("model_registry", False, "warn"),
        ("model_decision", False, "warn"),
        ("model_serves", False, "warn"),
    ]
    assert [result.message for result in results[:2]] == ["one is damaged", "one is silent"]
    assert results[2].to_json()["numbers"] == {"days": 45}
