"""Server behind an emulated Cloud SQL instance: a real PostgreSQL with Cloud SQL's roles. A user of
the API is a member of `cloudsqlsuperuser`, which owns the databases and is no superuser
(https://cloud.google.com/sql/docs/postgres/roles). Tier, flags and TLS are not emulated.
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
    """A running server with Cloud SQL's roles.

    Args:
        server: Started here. Its own role and database are renamed, so that the configuration can
            use their names.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        address = server.start()
        self.host, self.port = address.host, address.port
        password = secrets.token_hex(16)
        own_password = address.password.get_secret_value()
        with self._connection(address.user, own_password, "postgres") as connection:
            connection.execute(
                text(f"CREATE ROLE {ADMIN} SUPERUSER LOGIN PASSWORD :password"),
                {"password": password},
            )
        self._password = password
        # as the new role: a session cannot rename its own role
        with self._admin() as connection:
            for statement in (
                f"ALTER DATABASE {address.database} RENAME TO embedded",
                f"ALTER ROLE {address.user} RENAME TO embedded",
                f"CREATE ROLE {OWNER} NOLOGIN CREATEDB CREATEROLE",
            ):
                connection.execute(text(statement))

    def create_database(self, name: str) -> None:
        """Create a database, owned as in Cloud SQL."""
        with self._admin() as connection:
            # identifiers cannot be bound as parameters
            connection.execute(text(f"CREATE DATABASE {_quote(name)} OWNER {OWNER}"))

    def set_user(self, name: str, password: str | None) -> None:
        """Create a user or change its password."""
        with self._admin() as connection:
            exists = connection.execute(
                text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}
            ).first()
            if not exists:
                connection.execute(
                    text(f"CREATE ROLE {_quote(name)} LOGIN CREATEDB CREATEROLE IN ROLE {OWNER}")
                )
            connection.execute(
                text(f"ALTER ROLE {_quote(name)} PASSWORD :password"), {"password": password}
            )

    def _admin(self) -> Connection:
        return self._connection(ADMIN, self._password, "postgres")

    def _connection(self, user: str, password: str, database: str) -> Connection:
        url = URL.create("postgresql+psycopg2", user, password, self.host, self.port, database)
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        return engine.connect()


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
