"""Connections to PostgreSQL: one SQLAlchemy engine for driver-side SQL, one libpq URI for Arrow
(ADBC).

Goes in: `Settings`. Comes out: an engine, a URI, or an error of `product_errors` that says what to
do. No SQL of a job stands here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from config_spark import Settings
from database.embedded_server import EmbeddedServer
from database.secret_password import with_password
from product_errors import DatabaseError, DatabaseRefused, DatabaseUnreachable, SchemaMismatch

CONNECT_TIMEOUT_SECONDS = 10

KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, seconds, probes. The connection that holds the lock is silent while Spark works, and
clouds drop a flow that is silent for ten minutes; on the server's side they end the session of a
machine that went away, and its lock, after a minute and a half instead of two hours.
"""

METRICS_OPTION = "metrics_table"
"""The execution option of an engine that has METRICS_TABLE."""

METRICS_PARAMETER = "yieldspark.metrics_table"
"""The session parameter that has it, for SQL that looks the table up in the catalogue."""


def with_database(settings: Settings) -> Settings:
    """Settings whose DB_* name a running server: the user's own, or the embedded one, started if
    need be.

    The password of the user's own may stand in Secret Manager, from where it is fetched here.
    """
    if settings.db_host:
        return with_password(settings)
    server = EmbeddedServer(settings.yieldspark_home).start()
    return settings.model_copy(
        update={
            "db_host": server.host,
            "db_port": server.port,
            "db_user": server.user,
            "db_name": server.database,
            "db_password": server.password,
            "db_sslmode": "disable",
        }
    )


def metrics_option(settings: Settings) -> str:
    """libpq's option that sets METRICS_PARAMETER."""
    return f"-c {METRICS_PARAMETER}={settings.metrics_table}"


def session_options(settings: Settings) -> str:
    """UTC, KEEPALIVES of the server, the name of the metrics table, and a search path that names
    the owner's schema: the default one begins with `$user`, and a role may well be called
    `yieldspark` too.
    """
    keepalives = " ".join(f"-c tcp_{name}={value}" for name, value in KEEPALIVES.items())
    names = f"-c search_path={settings.db_schema} {metrics_option(settings)}"
    return f"-c timezone=UTC {names} {keepalives}"


def host_in_url(settings: Settings) -> str:
    """The host as a URL has it: an IPv6 address stands in brackets."""
    host = settings.db_host or ""
    return f"[{host}]" if ":" in host else host


def sqlalchemy_url(settings: Settings) -> URL:
    """The URL of the configured database; `str()` of it hides the password."""
    return URL.create(
        "postgresql+psycopg2",
        username=settings.db_user,
        password=settings.db_password.get_secret_value() if settings.db_password else None,
        host=settings.db_host,
        port=settings.db_port,
        database=settings.db_name,
        query={"sslmode": settings.db_sslmode},
    )


def make_engine(settings: Settings) -> Engine:
    """An engine without a pool: a nightly job holds one or two connections, and none may outlive
    it.
    """
    return create_engine(
        sqlalchemy_url(settings),
        poolclass=NullPool,
        connect_args=_libpq_parameters(settings),
        execution_options={METRICS_OPTION: settings.metrics_table},
    )


def _libpq_parameters(settings: Settings) -> dict[str, Any]:
    """What every connection through libpq has, driver-side SQL and ADBC alike."""
    options = session_options(settings)
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": "yieldspark",
        "options": options,
        **KEEPALIVES,
    }


def libpq_uri(settings: Settings) -> str:
    """The libpq URI that ADBC takes. It holds the password: never log it."""
    password = (
        f":{quote(settings.db_password.get_secret_value(), safe='')}"
        if settings.db_password
        else ""
    )
    query = urlencode(
        {"sslmode": settings.db_sslmode, **_libpq_parameters(settings)}, quote_via=quote
    )
    server = f"{host_in_url(settings)}:{settings.db_port}"
    return (
        f"postgresql://{quote(settings.db_user, safe='')}{password}"
        f"@{server}/{quote(settings.db_name, safe='')}?{query}"
    )


@contextmanager
def checked_connection(engine: Engine) -> Iterator[Connection]:
    """One transaction; a driver's error leaves it as an error of `product_errors`.

    Raises: DatabaseUnreachable (transient), DatabaseRefused and SchemaMismatch (terminal),
    DatabaseError (the rest).
    """
    with translated_errors(engine.url), engine.begin() as connection:
        yield connection


@contextmanager
def translated_errors(url: URL) -> Iterator[None]:
    """Turn what psycopg2 raises inside into the error tree of the product."""
    try:
        yield
    except DBAPIError as error:
        raise translate(error, url) from error


def translate(error: DBAPIError, url: URL) -> DatabaseError:
    """The product's error for a driver's error, by SQLSTATE (PostgreSQL manual, appendix A), else
    by libpq's words, which carry none on connect.
    """
    cause = " ".join(str(error.orig).split())
    where = f"{url.host}:{url.port}/{url.database} as {url.username}"
    code = getattr(error.orig, "pgcode", None) or ""
    if code.startswith("28") or "authentication failed" in cause or "no password supplied" in cause:
        return DatabaseRefused(
            f"PostgreSQL refused the login at {where}: {cause}. Set DB_USER and DB_PASSWORD to a"
            " role that may log in"
        )
    if code == "3D000" or (not code and "does not exist" in cause):
        return DatabaseRefused(
            f"PostgreSQL refused the connection to {where}: {cause}. Create it, or set DB_NAME and"
            " DB_USER"
        )
    if code == "42501":
        return DatabaseRefused(
            f"role {url.username} has no right to do this at {where}: {cause}. Grant it, or set"
            " DB_USER to a role that has it"
        )
    if code.startswith("53"):
        return DatabaseError(
            f"PostgreSQL at {where} is out of a resource: {cause}. Free disk space or connections,"
            " then run again; nothing was changed"
        )
    if code in {"42P01", "42703", "42804", "42883"}:
        return SchemaMismatch(
            f"the tables at {where} are not what this version expects: {cause}. Compare them with"
            " database/tables.py"
        )
    if not code or code.startswith(("08", "57P")):
        return DatabaseUnreachable(
            f"no connection to PostgreSQL at {where}: {cause}. Check DB_HOST, DB_PORT, DB_SSLMODE"
            " and that the server runs"
        )
    return DatabaseError(f"PostgreSQL at {where} said {code}: {cause}")
