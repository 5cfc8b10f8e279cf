"""The database of the settings: the one that DB_HOST names, or the embedded server."""

from __future__ import annotations

from config_spark import Settings
from database.connections.secret_manager import with_password
from database.embedded.server import EmbeddedServer


def resolve_database(settings: Settings) -> Settings:
    """Returns settings whose DB_* fields name a running server.

    Without DB_HOST this is the embedded server, which is started if necessary. With DB_HOST, the
    password is read from Secret Manager if the settings name a secret.
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
