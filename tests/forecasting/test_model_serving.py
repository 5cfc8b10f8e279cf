"""Selection of a run's model version from outbox, registry and decisions, with damaged versions
too.
"""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from database.schema.own_tables import model_outbox
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.promotion_policy import KEPT, PROMOTED, REFUSED
from forecasting.registry import decisions, outbox
from forecasting.registry.mlflow_registry import Registry
from forecasting.registry.model_archive import ModelArchive
from forecasting.registry.serving import ServingVersions, serving_versions
from tests.support.model_archives import archive, day

OLD, OLDER = archive("old", known=20), archive("older", known=10)
WATCHED, NEW = archive("watched", known=30, passed=False), archive("new", known=40)
MODEL: dict[str, Any] = {"engine": "lightgbm", "horizon": 1}


@pytest.fixture
def registry(database: Settings) -> Registry:
    return Registry(database, engine="lightgbm", horizon=1)


@pytest.fixture
def silent(database: Settings) -> Settings:
    """Settings with a registry at a closed port."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return database.model_copy(
            update={"mlflow_tracking_uri": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        )


def put(engine: Engine, archive_of_version: ModelArchive, alias: str | None) -> None:
    with engine.begin() as connection:
        outbox.enqueue(connection, archive_of_version, alias, "run")


def on(settings: Settings, engine: Engine, number: int = 50) -> ServingVersions:
    return serving_versions(settings, engine, engine="lightgbm", horizon=1, as_of=day(number))


def names(serving: ServingVersions) -> tuple[str | None, str | None]:
    champion, newest = (
        version.card.version.partition("-")[2] if version else None
        for version in (serving.champion, serving.newest)
    )
    return champion, newest


def waiting_names(engine: Engine) -> list[tuple[str, str | None]]:
    return [
        (pending.archive.card.version.partition("-")[2], pending.alias)
        for pending in outbox.pending_versions(engine, **MODEL)
    ]


def test_a_version_waits_whole_until_it_is_registered(engine: Engine, registry: Registry) -> None:
    put(engine, OLD, CHALLENGER)
    put(engine, archive("other_engine", engine="synapseml"), CHAMPION)
    put(engine, archive("two_days", horizon_days=2), CHAMPION)
    put(engine, NEW, None)
    put(engine, OLD, CHAMPION)
    assert waiting_names(engine) == [
        ("old", CHAMPION),
        ("new", None),
    ], "the newest first, and each once"
    assert outbox.pending_versions(engine, **MODEL)[0].archive == OLD
    assert outbox.register_pending(engine, registry, **MODEL) == [
        NEW.card.version,
        OLD.card.version,
    ]
    assert [(version.version, version.aliases) for version in registry.versions()] == [
        (OLD.card.version, (CHAMPION,)),
        (NEW.card.version, ()),
    ]
    assert (
        outbox.pending_versions(engine, **MODEL),
        outbox.register_pending(engine, registry, **MODEL),
    ) == ([], [])
    with engine.connect() as connection:
        remaining = connection.execute(
            select(model_outbox.c.version, model_outbox.c.engine).order_by("engine")
        ).all()
    assert remaining == [("20240306-two_days", "lightgbm"), ("20240306-other_engine", "synapseml")]


def test_versions_stay_pending_while_the_registry_does_not_answer(
    engine: Engine, silent: Settings
) -> None:
    put(engine, OLD, CHALLENGER)
    with pytest.raises(RegistryUnreachable):
        outbox.register_pending(engine, Registry(silent, engine="lightgbm", horizon=1), **MODEL)
    assert waiting_names(engine) == [("old", CHALLENGER)]


def test_a_run_that_is_undone_leaves_no_version_behind(engine: Engine) -> None:
    with engine.connect() as connection:
        outbox.enqueue(connection, OLD, CHAMPION, "run")
        connection.rollback()
    assert waiting_names(engine) == []


def decide(
    engine: Engine,
    decision: str,
    challenger: str | None,
    champion: str | None,
    serves: str | None,
    *,
    engine_name: str = "lightgbm",
) -> None:
    with engine.begin() as connection:
        decisions.record_decision(
            connection,
            engine=engine_name,
            horizon=1,
            decision=decision,
            challenger=challenger,
            champion=champion,
            serving_version=serves,
            reason=f"{decision} for a test",
            numbers={"ratio": {"challenger/persistence": [0.9, None, None]}},
            as_of=day(50),
            run_id="run",
        )


def test_a_decision_is_written_with_who_and_why(engine: Engine) -> None:
    decide(engine, PROMOTED, "a", None, "a")
    decide(engine, REFUSED, "b", "a", None)
    decide(engine, PROMOTED, "z", None, "z", engine_name="synapseml")
    newest, first = decisions.list_decisions(engine, **MODEL)
    assert (newest.decision, newest.challenger, newest.champion, newest.serving_version) == (
        REFUSED,
        "b",
        "a",
        None,
    )
    assert (first.decision, first.reason, first.as_of, first.run_id, first.horizon_days) == (
        PROMOTED,
        "promoted for a test",
        day(50),
        "run",
        1,
    )
    assert first.numbers == {"ratio": {"challenger/persistence": [0.9, None, None]}}
    assert "@" in first.decided_by
    assert first.decided_at <= newest.decided_at


def test_who_served_before_over_promotions_and_going_back(engine: Engine) -> None:
    def before(version: str | None) -> str | None:
        return decisions.previous_champion(engine, version, **MODEL)

    assert (before("a"), before(None)) == (None, None)
    decide(engine, PROMOTED, "a", None, "a")
    decide(engine, KEPT, "x", "a", "a")
    assert before("a") is None, "persistence did"
    decide(engine, PROMOTED, "b", "a", "b")
    decide(engine, PROMOTED, "c", "b", "c")
    assert (before("c"), before("b"), before("a")) == ("b", "a", None)
    decide(engine, decisions.ROLLED_BACK, "b", "c", "b")
    assert before("b") == "a", "going back twice goes two back, and not to and fro"
    decide(engine, decisions.ROLLED_BACK, "a", "b", "a")
    decide(engine, KEPT, "y", "a", "a")
    assert before("a") is None
    decide(engine, decisions.BY_HAND, "c", "a", "c")
    assert before("c") == "a"
    decide(engine, REFUSED, "z", "c", None)
    assert before(None) == "c"
    assert decisions.previous_champion(engine, "b", engine="synapseml", horizon=1) is None


def test_without_any_version_persistence_serves(engine: Engine, database: Settings) -> None:
    assert on(database, engine) == ServingVersions(None, None, is_reached=True, is_past=False)


def test_the_champion_serves_and_the_newest_version_is_returned_too(
    engine: Engine, database: Settings, registry: Registry
) -> None:
    registry.register(OLD, CHAMPION)
    registry.register(WATCHED, CHALLENGER)
    serving = on(database, engine)
    assert serving == ServingVersions(OLD, WATCHED, is_reached=True, is_past=False)
    assert serving.newest_as_of == day(30)
    registry.set_champion(None)
    assert names(on(database, engine)) == (
        None,
        "watched",
    ), "persistence serves, and the newest only watches"


@pytest.fixture
def history(registry: Registry) -> Sequence[ModelArchive]:
    """Versions of the days 10, 20, 30 (it did not pass) and 40 (champion)."""
    versions = [OLDER, OLD, WATCHED, NEW]
    for version in versions:
        registry.register(version, CHAMPION if version is NEW else None)
    return versions


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("as_of", "served", "is_past"),
    [
        (45, ("new", "new"), False),
        (40, ("new", "new"), False),
        (39, ("old", "watched"), True),
        (30, ("old", "watched"), True),
        (29, ("old", "old"), True),
        (19, ("older", "older"), True),
        (9, (None, None), True),
    ],
)
def test_on_a_past_day_the_newest_that_passed_by_then_serves(
    engine: Engine,
    database: Settings,
    as_of: int,
    served: tuple[str | None, str | None],
    is_past: bool,
) -> None:
    serving = on(database, engine, as_of)
    assert (names(serving), serving.is_past, serving.is_reached, serving.problems) == (
        served,
        is_past,
        True,
        (),
    )
    assert all(
        version.card.known <= day(as_of)
        for version in (serving.champion, serving.newest)
        if version
    )


def test_with_a_silent_registry_the_newest_waiting_version_that_passed_serves(
    engine: Engine, silent: Settings
) -> None:
    for version in (OLDER, OLD, WATCHED):
        put(engine, version, CHALLENGER)
    serving = on(silent, engine)
    assert (names(serving), serving.is_reached) == (("old", "watched"), False)
    assert "the model registry at http://127.0.0.1" in serving.problems[0]
    assert names(on(silent, engine, 19)) == ("older", "older")
    assert names(on(silent, engine, 5)) == (None, None)


def test_a_version_that_waits_with_the_champions_alias_serves(
    engine: Engine, database: Settings, registry: Registry
) -> None:
    """The run of this version committed and ended before the registration."""
    registry.register(OLD, CHAMPION)
    put(engine, NEW, CHAMPION)
    assert names(on(database, engine)) == ("new", "new")


def test_a_version_that_would_be_the_first_champion_serves_while_it_waits(
    engine: Engine, database: Settings
) -> None:
    """The version passed while the registry did not answer; it serves before and after
    registration.
    """
    put(engine, OLD, CHALLENGER)
    put(engine, WATCHED, CHALLENGER)
    serving = on(database, engine)
    assert (names(serving), serving.is_reached) == (("old", "watched"), True)


def test_another_interval_level_is_another_model(
    engine: Engine, database: Settings, registry: Registry
) -> None:
    registry.register(OLD, CHAMPION)
    narrow = database.model_copy(update={"interval_level": 0.5})
    assert names(on(narrow, engine)) == (None, None)
    registry.register(archive("narrow", known=15, interval_level=0.5), None)
    assert names(on(narrow, engine)) == ("narrow", "narrow")
    assert names(on(database, engine)) == ("old", "old")


def test_a_champion_with_other_features_does_not_serve_and_the_message_names_them(
    engine: Engine, database: Settings, registry: Registry
) -> None:
    features = OLD.card.features
    registry.register(
        replace(OLD, card=replace(OLD.card, features=(*features[1:], "moon_phase"))), CHAMPION
    )
    serving = on(database, engine)
    assert names(serving) == (None, None)
    assert f"only the model has moon_phase; only the code has {features[0]}." in serving.problems[0]
    with_market = on(database.model_copy(update={"market_features": True}), engine)
    assert names(with_market) == (None, None)
    assert "only the model has moon_phase; only the code has" in with_market.problems[0]
    assert "eth_change_1" in with_market.problems[0]
    registry.register(OLDER, None)
    serving = on(database, engine)
    assert (names(serving), len(serving.problems)) == (
        ("older", "older"),
        1,
    ), "the newest other that passed"


def test_a_damaged_champion_does_not_serve_and_is_named(
    engine: Engine, database: Settings, registry: Registry
) -> None:
    champion = archive("champion", known=25)
    registry.register(champion, CHAMPION)
    (damaged,) = _files(database, champion)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    serving = on(database, engine)
    assert (names(serving), serving.is_reached) == ((None, None), True)
    assert f"model version {champion.card.version} is damaged: apy-04.txt" in serving.problems[0]
    registry.register(WATCHED, CHALLENGER)
    assert names(on(database, engine)) == (None, "watched"), "what did not pass never serves"
    for version in (OLDER, OLD):
        registry.register(version, None)
    assert names(on(database, engine)) == ("old", "watched"), "the newest other that passed"
    assert names(on(database, engine, 25)) == ("old", None), "the newest is damaged: a refit is due"
    assert len(on(database, engine, 25).problems) == 1


def _files(settings: Settings, version: ModelArchive) -> list[Path]:
    """Returns the path of this text of the version in the tests' model store."""
    content = version.files()["apy-04.txt"]
    return [
        path
        for path in (settings.yieldspark_home / "mlflow").rglob("apy-04.txt")
        if path.read_bytes() == content
    ]


