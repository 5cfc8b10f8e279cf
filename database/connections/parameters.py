"""The one description of a connection to PostgreSQL, in the forms that the drivers take: keywords
for psycopg2, a connection string for ADBC, URL and properties for JDBC, variables for psql and
MLflow.

Goes in: `Settings`. Comes out: text. Nothing connects here; whether a session is the one that was
described is asked in `session_check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import SecretStr
from sqlalchemy import URL

from common.errors import ConfigurationError
from config_spark import Settings
from database.connections.session_check import ENCODING, METRICS_PARAMETER

CONNECT_TIMEOUT_SECONDS = 10

KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, seconds, probes. The connection that holds the lock is silent while Spark works, and
clouds drop a flow that is silent for ten minutes; on the server's side they end the session of a
machine that went away, and its lock, after a minute and a half instead of two hours.
"""

APPLICATION = "yieldspark"

FIXED_SESSION = {
    "TimeZone": "UTC",
    # policies of row-level security are an error and not fewer rows
    "row_security": "off",
    # the lock's session is idle in a transaction while Spark works, and a merge takes as long as it
    # takes: the role's own limits are for people
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # what a role or a database may have changed, and what values and commits depend on
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    # with it the catalogue writes "text" in quotes, and no column has the type that is expected
    "quote_all_identifiers": "off",
    "array_nulls": "on",
    # ADBC's libpq writes notices of the server straight to the terminal
    "client_min_messages": "error",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    **{f"tcp_{name}": str(value) for name, value in KEEPALIVES.items()},
}
"""Session parameters of every connection, which win over those of role and database."""


@dataclass(frozen=True)
class ConnectionParameters:
    """Where, who and how: `host` is a name, an address or the folder of a Unix socket, `session`
    maps names of session parameters to their values.
    """

    host: str
    port: int
    database: str
    user: str
    password: SecretStr | None
    sslmode: str
    sslrootcert: Path | None
    session: Mapping[str, str]

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}/{self.database} as {self.user}"

    @property
    def options(self) -> str:
        """The startup parameter `options`: what a server's command line takes."""
        return " ".join(f"-c {name}={_escaped(value)}" for name, value in self.session.items())

    def libpq_keywords(self) -> dict[str, Any]:
        """Keywords of libpq, for psycopg2; with the password in clear: never log them."""
        keywords = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self._clear_password(),
            "sslmode": self.sslmode,
            "sslrootcert": str(self.sslrootcert) if self.sslrootcert else None,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": APPLICATION,
            "client_encoding": ENCODING,
            "options": self.options,
            **KEEPALIVES,
        }
        return {name: value for name, value in keywords.items() if value is not None}

    @property
    def conninfo(self) -> str:
        """libpq's connection string, for ADBC. It holds the password: never log it."""
        return " ".join(
            f"{name}={_quoted_keyword(str(value))}" for name, value in self.libpq_keywords().items()
        )

    def jdbc_url(self) -> str:
        """`jdbc:postgresql://..` without user and password. `stringtype=unspecified` lets text go
        into jsonb columns. The driver asks for UTF-8 by itself.

        Raises: ConfigurationError for a Unix socket, which Java's driver can't use.
        """
        if self.is_socket:
            raise ConfigurationError(
                f"DB_HOST={self.host} is a Unix socket, which JDBC can't use: set READ_TRANSPORT"
                " and WRITE_TRANSPORT to adbc, or DB_HOST to a host name"
            )
        # libpq takes several hosts, with commas between, all at one port
        hosts = (f"[{host}]" if ":" in host else host for host in self.host.split(","))
        servers = ",".join(f"{host}:{self.port}" for host in hosts)
        parameters = {
            "sslmode": self.sslmode,
            "stringtype": "unspecified",
            "reWriteBatchedInserts": "true",
            "options": self.options,
            **({"sslrootcert": str(self.sslrootcert)} if self.sslrootcert else {}),
        }
        query = urlencode(parameters, quote_via=quote, safe="")
        return f"jdbc:postgresql://{servers}/{quote(self.database, safe='')}?{query}"

    def jdbc_properties(self) -> dict[str, str]:
        """Driver and login, with the password in clear: Spark redacts it, never log it."""
        password = self._clear_password()
        return {
            "driver": "org.postgresql.Driver",
            "user": self.user,
            "ApplicationName": APPLICATION,
            "tcpKeepAlive": "true",
            **({} if password is None else {"password": password}),
        }

    def sqlalchemy_url(self) -> URL:
        """`str()` of it hides the password. SQLAlchemy takes a socket's folder from the query."""
        query = {"sslmode": self.sslmode}
        if self.sslrootcert:
            query["sslrootcert"] = str(self.sslrootcert)
        if self.is_socket:
            query |= {"host": self.host, "port": str(self.port)}
        return URL.create(
            "postgresql+psycopg2",
            username=self.user,
            password=self._clear_password(),
            host=None if self.is_socket else self.host,
            port=None if self.is_socket else self.port,
            database=self.database,
            query=query,
        )

    def libpq_variables(self) -> dict[str, str]:
        """The variables of libpq, but PGDATABASE, for programs that take no connection string
        without showing it.
        """
        password = self._clear_password()
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGSSLMODE": self.sslmode,
            "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_SECONDS),
            "PGAPPNAME": APPLICATION,
            **({"PGSSLROOTCERT": str(self.sslrootcert)} if self.sslrootcert else {}),
            **({} if password is None else {"PGPASSWORD": password}),
        }

    def _clear_password(self) -> str | None:
        return self.password.get_secret_value() if self.password else None


def connection_parameters(settings: Settings) -> ConnectionParameters:
    """The description of the settings' database; DB_HOST is set (`connection.resolve_database`)."""
    return ConnectionParameters(
        host=str(settings.db_host),
        port=settings.db_port,
        database=settings.db_name,
        user=settings.db_user,
        password=settings.db_password,
        sslmode=settings.db_sslmode,
        sslrootcert=settings.db_sslrootcert,
        # the default path begins with `$user`, and a role may well be called `yieldspark` too
        session=FIXED_SESSION
        | {"search_path": settings.db_schema, METRICS_PARAMETER: settings.metrics_table},
    )


def _escaped(value: str) -> str:
    """A value inside `options`, which the server splits at spaces."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _quoted_keyword(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
