"""Fixtures: a real PostgreSQL with one database for each test, one real Spark session, and the
shared data where it exists.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy.testing  # noqa: F401 - its first import starts `lscpu`, which a test may not do
import pytest
from hypothesis import settings as hypothesis_settings
from pyspark.sql import SparkSession
from sqlalchemy import Engine, text

from cli.suite_commands import FAST
from common import libpq_variables
from common.errors import EnvironmentNotReady
from common.settings.paths import default_home
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.embedded.folders import wheel_binaries
from database.embedded.resolve import resolve_database
from database.embedded.server import EmbeddedServer
from database.schema.migrate import migrate
from emulator.services.http_service import Service
from local_runtime.jars import native_library_problem
from local_runtime.java import find_java
from spark.jar_sets import JDBC, SYNAPSEML
from spark.session import get_spark_session
from tests.support.databases import Databases
from tests.support.mapped_classes import mapping_options
from tests.support.processes import (
    CommandLine,
    CommandLineHere,
    logging_restored,
    signals_restored,
)

pytest_plugins = (
    "tests.support.current_day",
    "tests.support.early_reports",
    "tests.support.markers",
    "tests.support.workers",
    "tests.support.owner_schema",
)

PROJECT = Path(__file__).resolve().parents[1]
JARS = Path(
    os.environ.get("JARS_DIR") or Path(os.environ.get("YIELDSPARK_HOME") or default_home()) / "jars"
)
# as in `forecasting.engines.native`, and before any test's import loads LightGBM: spinning
# threads on busy cores cost minutes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# an example that takes long says that the machine is busy
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")
# tests inspect the requests that a fake received
Service.keeps_requests = True


@pytest.fixture(scope="session", autouse=True)
def _bare_environment() -> Iterator[None]:
    """Remove the developer's settings from the environment.

    Tests that read `.env` run in a folder without one.
    """
    fields = {name.upper() for name in Settings.model_fields} | {
        "SPARK_ENVIRONMENT",
        "FORECAST_ENGINE",
        *libpq_variables.ALL,
    }
    saved = {name: os.environ.pop(name) for name in fields & set(os.environ)}
    yield
    os.environ.update(saved)


@pytest.fixture(autouse=True)
def _signals_and_loggers_restored() -> Iterator[None]:
    with signals_restored(), logging_restored():
        yield


@pytest.fixture(autouse=True)
def _main_module_restored() -> Iterator[None]:
    # Streamlit's AppTest leaves its page as the main module, which multiprocessing runs in a child
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Make all test JVMs map one archive of Spark's classes, or each would record one of 125 MB in
    its test's home. Parallel workers inherit the variable.
    """
    if "SPARK_SUBMIT_OPTS" not in os.environ:
        whole = bool(session.config.option.tx) and session.config.option.markexpr != FAST
        options = mapping_options(JARS, record=whole)
        os.environ["SPARK_SUBMIT_OPTS"] = options or "-Xshare:auto"


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("yieldspark_home")
    yield home
    EmbeddedServer(home).reset()


@pytest.fixture(scope="session")
def server(server_home: Path) -> Settings:
    """Settings of the session's server.

    Its database `yieldspark` is migrated and is the template of the tests' databases.
    """
    unresolved = load_settings(
        _env_file=None,
        yieldspark_home=server_home,
        jars_dir=JARS,
        # tests of the other executor, or of the choice, name theirs
        executor="spark",
        spark_master="local[2]",
        shuffle_partitions=2,
    )
    started = resolve_database(unresolved)
    assert started.db_password is not None
    with (
        make_engine(started).execution_options(isolation_level="AUTOCOMMIT").connect() as connection
    ):
        for guard in (
            "fsync",
            "full_page_writes",
            "synchronous_commit",
        ):  # they protect data in a crash, and these data are temporary
            connection.execute(text(f"ALTER SYSTEM SET {guard} = off"))
        connection.execute(text("ALTER SYSTEM SET max_prepared_transactions = 2"))
        # each of the suite's many connections would hash its password 4096 times (5 ms)
        connection.execute(text("ALTER SYSTEM SET scram_iterations = 1"))
        connection.execute(text("SET scram_iterations = 1"))
        role, secret = started.db_user, started.db_password.get_secret_value()
        connection.exec_driver_sql(f"ALTER ROLE {role} PASSWORD %s", (secret,))
    EmbeddedServer(server_home).stop()
    settings = resolve_database(unresolved)
    migrate(make_engine(settings))
    return settings


@pytest.fixture(scope="session")
def databases(server: Settings) -> Databases:
    return Databases(server)


@pytest.fixture
def database(databases: Databases) -> Iterator[Settings]:
    """Settings of a migrated, empty database for one test."""
    with databases.lent() as settings:
        yield settings


@pytest.fixture
def second_database(databases: Databases) -> Iterator[Settings]:
    """A second such database, for comparisons."""
    with databases.lent() as settings:
        yield settings


@pytest.fixture
def run(processes: None, database: Settings, tmp_path: Path) -> CommandLine:
    """The command line on a fresh database; each command is a process."""
    return CommandLine(database, tmp_path)


@pytest.fixture
def run_here(database: Settings, tmp_path: Path) -> CommandLineHere:
    """The command line on a fresh database; commands run in this process."""
    return CommandLineHere(database, tmp_path)


@pytest.fixture
def run_on_spark(database: Settings, spark: SparkSession, tmp_path: Path) -> CommandLineHere:
    """Like `run_here`, for commands that need Spark: they use the shared session."""
    return CommandLineHere(database, tmp_path, spark)


@pytest.fixture
def engine(database: Settings) -> Engine:
    return make_engine(database)


@pytest.fixture(scope="session")
def spark(server: Settings) -> Iterator[SparkSession]:
    session = get_spark_session(
        server,
        "yieldspark-tests",
        jar_sets=(JDBC, SYNAPSEML),
        extra_conf={"spark.default.parallelism": "2"},
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def processes() -> None:
    """Sets the marker `process`, for tests that start another program or process."""


@pytest.fixture(scope="session")
def jvm(processes: None) -> Path:
    """The home of Java, for tests whose processes start a JVM."""
    return find_java()


@pytest.fixture(scope="session")
def server_programs() -> Path:
    """The folder of PostgreSQL's programs, for tests that start a server themselves."""
    return wheel_binaries()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A stopped server for one test, which is deleted afterwards."""
    server = EmbeddedServer(tmp_path / "home")
    yield server
    server.reset()


def skip_where_synapseml_cannot_run(error: EnvironmentNotReady) -> None:
    """Skip where the native library cannot run; any other error is one of the product."""
    if obstacle := native_library_problem():
        pytest.skip(obstacle)
    raise error


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    folder = PROJECT.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"the reported files are not beside the checkout ({folder.name}/)")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data is not beside the checkout ({folder.name}/)")
    return folder
