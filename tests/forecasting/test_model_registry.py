"""Tests the registry on a real SQLite store of MLflow, and one that does not answer."""

from __future__ import annotations

import secrets
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from common.errors import ModelRefused, RegistryUnreachable
from common.settings.paths import default_home
from config_spark import Settings
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.registry import mlflow_tables
from forecasting.registry.mlflow_registry import (
    EXPERIMENT,
    RegisteredVersion,
    Registry,
    unregistered_version,
)
from forecasting.registry.mlflow_tables import FILE, upgrade_tables
from tests.support.model_archives import archive

A, B, C = (archive(name, known=known) for name, known in (("a", 50), ("b", 57), ("c", 64)))
FAILED = archive("f", known=71, passed=False)


@pytest.fixture
def settings(server: Settings) -> Settings:
    """Returns a database name, and so a registry, of the test's own in the session's store."""
    return server.model_copy(update={"db_name": f"test_{secrets.token_hex(6)}"})


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings, engine="lightgbm", horizon=1)


def aliases(registry: Registry) -> dict[str, tuple[str, ...]]:
    return {version.version[-1]: version.aliases for version in registry.versions()}


def test_looking_at_an_empty_registry_makes_no_file(tmp_path: Path, settings: Settings) -> None:
    registry = Registry(
        settings.model_copy(update={"yieldspark_home": tmp_path}), engine="lightgbm", horizon=1
    )
    assert registry.versions() == []
    assert list(tmp_path.iterdir()) == []


def test_tests_have_a_model_store_of_their_own(settings: Settings, registry: Registry) -> None:
    registry.register(A, None)
    assert (settings.yieldspark_home / "mlflow" / FILE).is_file()
    assert not settings.yieldspark_home.is_relative_to(default_home())


def test_a_registered_version_is_listed_and_loaded_unchanged(
    settings: Settings, registry: Registry
) -> None:
    assert [
        registry.register(archive_of_version, alias)
        for archive_of_version, alias in ((A, CHAMPION), (B, CHALLENGER), (FAILED, None))
    ] == [1, 2, 3]
    again = Registry(settings, engine="lightgbm", horizon=1)
    newest, second, first = again.versions()
    assert first == RegisteredVersion(
        A.card.version,
        1,
        (CHAMPION,),
        A.card.origin,
        A.card.known,
        A.card.features_hash,
        0.8,
        passed=True,
        code_version="0.1.0",
    )
    assert second == RegisteredVersion(
        **{**vars(unregistered_version(B.card, CHALLENGER)), "number": 2}
    )
    assert (newest.version, newest.passed, newest.aliases) == (FAILED.card.version, False, ())
    assert again.load(A.card.version) == A
    assert again.load(FAILED.card.version) == FAILED


def test_the_run_of_a_version_has_its_data_and_settings(
    settings: Settings, registry: Registry
) -> None:
    registry.register(A, None)
    client = MlflowClient(tracking_uri=f"sqlite:///{settings.yieldspark_home / 'mlflow' / FILE}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    version = client.get_model_version(registry.name, "1")
    assert experiment is not None
    assert version.run_id is not None
    run = client.get_run(version.run_id)
    assert (run.info.experiment_id, run.info.run_name, run.info.status) == (
        experiment.experiment_id,
        A.card.version,
        "FINISHED",
    )
    expected = {
        "origin": "2024-03-06",
        "known": "2024-04-20",
        "data_hash": "0123456789abcdef",
        "data_rows": "1560",
        "seed": "7",
    }
    assert (
        run.data.params.items()
        >= (expected | {"features_hash": A.card.features_hash, "learning_rate": "0.05"}).items()
    )
    assert run.data.metrics == {"challenger_to_persistence": 0.85, "challenger_to_champion": 0.9}
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id, "model")} == {
        f"model/{name}" for name in A.files()
    }


