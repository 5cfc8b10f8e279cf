"""MLflow's own tables, in a SQLite file or a PostgreSQL database: check, creation and upgrade.

Needs settings whose MLFLOW_TRACKING_URI names the database; raises RegistryUnreachable with the
next step. The tables of an MLflow server are its own business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from common.errors import DatabaseError, RegistryUnreachable
from common.private_files import make_private, private_folder
from common.registry_address import SQLITE, is_in_postgresql, sqlite_uri
from config_spark import Settings
from database.connections.advisory_locks import MLFLOW_LOCK, lock_in_transaction
from database.connections.engine import make_engine_for, supported_limits
from database.connections.parameters import (
    FIXED_SESSION,
    ConnectionParameters,
    connection_parameters,
)
from database.connections.session_check import ENCODING
from database.schema.own_schema import MIGRATE

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

Change = Literal["current", "made", "upgraded"]

FILE = "mlflow.db"
VERSIONS = "model_versions"
LATER = "forecasts continue without it and are registered later"

MLFLOW_ENVIRONMENT = {
    # a server that is down must cost seconds; MLflow's own retries take minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # standard output belongs to the command, standard error to our log
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow raises each error that it logs
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # the product sends no usage data
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def registry_uri(settings: Settings) -> str:
    """Returns MLFLOW_TRACKING_URI, or the address of the file in YIELDSPARK_HOME."""
    file = registry_folder(settings) / FILE
    return settings.mlflow_tracking_uri or sqlite_uri(file)


def model_name(settings: Settings, *, engine: str, horizon: int) -> str:
    """Returns the name of the registered model.

    Models learn from the pools of one database: two databases may share a server, but no champion.
    """
    return f"yieldspark-{settings.db_name}-{engine}-{horizon}d"


def registry_folder(settings: Settings) -> Path:
    """Returns the registry's folder in YIELDSPARK_HOME."""
    return settings.yieldspark_home / "mlflow"


def set_mlflow_environment() -> None:
    """Sets variables of MLflow that are not set; call it before MLflow is imported."""
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def login(settings: Settings) -> Iterator[None]:
    """Sets libpq's variables to the login of DB_USER inside the block.

    Sets nothing for a registry outside PostgreSQL. Processes that start later do not inherit the
    variables.
    """
    # MLflow logs its URI, so the login is in variables
    # (https://www.postgresql.org/docs/current/libpq-envars.html)
    variables = _variables(settings) if is_in_postgresql(settings.mlflow_tracking_uri) else {}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _variables(settings: Settings) -> dict[str, str]:
    login = _login(settings)
    return {
        **login.libpq_variables(),
        # as in every session: the limits and the isolation of the role are for people
        "PGOPTIONS": login.options,
        "PGCLIENTENCODING": ENCODING,
        # a pooled connection would stay open for as long as Spark works
        "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    }


def _login(settings: Settings) -> ConnectionParameters:
    address, login = make_url(registry_uri(settings)), connection_parameters(settings)
    login = replace(login, port=address.port or login.port, database=str(address.database))
    # MLflow's tables follow the search path of the database, not DB_SCHEMA
    session = {name: value for name, value in login.session.items() if name in FIXED_SESSION}
    return replace(login, session=session | supported_limits(login))


def has_tables(settings: Settings, *, make: bool) -> bool:
    """Returns whether the registry has the tables of this MLflow.

    Args:
        make: create missing tables.

    Raises:
        RegistryUnreachable: the database does not answer, or has tables of another MLflow.
    """
    uri = registry_uri(settings)
    set_mlflow_environment()
    if not is_database(uri):
        return True
    if is_missing_file(uri) and not make:
        return False
    # one attempt before MLflow's ten, between which it sleeps 101 s
    with login(settings), open_tables(settings) as connection:
        revision = _revision(connection)
        if revision is None and make:
            _upgrade(uri, connection)
        elif revision is not None:
            _require_current(uri, revision)
        return revision is not None or make


def upgrade_tables(settings: Settings) -> Change | None:
    """Upgrades the tables to the installed MLflow, or creates them in an empty PostgreSQL database.

    Returns:
        The change; None if there is nothing to upgrade: a server, or no file yet.

    Raises:
        RegistryUnreachable: the database does not answer, or has tables of a newer MLflow.
    """
    uri = registry_uri(settings)
    set_mlflow_environment()
    if not is_database(uri) or is_missing_file(uri):
        return None
    with login(settings), open_tables(settings) as connection:
        revision = _revision(connection)
        if revision == _head():
            return "current"
        if revision is not None:
            _require_known(uri, revision)
        _upgrade(uri, connection)
        return "made" if revision is None else "upgraded"


def is_database(uri: str) -> bool:
    """Returns whether the URI names tables and no server."""
    return is_in_postgresql(uri) or uri.startswith(SQLITE)


def is_missing_file(uri: str) -> bool:
    """Returns whether the URI names a SQLite file that does not exist."""
    return uri.startswith(SQLITE) and not _file(uri).exists()


def _file(uri: str) -> Path:
    # decoded as SQLAlchemy does
    return Path(make_url(uri).database or "")


@contextmanager
def open_tables(settings: Settings) -> Iterator[Connection]:
    """Yields a transaction on the tables; call it inside `login`.

    Raises:
        RegistryUnreachable: the database does not answer or refuses a statement.
    """
    uri = registry_uri(settings)
    with _translated_errors(settings):
        if uri.startswith(SQLITE):
            _make_private(_file(uri), registry_folder(settings))
        with _engine(settings).begin() as connection:
            yield connection


def _make_private(file: Path, own_folder: Path) -> None:
    """Creates a missing file; a folder that the user chose keeps its rights."""
    if file.parent == own_folder or not file.parent.exists():
        private_folder(file.parent)
    if not file.exists():
        make_private(file)


def _engine(settings: Settings) -> Engine:
    uri = registry_uri(settings)
    if not is_in_postgresql(uri):
        return create_engine(uri, poolclass=NullPool)
    return make_engine_for(_login(settings))


def _revision(connection: Connection) -> str | None:
    """The revision of the tables; None without tables, or if their creation was interrupted."""
    from alembic.migration import MigrationContext

    revision = MigrationContext.configure(connection).get_current_revision()
    # without this check, versions in tables without a revision would be replaced
    is_lost = revision is None and inspect(connection).has_table(VERSIONS)
    if is_lost and connection.execute(text(f"SELECT count(*) FROM {VERSIONS}")).scalar_one():
        raise RegistryUnreachable(
            f"the model registry at {connection.engine.url} is damaged: it has model versions and"
            " its table alembic_version is empty or missing. Restore a backup of the database, or"
            f" set MLFLOW_TRACKING_URI to another one; {LATER}"
        )
    return revision


@cache
def _head() -> str:
    """The newest revision of the installed MLflow."""
    # from the text of the migrations: Alembic would run them, and they import MLflow, which takes
    # seconds
    files = _migrations().glob("versions/*.py")
    migrations = "\n".join(file.read_text(encoding="utf-8") for file in files)
    revisions, earlier = (
        set(re.findall(rf"(?m)^{name} = [\"'](\w+)[\"']$", migrations))
        for name in ("revision", "down_revision")
    )
    (head,) = revisions - earlier
    return str(head)


def _migrations() -> Path:
    """The folder of MLflow's migrations; MLflow is not imported."""
    package = find_spec("mlflow")
    assert package is not None, "MLflow is one of the packages"
    assert package.origin is not None, "it is no namespace package"
    return Path(package.origin).parent / "store" / "db_migrations"


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_migrations()))


