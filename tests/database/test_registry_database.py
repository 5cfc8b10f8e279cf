"""The model registry in a PostgreSQL database of its own: login, tables, and runs that forecast
without it.

The server asks for its password, and no URI has one.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as FirstTables
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from common.errors import RegistryUnreachable
from common.private_files import write_private
from config_spark import Settings
from database.connections.advisory_locks import MLFLOW_LOCK, lock_in_transaction
from database.connections.engine import make_engine
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from forecasting.evaluation.model_roles import CHAMPION
from forecasting.registry import mlflow_tables, outbox
from forecasting.registry.mlflow_registry import Registry
from forecasting.registry.mlflow_tables import has_tables, login, upgrade_tables
from tests.forecasting.test_forecast_job import forecast
from tests.forecasting.test_model_runs import FITS, MODEL, checks_of, day, made_by, versions_of
from tests.support.forecast_panels import SHORT, panel_rows, store
from tests.support.model_archives import archive
from tests.support.processes import CommandLine

A, B = archive("a", known=50), archive("b", known=57)
BUCKET = "acme-models"


def admin(settings: Settings, name: str = "postgres") -> Engine:
    return make_engine(settings.model_copy(update={"db_name": name})).execution_options(
        isolation_level="AUTOCOMMIT"
    )


def execute(settings: Settings, statement: str, name: str = "postgres") -> None:
    with admin(settings, name).connect() as connection:
        connection.execute(text(statement))


@contextmanager
def registry_of(
    settings: Settings, folder: Path, template: str = "template1"
) -> Iterator[Settings]:
    """Return settings with a registry in a database of its own, a copy of the template."""
    name = f"mlflow_{secrets.token_hex(6)}"
    execute(settings, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield settings.model_copy(
            update={
                "mlflow_tracking_uri": f"postgresql+psycopg2://{settings.db_host}/{name}",
                "mlflow_artifacts_uri": (folder / "models").as_uri(),
            }
        )
    finally:
        execute(settings, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def database_of(settings: Settings) -> str:
    return str(settings.mlflow_tracking_uri).rpartition("/")[2]


def tables(settings: Settings) -> list[str]:
    return inspect(admin(settings, database_of(settings))).get_table_names()


@pytest.fixture(scope="module")
def with_tables(server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with MLflow's tables, created once because it takes seconds."""
    with registry_of(server, tmp_path_factory.mktemp("unused")) as settings:
        assert has_tables(settings, make=True)
        yield database_of(settings)


@pytest.fixture
def settings(server: Settings, tmp_path: Path, with_tables: str) -> Iterator[Settings]:
    """Settings with an empty registry that has its tables."""
    with registry_of(server, tmp_path, with_tables) as ready:
        yield ready


