"""`models`: which version serves, what it is, and that a move by hand is what the next run uses and
what the record says.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from database.db_utils_spark import execute_sql
from forecasting.evaluation.promotion_policy import PROMOTED
from forecasting.registry import outbox
from forecasting.registry.decisions import record
from forecasting.registry.mlflow_registry import CHALLENGER, CHAMPION, Registry
from forecasting.registry.serving import serving
from forecasting.registry.versions import promote, roll_back
from tests.support.model_archives import archive, day
from tests.support.processes import CommandLine

LIGHTGBM = ("--engine", "lightgbm")
OLD, NEW = archive("a1"), archive("b2", known=60)
NAMES = (OLD.card.version, NEW.card.version)


@pytest.fixture
def registered(database: Settings, run_here: CommandLine, engine: Engine) -> Settings:
    """An old champion, and a new one that was promoted over it. Commands and settings have the
    session's home, for a store of models takes seconds to make.
    """
    run_here.environment["YIELDSPARK_HOME"] = str(database.yieldspark_home)
    settings = database.model_copy(update={"engine": "lightgbm"})
    registry = Registry(settings, engine="lightgbm", horizon=1)
    before: str | None = None
    for one in (OLD, NEW):
        registry.register(one, CHAMPION)
        version = one.card.version
        with engine.begin() as connection:
            record(
                connection,
                engine="lightgbm",
                horizon=1,
                decision=PROMOTED,
                challenger=version,
                champion=before,
                serving_version=version,
                reason="it lost less",
                as_of=one.card.known,
            )
        before = version
    return settings


def champion(settings: Settings, engine: Engine) -> str | None:
    """What a night of that day would load."""
    found = serving(settings, engine, engine="lightgbm", as_of=day(70)).champion
    return found.card.version if found else None


def last_decision(settings: Settings) -> dict[str, Any]:
    return execute_sql(settings, "SELECT * FROM yieldspark.promotion ORDER BY id DESC LIMIT 1")[0]


def test_list_names_versions_aliases_and_what_waits(
    registered: Settings, run_here: CommandLine, engine: Engine
) -> None:
    waits = archive("c3", known=65)
    with engine.begin() as connection:
        outbox.put(connection, waits, CHALLENGER, "a run")
    rows = run_here.json("models", "list", *LIGHTGBM)
    assert [(row["version"], row["number"], row["aliases"]) for row in rows] == [
        (waits.card.version, None, [CHALLENGER]),
        (NAMES[1], 2, [CHAMPION]),
        (NAMES[0], 1, []),
    ]
    shown = run_here("models", "list", *LIGHTGBM).stdout
    assert all(name in shown for name in NAMES)
    assert "no versions yet" in run_here("models", "list", "--engine", "synapseml").stdout


@pytest.mark.parametrize("name", [NAMES[1], "2", CHAMPION])
def test_show_tells_what_a_version_is(
    registered: Settings, run_here: CommandLine, name: str
) -> None:
    found = run_here.json("models", "show", name, *LIGHTGBM)
    assert (found["version"], found["number"], found["aliases"]) == (NAMES[1], 2, [CHAMPION])
    assert {
        "data_hash",
        "data_first_day",
        "features",
        "features_hash",
        "settings",
        "scores",
        "gain",
        "code_version",
    } <= set(found)
    assert "reference" not in found
    assert [row["serving_version"] for row in found["decisions"]] == [NAMES[1]]
    shown = run_here("models", "show", name, *LIGHTGBM).stdout
    assert "challenger/persistence" in shown
    assert "apy_level" in shown


def test_rollback_is_one_command_and_the_next_night_uses_it(
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
        outbox.put(connection, waits, CHALLENGER, "a run")
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
    ("changes", "words"),
    [
        (
            {"features": ("apy_level", "gone")},
            r"it alone has gone; the code alone has .*apy_move_0",
        ),
        ({"interval_level": 0.9}, r"intervals of 90%, and INTERVAL_LEVEL is 80%"),
    ],
)
def test_a_version_that_the_code_can_not_use_is_refused_and_nothing_moves(
    registered: Settings, engine: Engine, moved: Any, changes: dict[str, Any], words: str
) -> None:
    other = archive("d4", known=66, **changes)
    Registry(registered, engine="lightgbm", horizon=1).register(other, CHALLENGER)
    before = last_decision(registered)
    with pytest.raises(ModelRefused, match=words):
        moved(registered, engine, other.card.version, "because")
    assert champion(registered, engine) == NAMES[1]
    assert last_decision(registered) == before


def test_an_unknown_version_is_an_error_that_names_those_there_are(
    registered: Settings, run_here: CommandLine
) -> None:
    for command in (["show"], ["promote", "--reason", "x"], ["rollback"]):
        done = run_here("models", command[0], "20200101-zzzz", *command[1:], *LIGHTGBM)
        assert done.returncode == 1
        assert "no model version '20200101-zzzz'" in done.stderr
        assert NAMES[1] in done.stderr


def test_a_registry_that_is_down_is_an_error_here(run_here: CommandLine) -> None:
    done = run_here("models", "list", *LIGHTGBM, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "MLFLOW_TRACKING_URI" in done.stderr


def aliases(settings: Settings) -> dict[str, tuple[str, ...]]:
    """What the registry itself says."""
    found = Registry(settings, engine="lightgbm", horizon=1).versions()
    return {one.version: one.aliases for one in found if one.aliases}


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
    outbox.register_waiting(
        engine, Registry(registered, engine="lightgbm", horizon=1), engine="lightgbm", horizon=1
    )
    assert aliases(registered) == {NAMES[0]: (CHAMPION,)}