def _require_current(uri: str, revision: str) -> None:
    if revision == (head := _head()):
        return
    _require_known(uri, revision)
    raise RegistryUnreachable(
        f"the model registry at {uri} has tables of an older MLflow, revision {revision}; this"
        f" version needs {head}. Make a backup, then {MIGRATE} upgrades them; {LATER}"
    )


def _require_known(uri: str, revision: str) -> None:
    if revision not in {script.revision for script in _scripts().walk_revisions()}:
        raise RegistryUnreachable(
            f"the model registry at {uri} has tables of revision {revision}, which this MLflow does"
            " not know: run the newer version that made them, or set MLFLOW_TRACKING_URI to a"
            f" database of its own if they belong to another application; {LATER}"
        )


def _upgrade(uri: str, connection: Connection) -> None:
    from mlflow.db import upgrade

    if is_in_postgresql(uri):
        # a second process waits, and finds the tables upgraded
        lock_in_transaction(connection, MLFLOW_LOCK)
        if _revision(connection) == _head():
            return
    assert upgrade.callback is not None, "a command of click calls a function"
    upgrade.callback(uri)


@contextmanager
def _translated_errors(settings: Settings) -> Iterator[None]:
    """Translates a driver's errors into RegistryUnreachable with the next step."""
    uri = registry_uri(settings)
    try:
        yield
    except (DBAPIError, DatabaseError) as error:
        driver: BaseException | None
        if isinstance(error, DatabaseError):
            driver, code = error.__cause__ or error, error.sqlstate
        else:
            driver, code = error.orig, getattr(error.orig, "pgcode", None)
        cause = " ".join(str(driver).split())
        raise RegistryUnreachable(
            f"the model registry at {uri} failed: {cause}. {_next_step(settings, code)}; {LATER}"
        ) from error


def _next_step(settings: Settings, code: str | None) -> str:
    if not is_in_postgresql(settings.mlflow_tracking_uri):
        return (
            "Check MLFLOW_TRACKING_URI and that its file is one of MLflow; restore a backup of a"
            " damaged file, or move it away: the next forecast run makes another"
        )
    database = make_url(str(settings.mlflow_tracking_uri)).database
    if code == "3D000":
        return f"As a role that may, run: CREATE DATABASE {database} OWNER {settings.db_user}"
    if code == "42501":
        return f"As its owner, run: ALTER DATABASE {database} OWNER TO {settings.db_user}"
    return (
        "Check MLFLOW_TRACKING_URI, DB_PORT, DB_USER, DB_PASSWORD, DB_SSLMODE and that the server"
        " runs"
    )