@pytest.fixture
def untouched(server: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings with a registry in an empty database."""
    with registry_of(server, tmp_path) as ready:
        yield ready


@pytest.fixture
def weekly(database: Settings) -> Settings:
    return database.model_copy(update=SHORT | {"refit_days": 7, "executor": "inprocess"})


def test_refit_is_registered_loaded_and_waits_for_the_database(
    weekly: Settings,
    engine: Engine,
    tmp_path: Path,
    with_tables: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """20 seconds: three daily runs in a row, two of which fit a model."""
    store(engine, panel_rows(12, 130))
    with registry_of(weekly, tmp_path, with_tables) as settings:
        row = forecast(settings, as_of=day(0))
        ((version, aliases),) = versions_of(settings).items()
        assert (row["status"], aliases, made_by(settings, day(0))) == (
            "succeeded",
            (CHAMPION,),
            {version},
        )
        row = forecast(settings, as_of=day(1))
        assert not FITS & set(row["stages"])
        assert (made_by(settings, day(1)), checks_of(row)["model_registry"][0]) == (
            {version},
            True,
        )

        # without FORCE: no run has left a connection open
        execute(settings, f"DROP DATABASE {database_of(settings)}")
        row = forecast(settings, as_of=day(2))
        passed, message = checks_of(row)["model_registry"]
        assert (row["status"], row["rows"]["inserted"], passed) == ("succeeded", 12, False)
        assert f"run: CREATE DATABASE {database_of(settings)} OWNER {settings.db_user}" in message
        (waiting,) = outbox.pending_versions(engine, **MODEL)
        assert made_by(settings, day(2)) == {waiting.archive.card.version}
        assert set(row["stages"]) >= FITS
        # MLflow's own patience, which takes minutes
        assert "will be retried" not in caplog.text

        execute(settings, f"CREATE DATABASE {database_of(settings)} TEMPLATE {with_tables}")
        assert outbox.register_pending(engine, Registry(settings, **MODEL), **MODEL) == [
            waiting.archive.card.version
        ]


def test_login_is_in_no_uri_message_or_variable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGUSER", "somebody")
    before = dict(os.environ)
    registry = Registry(settings, **MODEL)
    assert registry.register(A, CHAMPION) == 1
    assert Registry(settings, **MODEL).load(A.card.version) == A
    assert {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PG") or name.endswith("POOLCLASS")
    } == {name: value for name, value in before.items() if name.startswith("PG")}
    assert settings.db_password is not None
    password = settings.db_password.get_secret_value()
    assert password not in f"{settings!r} {vars(registry)!r} {settings.mlflow_tracking_uri}"
    with login(settings):
        assert (os.environ["PGUSER"], os.environ["PGPASSWORD"]) == (settings.db_user, password)


def test_limits_of_the_database_do_not_apply_to_mlflow(untouched: Settings) -> None:
    name = database_of(untouched)
    texts = {
        "statement_timeout": "0",
        "default_transaction_isolation": "read committed",
        "client_encoding": "UTF8",
        "transaction_timeout": "0",
        "idle_session_timeout": "0",
    }
    values = ("1ms", "serializable", "LATIN1", "1ms", "1ms")
    for parameter, value in zip(texts, values, strict=True):
        execute(untouched, f"ALTER DATABASE {name} SET {parameter} = '{value}'")
    # the first connection, with which the product looks at the tables before MLflow does
    has_tables(untouched, make=False)
    engine = create_engine(str(untouched.mlflow_tracking_uri), poolclass=NullPool)
    with login(untouched), engine.connect() as connection:
        for parameter, value in texts.items():
            assert connection.exec_driver_sql(f"SHOW {parameter}").scalar_one() == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"db_password": SecretStr("very-secret")}, r"password authentication failed.*DB_PASSWORD"),
        ({"db_password": None}, r"no password supplied.*Check .*DB_PASSWORD"),
        ({"db_port": 1}, r"Connection refused.*DB_PORT"),
    ],
)
def test_failed_login_has_a_next_step(
    settings: Settings, change: dict[str, object], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(settings.model_copy(update=change), **MODEL)
    where = re.escape(f"the model registry at {settings.mlflow_tracking_uri} failed: ")
    for ask in (registry.versions, lambda: registry.register(A, None)):
        with pytest.raises(
            RegistryUnreachable,
            match=rf"{where}.*{message}.*; forecasts continue without it",
        ) as caught:
            ask()
        assert "very-secret" not in str(caught.value) + caplog.text
    assert "will be retried" not in caplog.text


def test_reading_creates_no_tables_and_first_version_creates_all(untouched: Settings) -> None:
    assert Registry(untouched, **MODEL).versions() == []
    assert tables(untouched) == []
    execute(untouched, "CREATE ROLE visitor LOGIN PASSWORD 'visitor'")
    try:
        visitor = untouched.model_copy(
            update={"db_user": "visitor", "db_password": SecretStr("visitor")}
        )
        with pytest.raises(
            RegistryUnreachable,
            match=(
                r"permission denied.*As its owner, run: ALTER DATABASE"
                f" {database_of(untouched)} OWNER TO visitor;"
            ),
        ):
            Registry(visitor, **MODEL).register(A, None)
    finally:
        execute(untouched, "DROP ROLE visitor")
    assert tables(untouched) == []


def test_concurrent_table_creation_waits(untouched: Settings) -> None:
    results: list[bool] = []
    other = threading.Thread(target=lambda: results.append(has_tables(untouched, make=True)))
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND wait_event = 'advisory'"
    )
    with admin(untouched, database_of(untouched)).connect() as first:
        with first.execution_options(isolation_level="READ COMMITTED").begin():
            lock_in_transaction(first, MLFLOW_LOCK)
            other.start()
            with admin(untouched).connect() as looking:
                while not looking.execute(blocked, {"name": database_of(untouched)}).scalar_one():
                    assert other.is_alive()
                    time.sleep(0.05)
            assert tables(untouched) == []
    other.join()
    assert (results, "model_versions" in tables(untouched)) == ([True], True)


@pytest.fixture
def older(untouched: Settings) -> Settings:
    """Settings with a registry of an older MLflow: all revisions of its tables
    except the newest.
    """
    scripts = mlflow_tables._scripts()
    before = str(scripts.get_revision(str(scripts.get_current_head())).down_revision)
    uri = str(untouched.mlflow_tracking_uri)
    FirstTables.metadata.create_all(admin(untouched, database_of(untouched)))
    with login(untouched):
        command.upgrade(_get_alembic_config(uri), before)  # type: ignore[no-untyped-call]
    return untouched


def test_rejects_older_mlflow_tables_and_migrate_upgrades_them(
    older: Settings, database: Settings, run: CommandLine, run_here: CommandLine
) -> None:
    registry = Registry(older.model_copy(update={"db_name": database.db_name}), **MODEL)
    for ask in (registry.versions, lambda: registry.register(A, None)):
        with pytest.raises(
            RegistryUnreachable,
            match=(
                r"tables of an older MLflow, revision \w+; this version needs \w+\. Make a backup,"
                r" then `python run_spark_local\.py db migrate`, or in the cloud .* upgrades them"
            ),
        ):
            ask()
    variables = {
        "MLFLOW_TRACKING_URI": str(older.mlflow_tracking_uri),
        "MLFLOW_ARTIFACTS_URI": str(older.mlflow_artifacts_uri),
    }
    finished = run("db", "migrate", **variables)
    assert finished.stdout.splitlines()[-1] == "the model registry's tables are upgraded"
    assert finished.stderr == "", "a process in which MLflow's own log lines would show"
    run_here.environment |= variables
    assert run_here.json("db", "migrate")["registry"] == "current"
    assert registry.register(A, CHAMPION) == 1
    versions = run_here.json("models", "list", "--engine", "lightgbm")
    assert [row["version"] for row in versions] == [A.card.version]

    execute(older, "UPDATE alembic_version SET version_num = 'fff'", database_of(older))
    with pytest.raises(RegistryUnreachable, match=r"tables of revision fff, .*run the newer"):
        Registry(older, **MODEL).versions()
    failed = run_here.json("db", "migrate", code=1)
    assert "has tables of revision fff, which this MLflow does not know" in failed["error"]


def test_migrate_creates_tables_and_no_file(
    settings: Settings, untouched: Settings, tmp_path: Path
) -> None:
    assert upgrade_tables(settings) == "current"
    at_home = untouched.model_copy(
        update={"mlflow_tracking_uri": None, "yieldspark_home": tmp_path}
    )
    assert upgrade_tables(at_home) is None
    assert not (tmp_path / "mlflow").exists()
    served = untouched.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:1"})
    assert upgrade_tables(served) is None


def test_rejects_uri_of_postgresql_alone_with_the_right_form(run_here: CommandLine) -> None:
    for scheme in ("postgresql", "postgres"):
        refused = run_here("models", "list", MLFLOW_TRACKING_URI=f"{scheme}://127.0.0.1/mlflow")
        assert refused.returncode == 2
        assert (
            f"{scheme}:// asks for a driver that is not installed; write"
            " postgresql+psycopg2://HOST/mlflow" in refused.stderr
        )


def test_model_files_are_stored_in_a_bucket(settings: Settings, tmp_path: Path) -> None:
    """With the product's client, which sends the emulator's token."""
    storage, token_file = FakeStorage(tmp_path / "storage", [BUCKET]), tmp_path / "token"
    write_private(token_file, "a-token")
    with serving([storage], token="a-token") as url:
        in_bucket = settings.model_copy(
            update={
                "mlflow_artifacts_uri": f"gs://{BUCKET}/models",
                "google_api_endpoint": url,
                "google_api_token_file": token_file,
            }
        )
        Registry(in_bucket, **MODEL).register(B, CHAMPION)
        assert Registry(in_bucket, **MODEL).load(B.card.version) == B
    names = [name.rpartition("/")[2] for name in storage.store.objects_of(BUCKET)]
    assert sorted(names) == sorted(B.files())
