"""The outbox of the model registry: versions and aliases that it has not recorded yet.

Rows of `yieldspark.model_outbox` are committed with the forecasts or the decision they belong to,
and deleted once the registry has recorded them (transactional outbox). A registry that does not
answer therefore stops no forecast, and recording a row twice has the effect of once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select

from database.connections.engine import checked_connection
from database.schema.own_tables import model_outbox
from forecasting.evaluation.model_roles import CHAMPION
from forecasting.registry.mlflow_registry import RegisteredVersion, Registry
from forecasting.registry.model_archive import ModelArchive, unpack

log = logging.getLogger(__name__)

# `alias` of a row without a model: after its commit there is no champion
WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class PendingVersion:
    """A version that the registry has not recorded yet, with its future alias."""

    archive: ModelArchive
    alias: str | None


def enqueue(connection: Connection, archive: ModelArchive, alias: str | None, run_id: str) -> None:
    """Adds a version, inside the caller's transaction.

    A version that is registered already only gets the alias.

    Args:
        alias: CHAMPION, CHALLENGER or None.
        run_id: id of the forecast run, or the decision of a person.
    """
    card = archive.card
    row = {
        "version": card.version,
        "engine": card.engine,
        "horizon_days": card.horizon_days,
        "alias": alias,
        "run_id": run_id,
    }
    # at most one row a version: the newest alias replaces one that still waits
    connection.execute(delete(model_outbox).where(model_outbox.c.version == card.version))
    connection.execute(insert(model_outbox).values(row | {"model": archive.pack()}))


def enqueue_withdrawal(connection: Connection, run_id: str, *, engine: str, horizon: int) -> None:
    """Adds the removal of the champion's alias, inside the caller's transaction."""
    row = {
        "version": f"{WITHDRAWN} by {run_id}",
        "engine": engine,
        "horizon_days": horizon,
        "alias": WITHDRAWN,
        "run_id": run_id,
    }
    connection.execute(insert(model_outbox).values(row | {"model": b""}))


def pending_versions(database: Engine, *, engine: str, horizon: int) -> list[PendingVersion]:
    """Returns the pending versions, the newest first; one of them at most is champion.

    Raises:
        ModelRefused: a version is damaged.
    """
    versions: list[PendingVersion] = []
    # the newest decision on the champion counts
    is_decided = False
    for row in _rows(database, engine, horizon):
        alias = None if is_decided and row.alias == CHAMPION else row.alias
        is_decided |= alias in (CHAMPION, WITHDRAWN)
        if alias != WITHDRAWN:
            versions.append(PendingVersion(unpack(bytes(row.model), row.version), alias))
    return versions


def apply_pending_decisions(
    registered: Sequence[RegisteredVersion], database: Engine, *, engine: str, horizon: int
) -> list[RegisteredVersion]:
    """Returns the registry's versions with the decisions that wait in the outbox.

    While another champion, or none, has been decided on, no registered version is champion.
    """
    moves = select(model_outbox.c.version).where(
        model_outbox.c.engine == engine,
        model_outbox.c.horizon_days == horizon,
        model_outbox.c.alias.in_((CHAMPION, WITHDRAWN)),
    )
    with checked_connection(database) as connection:
        if connection.execute(moves).first() is None:
            return list(registered)
    return [_without_champion(version) for version in registered]


def _without_champion(version: RegisteredVersion) -> RegisteredVersion:
    return replace(version, aliases=tuple(alias for alias in version.aliases if alias != CHAMPION))


def register_pending(
    database: Engine, registry: Registry, *, engine: str, horizon: int
) -> list[str]:
    """Records every pending row in the registry, the oldest first.

    Returns:
        The registered versions.

    Raises:
        ModelRefused: a version is damaged; it and newer rows stay in the outbox.
        RegistryUnreachable: the registry does not answer; the rest stays in the outbox.
    """
    registered = []
    # in the order of the decisions, so that the newest alias is moved last
    for row in reversed(_rows(database, engine, horizon)):
        if row.alias == WITHDRAWN:
            registry.set_champion(None)
            log.info("%s: %s, so that no version is champion", registry.name, row.version)
        else:
            number = registry.register(unpack(bytes(row.model), row.version), row.alias)
            log.info(
                "registered model version %s as %s version %d, alias %s",
                row.version,
                registry.name,
                number,
                row.alias,
            )
            registered.append(row.version)
        # afterwards: a process that ends in between records the row again, which changes nothing
        with checked_connection(database) as connection:
            connection.execute(delete(model_outbox).where(model_outbox.c.version == row.version))
    return registered


def _rows(database: Engine, engine: str, horizon: int) -> Sequence[Row[Any]]:
    """The newest first."""
    rows = (
        select(model_outbox)
        .where(model_outbox.c.engine == engine, model_outbox.c.horizon_days == horizon)
        .order_by(model_outbox.c.created_at.desc(), model_outbox.c.version.desc())
    )
    with checked_connection(database) as connection:
        return connection.execute(rows).all()
