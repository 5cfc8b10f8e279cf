"""The server behind an emulated Cloud SQL instance: a real PostgreSQL, with the roles that a client
of Cloud SQL meets.

In: the address of an embedded server that nobody else uses. Out: databases and users as the Admin
API was asked for them. A user made by the API is a member of `cloudsqlsuperuser`, which owns the
databases and is no superuser (https://cloud.google.com/sql/docs/postgres/roles). It does not
emulate the machine: tier, flags and TLS are left out.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from database.embedded.server import EmbeddedServer

ADMIN = "cloudsqladmin"
OWNER = "cloudsqlsuperuser"


class DatabaseServer:
    """Args: server is started here, and its own role and database get other names, which leaves the
    names that the configuration uses free.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        address = server.start()
        self.host, self.port = address.host, address.port
        password = secrets.token_hex(16)
        own = address.password.get_secret_value()
        with self._connection(address.user, own, "postgres") as connection:
            connection.execute(
                text(f"CREATE ROLE {ADMIN} SUPERUSER LOGIN PASSWORD :password"),
                {"password": password},
            )
        self._password = password
        with self._admin() as connection:
            for statement in (
                f"ALTER DATABASE {address.database} RENAME TO embedded",
                f"ALTER ROLE {address.user} RENAME TO embedded",
                f"CREATE ROLE {OWNER} NOLOGIN CREATEDB CREATEROLE",
            ):
                connection.execute(text(statement))

    def create_database(self, name: str) -> None:
        """A new database, owned as Cloud SQL's are."""
        with self._admin() as connection:
            connection.execute(text(f"CREATE DATABASE {_quoted(name)} OWNER {OWNER}"))

    def set_user(self, name: str, password: str | None) -> None:
        """Make the user, or give it the password."""
        with self._admin() as connection:
            exists = connection.execute(
                text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}
            ).first()
            if not exists:
                connection.execute(
                    text(f"CREATE ROLE {_quoted(name)} LOGIN CREATEDB CREATEROLE IN ROLE {OWNER}")
                )
            connection.execute(
                text(f"ALTER ROLE {_quoted(name)} PASSWORD :password"), {"password": password}
            )

    def _admin(self) -> Connection:
        return self._connection(ADMIN, self._password, "postgres")

    def _connection(self, user: str, password: str, database: str) -> Connection:
        url = URL.create("postgresql+psycopg2", user, password, self.host, self.port, database)
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        return engine.connect()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
