"""Tests `models`: the serving version, its description, and that the next run and the record use a
version promoted by hand.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from database.db_utils_spark import execute_sql
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.promotion_policy import PROMOTED
from forecasting.registry import outbox
from forecasting.registry.decisions import record_decision
from forecasting.registry.mlflow_registry import Registry
from forecasting.registry.serving import serving_versions
from forecasting.registry.versions import promote, roll_back
from tests.support.model_archives import archive, day
from tests.support.processes import CommandLine

LIGHTGBM = ("--engine", "lightgbm")
OLD, NEW = archive("a1"), archive("b2", known=60)
NAMES = (OLD.card.version, NEW.card.version)


@pytest.fixture
def registered(database: Settings, run_here: CommandLine, engine: Engine) -> Settings:
    """An old champion, and a new one that replaced it.

    Commands and settings use the session's home, because creating a store of models takes seconds.
    """
    run_here.environment["YIELDSPARK_HOME"] = str(database.yieldspark_home)
    settings = database.model_copy(update={"engine": "lightgbm"})
    registry = Registry(settings, engine="lightgbm", horizon=1)
    before: str | None = None
    for archive_of_version in (OLD, NEW):
        registry.register(archive_of_version, CHAMPION)
        version = archive_of_version.card.version
        with engine.begin() as connection:
            record_decision(
                connection,
                engine="lightgbm",
                horizon=1,
                decision=PROMOTED,
                challenger=version,
                champion=before,
                serving_version=version,
                reason="it lost less",
                as_of=archive_of_version.card.known,
            )
        before = version
    return settings


def champion(settings: Settings, engine: Engine) -> str | None:
    """Return the version that a run of that day would load."""
    serving = serving_versions(
        settings, engine, engine="lightgbm", horizon=1, as_of=day(70)
    ).champion
    return serving.card.version if serving else None


def last_decision(settings: Settings) -> dict[str, Any]:
    return execute_sql(settings, "SELECT * FROM yieldspark.promotion ORDER BY id DESC LIMIT 1")[0]


def test_list_names_versions_aliases_and_pending_versions(
    registered: Settings, run_here: CommandLine, engine: Engine
) -> None:
    waits = archive("c3", known=65)
    with engine.begin() as connection:
        outbox.enqueue(connection, waits, CHALLENGER, "a run")
    rows = run_here.json("models", "list", *LIGHTGBM)
    assert [(row["version"], row["number"], row["aliases"]) for row in rows] == [
        (waits.card.version, None, [CHALLENGER]),
        (NAMES[1], 2, [CHAMPION]),
        (NAMES[0], 1, []),
    ]
    table = run_here("models", "list", *LIGHTGBM).stdout
    assert all(name in table for name in NAMES)
    assert "no versions yet" in run_here("models", "list", "--engine", "synapseml").stdout


@pytest.mark.parametrize("name", [NAMES[1], "2", CHAMPION])
def test_show_describes_a_version(registered: Settings, run_here: CommandLine, name: str) -> None:
    description = run_here.json("models", "show", name, *LIGHTGBM)
    assert (description["version"], description["number"], description["aliases"]) == (
        NAMES[1],
        2,
        [CHAMPION],
    )
    assert {
        "data_hash",
        "data_first_day",
        "features",
        "features_hash",
        "settings",
        "scores",
        "gain",
        "code_version",
    } <= set(description)
    assert "reference" not in description
    assert [row["serving_version"] for row in description["decisions"]] == [NAMES[1]]
    text = run_here("models", "show", name, *LIGHTGBM).stdout
    assert "challenger/persistence" in text
    assert "apy_level" in text


def test_rollback_is_one_command_and_the_next_run_uses_it(
    registered: Settings, run_here: CommandLine, engine: Engine
) -> None:
    assert champion(registered, engine) == NAMES[1]
    row = run_here.json("models", "rollback", "--reason", "odd since Tuesday", *LIGHTGBM)
    assert (row["decision"], row["champion"], row["serving_version"]) == (
        "rolled_back",
        NAMES[1],
        NAMES[0],
    )
    assert champion(registered, engine) == NAMES[0]
    decision = last_decision(registered)
    assert (decision["decision"], decision["serving_version"], decision["reason"]) == (
        "rolled_back",
        NAMES[0],
        "odd since Tuesday",
    )
    assert "@" in decision["decided_by"]
    again = run_here("models", "rollback", *LIGHTGBM)
    assert again.returncode == 1
    assert f"no version served before {NAMES[0]}" in again.stderr

    assert (
        run_here.json("models", "promote", NAMES[1], "--reason", "it was the data", *LIGHTGBM)[
            "serving_version"
        ]
        == NAMES[1]
    )
    assert champion(registered, engine) == NAMES[1]


def test_a_version_that_waits_is_registered_before_it_is_promoted(
    registered: Settings, run_here: CommandLine, engine: Engine
) -> None:
    waits = archive("c3", known=65)
    with engine.begin() as connection:
        outbox.enqueue(connection, waits, CHALLENGER, "a run")
    assert (
        run_here.json("models", "promote", CHALLENGER, "--reason", "looked at it", *LIGHTGBM)[
            "serving_version"
        ]
        == waits.card.version
    )
    assert champion(registered, engine) == waits.card.version
    assert (
        execute_sql(registered, "SELECT count(*) AS rows FROM yieldspark.model_outbox")[0]["rows"]
        == 0
    )


@pytest.mark.parametrize("moved", [promote, roll_back])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features": ("apy_level", "gone")},
            r"only the model has gone; only the code has .*apy_move_0",
        ),
        ({"interval_level": 0.9}, r"intervals of 90%, and INTERVAL_LEVEL is 80%"),
    ],
)
def test_a_version_that_the_code_can_not_use_is_refused_and_nothing_moves(
    registered: Settings, engine: Engine, moved: Any, changes: dict[str, Any], message: str
) -> None:
    other = archive("d4", known=66, **changes)
    Registry(registered, engine="lightgbm", horizon=1).register(other, CHALLENGER)
    before = last_decision(registered)
    with pytest.raises(ModelRefused, match=message):
        moved(registered, engine, other.card.version, "because")
    assert champion(registered, engine) == NAMES[1]
    assert last_decision(registered) == before


def test_an_unknown_version_is_an_error_that_names_the_existing_ones(
    registered: Settings, run_here: CommandLine
) -> None:
    for command in (["show"], ["promote", "--reason", "x"], ["rollback"]):
        finished = run_here("models", command[0], "20200101-zzzz", *command[1:], *LIGHTGBM)
        assert finished.returncode == 1
        assert "no model version '20200101-zzzz'" in finished.stderr
        assert NAMES[1] in finished.stderr


def test_a_registry_that_is_down_is_an_error_here(run_here: CommandLine) -> None:
    finished = run_here("models", "list", *LIGHTGBM, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert finished.returncode == 1
    assert "MLFLOW_TRACKING_URI" in finished.stderr


def aliases(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the aliases in the registry."""
    versions = Registry(settings, engine="lightgbm", horizon=1).versions()
    return {version.version: version.aliases for version in versions if version.aliases}


def test_a_registry_that_goes_away_after_the_decision_costs_a_warning(
    registered: Settings,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def goes_away(*_: object) -> int:
        raise RegistryUnreachable("it went away")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "register", goes_away)
        assert promote(registered, engine, NAMES[0], "the old one")["serving_version"] == NAMES[0]
    assert "its alias moves when the registry answers: it went away" in caplog.text
    assert champion(registered, engine) == NAMES[0]
    assert aliases(registered) == {NAMES[1]: (CHAMPION,)}
    outbox.register_pending(
        engine, Registry(registered, engine="lightgbm", horizon=1), engine="lightgbm", horizon=1
    )
    assert aliases(registered) == {NAMES[0]: (CHAMPION,)}