def test_registering_twice_makes_one(registry: Registry) -> None:
    assert [
        registry.register(A, CHALLENGER),
        registry.register(B, None),
        registry.register(A, CHALLENGER),
        registry.register(A, None),
    ] == [
        1,
        2,
        1,
        1,
    ]
    assert aliases(registry) == {"b": (), "a": (CHAMPION,)}


def test_a_version_is_champion_or_challenger_and_each_alias_is_of_one_version(
    registry: Registry,
) -> None:
    registry.register(A, CHAMPION)
    registry.register(B, CHALLENGER)
    assert aliases(registry) == {"b": (CHALLENGER,), "a": (CHAMPION,)}
    registry.register(C, CHALLENGER)
    assert aliases(registry) == {"c": (CHALLENGER,), "b": (), "a": (CHAMPION,)}
    registry.set_champion(C.card.version)
    assert aliases(registry) == {"c": (CHAMPION,), "b": (), "a": ()}
    registry.register(C, CHALLENGER)
    assert aliases(registry) == {
        "c": (CHAMPION,),
        "b": (),
        "a": (),
    }, "the champion does not step down by being registered again"
    registry.register(B, CHALLENGER)
    registry.register(B, CHAMPION)
    assert aliases(registry) == {"c": (), "b": (CHAMPION,), "a": ()}


def test_a_challenger_that_passed_is_the_champion_where_there_is_none(registry: Registry) -> None:
    registry.register(FAILED, CHALLENGER)
    assert aliases(registry) == {"f": (CHALLENGER,)}
    registry.register(A, None)
    assert aliases(registry) == {"a": (), "f": (CHALLENGER,)}
    registry.register(B, CHALLENGER)
    assert aliases(registry) == {"b": (CHAMPION,), "a": (), "f": (CHALLENGER,)}


def test_the_champion_may_be_taken_away(registry: Registry) -> None:
    registry.set_champion(None)
    registry.register(A, CHAMPION)
    registry.register(B, CHALLENGER)
    for _ in range(2):
        registry.set_champion(None)
        assert aliases(registry) == {"b": (CHALLENGER,), "a": ()}


@pytest.mark.parametrize("name", ["20240306-zz", "", "x' or '1'='1", "20240306-a' OR name != '"])
def test_an_unknown_version_is_refused(registry: Registry, name: str) -> None:
    registry.register(A, CHAMPION)
    for ask in (registry.load, registry.set_champion):
        with pytest.raises(ModelRefused, match=r"no model version .*models list"):
            ask(name)
    assert aliases(registry) == {"a": (CHAMPION,)}


@pytest.mark.parametrize("part", [{"db_name": "another"}, {"engine": "synapseml"}, {"horizon": 2}])
def test_databases_engines_and_horizons_share_no_champion(
    settings: Settings, registry: Registry, part: dict[str, str | int]
) -> None:
    registry.register(A, CHAMPION)
    name = str(part.get("db_name", settings.db_name))
    other = Registry(
        settings.model_copy(update={"db_name": name}),
        engine=str(part.get("engine", "lightgbm")),
        horizon=int(part.get("horizon", 1)),
    )
    assert other.versions() == []
    with pytest.raises(ModelRefused):
        other.load(A.card.version)


def file_of(settings: Settings, registry: Registry, name: str) -> Path:
    version = MlflowClient(
        tracking_uri=f"sqlite:///{settings.yieldspark_home / 'mlflow' / FILE}"
    ).get_model_version(registry.name, "1")
    return (
        settings.yieldspark_home
        / "mlflow"
        / "artifacts"
        / str(version.run_id)
        / "artifacts"
        / "model"
        / name
    )


def test_a_file_that_is_damaged_on_disk_is_named_and_not_loaded(
    settings: Settings, registry: Registry
) -> None:
    registry.register(A, CHAMPION)
    path = file_of(settings, registry, "apy-07.txt")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!")
    with pytest.raises(
        ModelRefused, match=rf"model version {A.card.version} is damaged: apy-07\.txt"
    ):
        registry.load(A.card.version)
    path.unlink()
    with pytest.raises(ModelRefused, match=rf"{A.card.version} is damaged: apy-07\.txt"):
        registry.load(A.card.version)
    path.write_bytes(whole)
    assert registry.load(A.card.version) == A


