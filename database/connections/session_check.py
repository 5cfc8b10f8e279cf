"""Compares a session with the description of its connection and with the driver-side session.

Each driver runs `SESSION_QUERY` on its own connection. A pooler may drop the startup parameter
`options`, and a host name may lead two drivers to two servers: both would put rows into the wrong
place. Spark tasks import this module, so it imports neither SQLAlchemy nor the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import DatabaseRefused
from database.connections.iam_login import AccessTokens

PSYCOPG2, ADBC, JDBC = "psycopg2", "ADBC", "JDBC"

ENCODING = "UTF8"

METRICS_PARAMETER = "yieldspark.metrics_table"
"""Session parameter with METRICS_TABLE, for SQL that looks the table up in the catalog."""

NEWER_PARAMETERS = {
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # otherwise a server checks for its client after a statement only, and a killed driver would
    # keep its lock until then
    "client_connection_check_interval": "10s",
    # milliseconds, the duration of keepalives, which are not sent while data is unacknowledged
    "tcp_user_timeout": "90000",
}
"""Parameters of PostgreSQL 12 (tcp_user_timeout), 14 and 17 (transaction_timeout) or newer. An
older server refuses a connection that sets one in `options`.
"""

ON_LINUX = ("client_connection_check_interval", "tcp_user_timeout")
"""Parameters that a server on another system may reject; they are set on Linux only."""

CHECKED_PARAMETERS = (
    "search_path",
    "TimeZone",
    METRICS_PARAMETER,
    "row_security",
    "standard_conforming_strings",
    "default_transaction_isolation",
)
"""Parameters that determine where rows are and what they contain. Others may differ."""

UTC_NAMES = {"UTC", "Etc/UTC", "GMT", "Etc/GMT", "UCT", "Universal", "Zulu", "Greenwich"}
"""Names of UTC. Java sets its own time zone in a session, whatever `options` has."""

_ON_LINUX = " AND version() ~ '-linux'"

_COLUMNS = {
    "started": (
        "to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    ),
    "database": "current_database()::text",
    "client_encoding": "current_setting('client_encoding')",
    **{
        # numbered, because a name with a dot is no column name
        f"checked_{number}": f"current_setting('{name}', true)"
        for number, name in enumerate(CHECKED_PARAMETERS)
    },
    **{
        # an older server returns NULL for a parameter that it does not know
        name: (
            f"CASE WHEN current_setting('{name}', true) <> ''"
            f"{_ON_LINUX if name in ON_LINUX else ''}"
            # false: for the session, not for the transaction
            f" THEN set_config('{name}', '{value}', false) END"
        )
        for name, value in NEWER_PARAMETERS.items()
    },
}

SESSION_QUERY = "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in _COLUMNS.items())
"""Returns one row of text, and sets the newer parameters that the server supports."""


@dataclass(frozen=True)
class ServerIdentity:
    """The server and database of a session.

    Attributes:
        started: start of the server, UTC. Unlike an address, it is the same for every driver.
        database: name of the database.
        newer: NEWER_PARAMETERS that the server supports.
    """

    started: str
    database: str
    newer: tuple[str, ...]


class ConnectionDescription(Protocol):
    """The part of `ConnectionParameters` and `TaskSession` that a check needs. `conninfo` has the
    password.
    """

    @property
    def conninfo(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def session(self) -> Mapping[str, str]: ...
    @property
    def tokens(self) -> AccessTokens | None: ...


@dataclass(frozen=True)
class TaskSession:
    """Description of a checked connection, for Spark tasks.

    Attributes:
        keywords: libpq's connection string, without the password of a login by IAM.
        where: server, database and role, for messages.
        user: role.
        session: values of session parameters, by name.
        server: identity of the server.
        tokens: source of the password of a login by IAM: a token may be over when a task begins.
    """

    keywords: str = field(repr=False)
    where: str
    user: str
    session: Mapping[str, str]
    server: ServerIdentity
    tokens: AccessTokens | None = None

    @property
    def conninfo(self) -> str:
        """libpq's connection string, with the password in clear: never log it."""
        if self.tokens is None:
            return self.keywords
        return f"{self.keywords} {keyword('password', self.tokens.token())}"


def keyword(name: str, value: str) -> str:
    """Return a keyword of a connection string of libpq."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{escaped}'"


def check_session(
    row: Sequence[str | None],
    parameters: ConnectionDescription,
    driver: str,
    reference: ServerIdentity | None = None,
) -> ServerIdentity:
    """Check a session and return the identity of its server.

    Args:
        row: answer to SESSION_QUERY.
        parameters: description of the connection.
        driver: name of the driver, for messages.
        reference: server of the driver-side session.

    Raises:
        DatabaseRefused: the session has other parameters than described, or is on another server or
            database than the reference.
    """
    values = dict(zip(_COLUMNS, row, strict=True))
    _require_parameters(values, parameters, driver)
    server = ServerIdentity(
        str(values["started"]),
        str(values["database"]),
        tuple(name for name in NEWER_PARAMETERS if values[name] is not None),
    )
    if reference and (server.started, server.database) != (reference.started, reference.database):
        raise DatabaseRefused(
            f"{driver} reached {_describe(server)} at {parameters.where}, and {PSYCOPG2} reached"
            f" {_describe(reference)}. Set DB_HOST and DB_PORT to one server that all machines of"
            " this run reach by this name"
        )
    return server


def _describe(server: ServerIdentity) -> str:
    return f"database {server.database} of the server started at {server.started} UTC"


def _require_parameters(
    values: Mapping[str, str | None], parameters: ConnectionDescription, driver: str
) -> None:
    actual = {"client_encoding": values["client_encoding"]} | {
        name: values[f"checked_{number}"]
        for number, name in enumerate(CHECKED_PARAMETERS)
        if name in parameters.session
    }
    expected = {"client_encoding": ENCODING, **parameters.session}
    different = [
        name
        for name, value in actual.items()
        if value != expected[name] and not (name == "TimeZone" and value in UTC_NAMES)
    ]
    if not different:
        return
    if driver == JDBC and different == ["TimeZone"]:
        raise DatabaseRefused(
            f"the JVM's time zone is {actual['TimeZone']}, which {driver} also sets in sessions at"
            f" {parameters.where}: days would be shifted. Add -Duser.timezone=UTC to"
            " spark.driver.extraJavaOptions and spark.executor.extraJavaOptions"
        )
    differences = ", ".join(f"{name}={actual[name]} (not {expected[name]})" for name in different)
    raise DatabaseRefused(
        f"the session of {driver} at {parameters.where} has {differences}: a pooler drops the"
        " startup parameter `options`. Set DB_HOST and DB_PORT to the server itself; or, with a"
        f' pooler in session mode, ALTER ROLE "{parameters.user}" SET each of them'
    )
