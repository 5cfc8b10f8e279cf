"""What MLFLOW_TRACKING_URI may be: a file of SQLite, an MLflow server, or a database beside
DB_NAME.

In: the URI and the settings it depends on. Out: nothing, or a ValueError that holds no credentials.
No connection is made.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

REGISTRY_DATABASE = "postgresql+psycopg2"
"""Scheme of a registry in PostgreSQL. SQLAlchemy takes `postgresql` alone for psycopg 3, which is
not installed.
"""


SQLITE = "sqlite:///"


def sqlite_uri(file: Path) -> str:
    """The registry in this file, quoted as SQLAlchemy reads it."""
    return SQLITE + quote(str(file))


def is_in_postgresql(uri: str | None) -> bool:
    return (uri or "").startswith(f"{REGISTRY_DATABASE}://")


def check_form(uri: str) -> None:
    """Raises: ValueError for credentials in the URI and for a driver that is not installed."""
    scheme, _, rest = uri.partition("://")
    if "@" in rest.partition("/")[0] or "password=" in rest:
        raise ValueError(
            "it holds credentials, and a URI is logged; a database takes those of DB_USER and"
            " DB_PASSWORD, a server MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if scheme.startswith("postgres") and scheme != REGISTRY_DATABASE:
        raise ValueError(
            f"{scheme}:// asks for a driver that is not installed; write"
            f" {REGISTRY_DATABASE}://HOST/mlflow, where HOST is the value of DB_HOST"
        )


def check_place(uri: str, *, db_host: str | None, db_name: str, artifacts_uri: str | None) -> None:
    """Raises: ValueError for a registry in PostgreSQL that is not a database of its own on the
    server at DB_HOST, or that has no place for the files of models.
    """
    if problem := _problem(uri, db_host, db_name, artifacts_uri):
        host = db_host if db_host and not db_host.startswith("/") else "(value of DB_HOST)"
        raise ValueError(
            f"MLFLOW_TRACKING_URI {problem}; write {REGISTRY_DATABASE}://{host}/mlflow"
        )


def _problem(uri: str, db_host: str | None, db_name: str, artifacts_uri: str | None) -> str | None:
    address = urlsplit(uri)
    host, database = address.hostname or "", unquote(address.path.removeprefix("/"))
    if not db_host:
        return "takes the login of the database at DB_HOST, which is not set; set it"
    # a socket's folder can't be the host of a URI: libpq gets it from DB_HOST
    if host != ("" if db_host.startswith("/") else db_host.lower()):
        # the login of DB_USER goes to no other server
        return f"names the host {host!r}, and DB_HOST is {db_host!r}, whose login it takes"
    if not database or "/" in database or address.query:
        return "takes a host, a port and the name of one database, and nothing more"
    if database == db_name:
        return f"names {database!r}, which is DB_NAME; MLflow takes a database of its own"
    if not artifacts_uri:
        return (
            "needs MLFLOW_ARTIFACTS_URI, which is not set: files of models would stay in the"
            " working folder; set it to gs://BUCKET/models"
        )
    return None