def test_a_damaged_version_in_the_outbox_is_named(
    engine: Engine, database: Settings, registry: Registry
) -> None:
    registry.register(OLD, CHAMPION)
    put(engine, NEW, CHALLENGER)
    with engine.begin() as connection:
        connection.execute(update(model_outbox).values(model=text("substr(model, 1, 100)")))
    serving = on(database, engine)
    assert names(serving) == ("old", "old")
    assert (
        f"model version {NEW.card.version} can't be read from yieldspark.model_outbox"
        in serving.problems[0]
    )
    with pytest.raises(ModelRefused):
        outbox.register_pending(engine, registry, **MODEL)


def test_no_version_has_seen_a_day_after_the_as_of_day(
    engine: Engine, database: Settings, registry: Registry
) -> None:
    """Holds for pending and registered versions and for any champion."""
    registry.register(NEW, CHAMPION)
    registry.register(OLDER, None)
    put(engine, OLD, CHAMPION)
    put(engine, WATCHED, CHALLENGER)
    for number in (5, 10, 15, 20, 25, 30, 35, 40, 45):
        serving = on(database, engine, number)
        used = [version.card.known for version in (serving.champion, serving.newest) if version]
        assert all(last_day <= day(number) for last_day in used), number
        assert serving.is_past == (number < 40)
        assert bool(used) == (number >= 10)
    assert isinstance(serving.newest_as_of, dt.date)
