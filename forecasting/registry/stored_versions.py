"""Versions in MLflow's tables, read by SQL, because importing MLflow takes three seconds.

Reads an open transaction of `mlflow_tables.open_tables`, and model files of this machine; writes
nothing. A server or a bucket is asked by MLflow's client instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, text

# MLflow keeps the row of a deleted version
_VERSIONS = """
SELECT v.version, v.source, t.key, t.value
FROM model_versions AS v
LEFT JOIN model_version_tags AS t ON t.name = v.name
    AND t.version = v.version
WHERE v.name = :name
    AND v.current_stage <> 'Deleted_Internal'
ORDER BY v.version DESC
"""
_ALIASES = """
SELECT alias, version
FROM registered_model_aliases
WHERE name = :name
"""


@dataclass(frozen=True)
class StoredVersion:
    """A version as MLflow stores it.

    Attributes:
        number: MLflow's number.
        source: address of the folder of its files.
        tags: value by name.
    """

    number: int
    source: str
    tags: dict[str, str] = field(default_factory=dict)


def stored_versions(connection: Connection, name: str) -> list[StoredVersion]:
    """Returns the versions of a registered model, the newest first."""
    versions: dict[int, StoredVersion] = {}
    for row in connection.execute(text(_VERSIONS), {"name": name}):
        version = versions.setdefault(row.version, StoredVersion(row.version, str(row.source)))
        if row.key is not None:
            version.tags[row.key] = row.value
    return list(versions.values())


def stored_aliases(connection: Connection, name: str) -> dict[str, int]:
    """Returns the number of the version by alias."""
    rows = connection.execute(text(_ALIASES), {"name": name})
    return {row.alias: int(row.version) for row in rows}


def local_folder(source: str) -> Path | None:
    """Returns the folder of a version's files, or None if it is not of this machine."""
    address = urlsplit(source)
    return Path(unquote(address.path)) if address.scheme in ("", "file") else None