SECRET = "very-secret-word"


@pytest.fixture
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, SECRET)


def assert_unreachable(registry: Registry, message: str) -> None:
    for ask in (
        registry.versions,
        lambda: registry.load(A.card.version),
        lambda: registry.register(A, CHAMPION),
        lambda: registry.set_champion(None),
        lambda: registry.set_champion(A.card.version),
    ):
        with pytest.raises(
            RegistryUnreachable, match=f"{message}.*Check MLFLOW_TRACKING_URI"
        ) as caught:
            ask()
        assert SECRET not in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.usefixtures("_credentials")
def test_a_closed_port_is_named(settings: Settings) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        registry = Registry(
            settings.model_copy(update={"mlflow_tracking_uri": uri}), engine="lightgbm", horizon=1
        )
        assert_unreachable(registry, f"registry at {uri} failed")


@pytest.fixture
def closing_server() -> Iterator[tuple[str, list[int]]]:
    """The address of a server that closes each connection, and the number of connections."""
    connections = [0]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return
                connections[0] += 1

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", connections
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.usefixtures("_credentials")
def test_a_server_that_closes_connections_gets_two_requests_at_most(
    settings: Settings, closing_server: tuple[str, list[int]]
) -> None:
    """By default, MLflow repeats a request seven times, over minutes."""
    uri, connections = closing_server
    registry = Registry(
        settings.model_copy(update={"mlflow_tracking_uri": uri}), engine="lightgbm", horizon=1
    )
    with pytest.raises(RegistryUnreachable, match=f"registry at {uri} failed") as caught:
        registry.versions()
    assert SECRET not in str(caught.value)
    assert 1 <= connections[0] <= 2


def test_damaged_tags_and_a_lost_revision_are_named(tmp_path: Path, settings: Settings) -> None:
    """In a store of its own, because these deletions would damage the session's."""
    own = settings.model_copy(update={"yieldspark_home": tmp_path})
    registry = Registry(own, engine="lightgbm", horizon=1)
    registry.register(A, CHAMPION)
    with closing(sqlite3.connect(tmp_path / "mlflow" / FILE)) as store:
        store.execute("UPDATE model_version_tags SET value = 'x' WHERE key = 'origin'")
        store.commit()
        damaged = r"version 1 of .* has damaged tags \(ValueError: .*'x'\).*delete that version"
        with pytest.raises(RegistryUnreachable, match=damaged):
            registry.versions()
        store.execute("DELETE FROM alembic_version")
        store.commit()
        for ask in (registry.versions, lambda: upgrade_tables(own)):
            with pytest.raises(RegistryUnreachable, match=r"alembic_version is empty or missing"):
                ask()


def test_the_newest_revision_is_the_head_of_mlflows_migrations() -> None:
    assert mlflow_tables._head() == mlflow_tables._scripts().get_current_head()


def test_a_deleted_version_is_neither_listed_nor_loaded(
    settings: Settings, registry: Registry
) -> None:
    registry.register(A, CHAMPION)
    file = settings.yieldspark_home / "mlflow" / FILE
    MlflowClient(tracking_uri=f"sqlite:///{file}").delete_model_version(registry.name, "1")
    assert registry.versions() == []
    with pytest.raises(ModelRefused, match=f"no model version {A.card.version}"):
        registry.load(A.card.version)


def test_a_file_that_is_no_registry_is_named(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / FILE).write_bytes(b"this is no SQLite file" * 100)
    registry = Registry(
        settings.model_copy(update={"yieldspark_home": tmp_path}), engine="lightgbm", horizon=1
    )
    assert_unreachable(registry, "registry at sqlite:.*failed")
