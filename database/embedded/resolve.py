"""Finds the database of the settings: the server at DB_HOST, or the embedded server."""

from __future__ import annotations

from config_spark import Settings
from database.connections.secret_manager import with_password
from database.embedded.server import EmbeddedServer


def resolve_database(settings: Settings) -> Settings:
    """Return settings whose DB_* fields name a running server.

    Without DB_HOST, the embedded server is started if necessary. With DB_HOST, the password is read
    from Secret Manager if DB_PASSWORD_SECRET is set.

    Args:
        settings: settings of the command.

    Raises:
        EnvironmentNotReady: the embedded server cannot run here.
        DatabaseError: the embedded server does not start.
        CloudRefused: the secret cannot be read.
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
            "db_sslrootcert": None,
        }
    )
