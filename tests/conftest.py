"""Fixtures: a real PostgreSQL with one database for each test, one real Spark session, and the
shared data where it exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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
from tests.support.processes import CommandLine, CommandLineHere

pytest_plugins = ("tests.support.markers", "tests.support.workers", "tests.support.owner_schema")

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
# the tests look at what a double was asked
Service.keeps_requests = True


@pytest.fixture(scope="session", autouse=True)
def _bare_environment() -> Iterator[None]:
    """No test sees the developer's own settings; what reads `.env` runs in a folder without one."""
    fields = {name.upper() for name in Settings.model_fields} | {
        "SPARK_ENVIRONMENT",
        "FORECAST_ENGINE",
        *libpq_variables.ALL,
    }
    saved = {name: os.environ.pop(name) for name in fields & set(os.environ)}
    yield
    os.environ.update(saved)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """No JVM of a test records an archive of Spark's classes in the test's own home, 125 MB each:
    they all map one. Parallel workers inherit the variable.
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
    """Settings of the session's server, whose database `yieldspark` is migrated and serves as the
    template of the tests' own.
    """
    wanted = load_settings(
        _env_file=None,
        yieldspark_home=server_home,
        jars_dir=JARS,
        # tests of the other executor, or of the choice, name theirs
        executor="spark",
        spark_master="local[2]",
        shuffle_partitions=2,
    )
    with (
        make_engine(resolve_database(wanted))
        .execution_options(isolation_level="AUTOCOMMIT")
        .connect() as connection
    ):
        for guard in (
            "fsync",
            "full_page_writes",
            "synchronous_commit",
        ):  # they guard against a machine that goes away, and these data go with it
            connection.execute(text(f"ALTER SYSTEM SET {guard} = off"))
        connection.execute(text("ALTER SYSTEM SET max_prepared_transactions = 2"))
    EmbeddedServer(server_home).stop()
    settings = resolve_database(wanted)
    migrate(make_engine(settings))
    return settings


@pytest.fixture(scope="session")
def databases(server: Settings) -> Databases:
    return Databases(server)


@pytest.fixture
def database(databases: Databases) -> Iterator[Settings]:
    """Settings of a migrated, empty database of the test's own."""
    with databases.lent() as settings:
        yield settings


@pytest.fixture
def second_database(databases: Databases) -> Iterator[Settings]:
    """Another one, to compare with."""
    with databases.lent() as settings:
        yield settings


@pytest.fixture
def run(processes: None, database: Settings, tmp_path: Path) -> CommandLine:
    """The command line on a fresh database, as processes."""
    return CommandLine(database, tmp_path)


@pytest.fixture
def run_here(database: Settings, tmp_path: Path) -> CommandLineHere:
    """The same without a process for each command."""
    return CommandLineHere(database, tmp_path)


@pytest.fixture
def run_on_spark(database: Settings, spark: SparkSession, tmp_path: Path) -> CommandLineHere:
    """As `run_here`, for commands that need Spark: they work in the shared session."""
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
    """For tests that start another program or process; it brings the marker `process`."""


@pytest.fixture(scope="session")
def jvm(processes: None) -> Path:
    """The home of Java, for tests whose processes start a JVM."""
    return find_java()


@pytest.fixture(scope="session")
def server_programs() -> Path:
    """The folder of PostgreSQL's programs, for tests that start a server by themselves."""
    return wheel_binaries()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of the test's own, not started; its data go with the test."""
    server = EmbeddedServer(tmp_path / "home")
    yield server
    server.reset()


def skip_where_synapseml_cannot_run(error: EnvironmentNotReady) -> None:
    """Skip on a machine without its native library; elsewhere the error is one of the product, and
    stays.
    """
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
