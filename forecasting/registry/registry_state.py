"""The state of the model registry as a digest: whether a version or an alias has changed.

Reads MLflow's tables by SQL, because importing MLflow takes seconds; asks a server by MLflow's
client. Loads no version: of the model files it compares name, size and time if they are on this
machine, and nothing if they are in a bucket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from common.errors import RegistryUnreachable
from config_spark import Settings
from forecasting.registry.mlflow_tables import (
    is_database,
    is_missing_file,
    login,
    model_name,
    open_tables,
    registry_uri,
)
from forecasting.registry.stored_versions import local_folder

_ALIASES = """
SELECT a.alias, coalesce(t.value, CAST(a.version AS VARCHAR)) AS version
FROM registered_model_aliases AS a
LEFT JOIN model_version_tags AS t ON t.name = a.name
    AND t.version = a.version
    AND t.key = 'version'
WHERE a.name = :name
ORDER BY a.alias
"""
_VERSIONS = """
SELECT version, current_stage, status, run_id, source
FROM model_versions
WHERE name = :name
ORDER BY version
"""
_TAGS = """
SELECT version, key, value
FROM model_version_tags
WHERE name = :name
ORDER BY version, key
"""
_REVISION = "SELECT version_num FROM alembic_version"


@dataclass(frozen=True)
class RegistryState:
    """The versions of one engine and horizon.

    Attributes:
        aliases: version by alias.
        digest: hash of versions, tags, aliases and local model files.
    """

    aliases: Mapping[str, str]
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self)


def registry_state(settings: Settings, *, engine: str, horizon: int) -> RegistryState | None:
    """Returns the state of the registry; None if it does not answer. Creates no file or table.

    Args:
        engine: name of the forecasting engine.
        horizon: days from the as-of day to the target day.
    """
    name = model_name(settings, engine=engine, horizon=horizon)
    uri = registry_uri(settings)
    try:
        if not is_database(uri):
            return _state_of_server(settings, engine=engine, horizon=horizon)
        # opening a missing file would create it
        if is_missing_file(uri):
            return _state(uri, {}, [])
        with login(settings), open_tables(settings) as connection:
            return _state_of_tables(uri, connection, name)
    except RegistryUnreachable:
        return None


def _state_of_tables(uri: str, connection: Connection, name: str) -> RegistryState:
    def rows(statement: str) -> list[list[Any]]:
        result = connection.execute(text(statement), {"name": name} if ":name" in statement else {})
        return [list(row) for row in result]

    versions = rows(_VERSIONS)
    files = [_local_files(str(source)) for *_, source in versions]
    aliases = {str(alias): str(version) for alias, version in rows(_ALIASES)}
    return _state(uri, aliases, [rows(_REVISION), versions, rows(_TAGS), files])


def _state_of_server(settings: Settings, *, engine: str, horizon: int) -> RegistryState:
    # imports MLflow's client: only for a registry whose tables are out of reach
    from forecasting.registry.mlflow_registry import Registry

    versions = Registry(settings, engine=engine, horizon=horizon).versions()
    aliases: dict[str, str] = {}
    for version in versions:
        aliases |= dict.fromkeys(version.aliases, version.version)
    return _state(registry_uri(settings), aliases, [[str(version)] for version in versions])


def _state(uri: str, aliases: Mapping[str, str], content: list[Any]) -> RegistryState:
    document = json.dumps([uri, aliases, content], default=str)
    return RegistryState(aliases, hashlib.sha256(document.encode()).hexdigest())


def _local_files(source: str) -> list[tuple[str, int, int]]:
    """Name, size and time (ns) of the files of a version; none if they are not on this machine."""
    folder = local_folder(source)
    if folder is None:
        return []
    try:
        stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    except OSError:
        return []
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
