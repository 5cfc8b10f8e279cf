"""Rules of MLFLOW_TRACKING_URI: a SQLite file, an MLflow server, or a database on the server of
DB_HOST.

Makes no connection; messages have no credentials.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

# Scheme of a registry in PostgreSQL. For SQLAlchemy, `postgresql` alone means psycopg 3, which is
# not installed.
REGISTRY_DATABASE = "postgresql+psycopg2"


SQLITE = "sqlite:///"


def sqlite_uri(file: Path) -> str:
    """Return the URI of a registry in a SQLite file, quoted for SQLAlchemy."""
    return SQLITE + quote(str(file))


def is_in_postgresql(uri: str | None) -> bool:
    """Whether the URI names a registry in PostgreSQL."""
    return (uri or "").startswith(f"{REGISTRY_DATABASE}://")


def check_form(uri: str) -> None:
    """Check the URI itself.

    Raises:
        ValueError: the URI has credentials, or needs a driver that is not installed.
    """
    scheme, _, rest = uri.partition("://")
    # SQLAlchemy takes a password before the host or as a parameter
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
    """Check that a registry in PostgreSQL is a database of its own on the server at DB_HOST.

    Raises:
        ValueError: host or database are wrong, or the location of the model files is not set.
    """
    if problem := _problem(uri, db_host, db_name):
        host = db_host if db_host and not db_host.startswith("/") else "(value of DB_HOST)"
        raise ValueError(
            f"MLFLOW_TRACKING_URI {problem}; write {REGISTRY_DATABASE}://{host}/mlflow"
        )
    if not artifacts_uri:
        raise ValueError(
            "MLFLOW_TRACKING_URI needs MLFLOW_ARTIFACTS_URI, which is not set: files of models"
            " would stay in the working folder; set it to gs://BUCKET/models"
        )


def _problem(uri: str, db_host: str | None, db_name: str) -> str | None:
    address = urlsplit(uri)
    # `hostname` is in lower case
    host, database = address.hostname or "", unquote(address.path.removeprefix("/"))
    if not db_host:
        return "takes the login of the database at DB_HOST, which is not set; set it"
    # a socket's folder can't be the host of a URI: libpq gets it from DB_HOST
    if host != ("" if db_host.startswith("/") else db_host.lower()):
        # the login of DB_USER goes to no other host
        return f"names the host {host!r}, and DB_HOST is {db_host!r}, whose login it takes"
    if not database or "/" in database or address.query:
        return "takes a host, a port and the name of one database, and nothing more"
    if database == db_name:
        return f"names {database!r}, which is DB_NAME; MLflow takes a database of its own"
    return None
