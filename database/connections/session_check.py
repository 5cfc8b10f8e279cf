"""Where a driver's session is: which server, which database, with which session parameters.

Each driver runs `SESSION_QUERY` on its own connection, and `check_session` compares the answer with the
description and with the driver-side session. A pooler may drop the startup parameter `options`, and
a name may lead two drivers to two servers: either would put rows in the wrong place.

A task of Spark's loads this module: it imports neither SQLAlchemy nor the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import DatabaseRefused

PSYCOPG2, ADBC, JDBC = "psycopg2", "ADBC", "JDBC"

ENCODING = "UTF8"

METRICS_PARAMETER = "yieldspark.metrics_table"
"""The session parameter that has METRICS_TABLE, for SQL that looks the table up in the catalogue.
"""

NEWER_PARAMETERS = {
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # a server that works on a statement looks for its client no sooner: a killed driver's lock
    # would be taken until the statement ends
    "client_connection_check_interval": "10s",
    # milliseconds, as long as keepalives take: none are sent while an acknowledgement is awaited
    "tcp_user_timeout": "90000",
}
"""Parameters that PostgreSQL has since 12 (tcp_user_timeout), 14 or 17 (transaction_timeout): an
older server refuses a connection that names one in `options`.
"""

ON_LINUX = ("client_connection_check_interval", "tcp_user_timeout")
"""A server on another system may refuse to set these: there they stay as they are."""

CHECKED_PARAMETERS = (
    "search_path",
    "TimeZone",
    METRICS_PARAMETER,
    "row_security",
    "standard_conforming_strings",
    "default_transaction_isolation",
)
"""What decides where rows are and which they are. The others are no error where they differ."""

UTC_NAMES = {"UTC", "Etc/UTC", "GMT", "Etc/GMT", "UCT", "Universal", "Zulu", "Greenwich"}
"""Java tells the server its own time zone, whatever `options` say."""

_ON_LINUX = " AND version() ~ '-linux'"

_COLUMNS = {
    # of one start of one server; its address differs by the way one comes
    "server": (
        "to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    ),
    "database": "current_database()::text",
    "client_encoding": "current_setting('client_encoding')",
    **{
        f"checked_{number}": f"current_setting('{name}', true)"
        for number, name in enumerate(CHECKED_PARAMETERS)
    },
    **{
        name: (
            f"CASE WHEN current_setting('{name}', true) <> ''"
            f"{_ON_LINUX if name in ON_LINUX else ''}"
            f" THEN set_config('{name}', '{value}', false) END"
        )
        for name, value in NEWER_PARAMETERS.items()
    },
}

SESSION_QUERY = "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in _COLUMNS.items())
"""One row of text. It also sets the newer parameters that this server can have."""


@dataclass(frozen=True)
class ServerIdentity:
    """The server (when it was started, UTC) and the database of a session, and which of
    NEWER_PARAMETERS the server can have.
    """

    server: str
    database: str
    newer: tuple[str, ...]


class ConnectionDescription(Protocol):
    """What `connection_parameters` says of a connection. `conninfo` holds the password."""

    @property
    def conninfo(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def session(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class TaskSession:
    """A description whose server has answered, for connections of Spark's tasks."""

    conninfo: str = field(repr=False)
    where: str
    user: str
    session: Mapping[str, str]
    place: ServerIdentity


def check_session(
    row: Sequence[str | None],
    parameters: ConnectionDescription,
    driver: str,
    reference: ServerIdentity | None = None,
) -> ServerIdentity:
    """Where the session that answered SESSION_QUERY with `row` is.

    Args: reference is where the driver-side session is.
    Raises: DatabaseRefused where the session has other parameters than those described, or is on
    another server or database than the reference.
    """
    facts = dict(zip(_COLUMNS, row, strict=True))
    _require_parameters(facts, parameters, driver)
    place = ServerIdentity(
        str(facts["server"]),
        str(facts["database"]),
        tuple(name for name in NEWER_PARAMETERS if facts[name] is not None),
    )
    if reference and (place.server, place.database) != (reference.server, reference.database):
        raise DatabaseRefused(
            f"{driver} reached {_shown(place)} at {parameters.where}, and {PSYCOPG2} reached"
            f" {_shown(reference)}. Set DB_HOST and DB_PORT to one server that all of this run's"
            " machines reach by this name"
        )
    return place


def _shown(place: ServerIdentity) -> str:
    return f"database {place.database} of the server started at {place.server} UTC"


def _require_parameters(
    facts: Mapping[str, str | None], parameters: ConnectionDescription, driver: str
) -> None:
    there = {"client_encoding": facts["client_encoding"]} | {
        name: facts[f"checked_{number}"]
        for number, name in enumerate(CHECKED_PARAMETERS)
        if name in parameters.session
    }
    wanted = {"client_encoding": ENCODING, **parameters.session}
    different = [
        name
        for name, value in there.items()
        if value != wanted[name] and not (name == "TimeZone" and value in UTC_NAMES)
    ]
    if not different:
        return
    if driver == JDBC and different == ["TimeZone"]:
        raise DatabaseRefused(
            f"the JVM's time zone is {there['TimeZone']}, which {driver} also gives its sessions at"
            f" {parameters.where}: days would be shifted. Put -Duser.timezone=UTC into"
            " spark.driver.extraJavaOptions and spark.executor.extraJavaOptions"
        )
    differences = ", ".join(f"{name}={there[name]} (not {wanted[name]})" for name in different)
    raise DatabaseRefused(
        f"the session of {driver} at {parameters.where} has {differences}: a pooler drops the"
        " startup parameter `options`. Set DB_HOST and DB_PORT to the server itself; or, with a"
        f' pooler in session mode, ALTER ROLE "{parameters.user}" SET each of them'
    )
