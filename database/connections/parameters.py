"""Description of a connection to PostgreSQL, in the form that each driver takes: psycopg2, ADBC,
JDBC, psql and MLflow.

Does not connect; `session_check` compares a session with its description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import SecretStr
from sqlalchemy import URL

from common.errors import ConfigurationError
from config_spark import Settings
from database.connections.iam_login import AccessTokens, database_user
from database.connections.session_check import ENCODING, METRICS_PARAMETER, keyword

CONNECT_TIMEOUT_SECONDS = 10

KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, seconds, probes. The connection with the job's lock is idle while Spark works: clouds
drop a connection that is idle for ten minutes. On the server, they end the session and the lock of
a crashed machine after 90 seconds instead of two hours.
"""

APPLICATION = "yieldspark"

FIXED_SESSION = {
    "TimeZone": "UTC",
    # a policy of row-level security raises an error instead of hiding rows
    "row_security": "off",
    # the session with the lock is idle in a transaction while Spark works, and a merge may take
    # long: the role's limits are for interactive use
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # values and commits depend on these, and a role or a database may have changed them
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    # above 0: the text of a double reads back as the same double
    "extra_float_digits": "1",
    # `on` makes the catalog write "text" in quotes, and no type would match
    "quote_all_identifiers": "off",
    "array_nulls": "on",
    # ADBC's libpq writes notices of the server to the terminal
    "client_min_messages": "error",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    # compiling the many expressions of a statement takes longer than they run on an increment
    "jit": "off",
    **{f"tcp_{name}": str(value) for name, value in KEEPALIVES.items()},
}
"""Session parameters of every connection. They override those of the role and the database."""


@dataclass(frozen=True)
class ConnectionParameters:
    """Server, login and session of a connection.

    Attributes:
        host: host name, address, or folder of a Unix socket.
        port: TCP port.
        database: name of the database.
        user: role.
        password: None if the server asks for none.
        sslmode: as libpq's `sslmode`.
        sslrootcert: file of trusted certificates.
        session: values of session parameters, by name.
        tokens: source of the password of each login by IAM, in place of `password`.
    """

    host: str
    port: int
    database: str
    user: str
    password: SecretStr | None
    sslmode: str
    sslrootcert: Path | None
    session: Mapping[str, str]
    tokens: AccessTokens | None = None

    @property
    def is_socket(self) -> bool:
        """Whether the host is the folder of a Unix socket."""
        return self.host.startswith("/")

    @property
    def where(self) -> str:
        """Server, database and role, for messages."""
        return f"{self.host}:{self.port}/{self.database} as {self.user}"

    @property
    def options(self) -> str:
        """The startup parameter `options`, in the syntax of a server's command line."""
        return " ".join(f"-c {name}={_escaped(value)}" for name, value in self.session.items())

    def libpq_keywords(self) -> dict[str, Any]:
        """Return libpq's keywords for psycopg2, with the password in clear: never log them."""
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
        """libpq's connection string for ADBC, with the password in clear: never log it."""
        return " ".join(keyword(name, str(value)) for name, value in self.libpq_keywords().items())

    def jdbc_url(self) -> str:
        """Return `jdbc:postgresql://..` without user and password.

        Raises:
            ConfigurationError: the host is a Unix socket, which Java's driver does not support.
        """
        if self.is_socket:
            raise ConfigurationError(
                f"DB_HOST={self.host} is a Unix socket, which JDBC can't use: set READ_TRANSPORT"
                " and WRITE_TRANSPORT to adbc, or DB_HOST to a host name"
            )
        # libpq accepts several hosts, separated by commas, with one port
        hosts = (f"[{host}]" if ":" in host else host for host in self.host.split(","))
        servers = ",".join(f"{host}:{self.port}" for host in hosts)
        parameters = {
            "sslmode": self.sslmode,
            # lets text be inserted into jsonb columns
            "stringtype": "unspecified",
            # one INSERT with many rows instead of one INSERT for each row
            "reWriteBatchedInserts": "true",
            "options": self.options,
            **({"sslrootcert": str(self.sslrootcert)} if self.sslrootcert else {}),
        }
        query = urlencode(parameters, quote_via=quote, safe="")
        return f"jdbc:postgresql://{servers}/{quote(self.database, safe='')}?{query}"

    def jdbc_properties(self) -> dict[str, str]:
        """Return driver and login, with the password in clear: Spark redacts it, never log it."""
        password = self._clear_password()
        return {
            "driver": "org.postgresql.Driver",
            "user": self.user,
            "ApplicationName": APPLICATION,
            "tcpKeepAlive": "true",
            **({} if password is None else {"password": password}),
        }

    def sqlalchemy_url(self) -> URL:
        """Return SQLAlchemy's URL; `str()` hides the password."""
        query = {"sslmode": self.sslmode}
        if self.sslrootcert:
            query["sslrootcert"] = str(self.sslrootcert)
        if self.is_socket:
            # SQLAlchemy reads the folder of a socket from the query
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
        """Return libpq's environment variables, except PGDATABASE, for programs whose command line
        would show the password.
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

    @property
    def without_password(self) -> ConnectionParameters:
        """The description without a login's secret and its source."""
        return replace(self, password=None, tokens=None)

    def _clear_password(self) -> str | None:
        if self.tokens:
            return self.tokens.token()
        return self.password.get_secret_value() if self.password else None


def connection_parameters(settings: Settings) -> ConnectionParameters:
    """Return the description of the settings' database.

    Args:
        settings: DB_HOST is set (`resolve_database`).
    """
    tokens = (
        AccessTokens(settings.google_api_endpoint, settings.google_api_token_file)
        if settings.db_iam_auth
        else None
    )
    return ConnectionParameters(
        host=str(settings.db_host),
        port=settings.db_port,
        database=settings.db_name,
        user=database_user(settings.db_user) if tokens else settings.db_user,
        password=settings.db_password,
        sslmode=settings.db_sslmode,
        sslrootcert=settings.db_sslrootcert,
        # the default path begins with `$user`, and the role may be called `yieldspark` too
        session=FIXED_SESSION
        | {"search_path": settings.db_schema, METRICS_PARAMETER: settings.metrics_table},
        tokens=tokens,
    )


def _escaped(value: str) -> str:
    """Escape a value inside `options`, which the server splits at spaces."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
