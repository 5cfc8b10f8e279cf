"""Moves that the registry has not made yet: versions to register, aliases to give or to take away.
They are committed with the forecasts or the decision they belong to, and made when the registry
answers.

So a registry that is down stops no forecast, no forecast names a version that is nowhere, and a
process that ends between the commit and the registry leaves a move that the next command or run
makes (the transactional outbox pattern). Making a move twice is making it once. In: archives. Out:
rows of `yieldspark.model_outbox`, which are gone once the move is made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select

from database.connections.engine import checked_connection
from database.schema.tables import model_outbox
from forecasting.registry.mlflow_registry import CHAMPION, RegisteredVersion, Registry
from forecasting.registry.model_archive import ModelArchive, unpack

log = logging.getLogger(__name__)

WITHDRAWN = "withdrawn"
"""`alias` of a row that carries no model: from its commit on there is no champion."""


@dataclass(frozen=True)
class PendingVersion:
    archive: ModelArchive
    alias: str | None


def enqueue(connection: Connection, archive: ModelArchive, alias: str | None, run_id: str) -> None:
    """Inside the caller's transaction. A version that is registered already gets the alias alone.

    Args: run_id is the forecast run, or the decision where it was taken by hand.
    """
    card = archive.card
    row = {
        "version": card.version,
        "engine": card.engine,
        "horizon_days": card.horizon_days,
        "alias": alias,
        "run_id": run_id,
    }
    connection.execute(delete(model_outbox).where(model_outbox.c.version == card.version))
    connection.execute(insert(model_outbox).values(row | {"model": archive.pack()}))


def enqueue_withdrawal(connection: Connection, run_id: str, *, engine: str, horizon: int) -> None:
    """Inside the caller's transaction: the champion loses its alias, whichever version has it."""
    row = {
        "version": f"{WITHDRAWN} by {run_id}",
        "engine": engine,
        "horizon_days": horizon,
        "alias": WITHDRAWN,
        "run_id": run_id,
    }
    connection.execute(insert(model_outbox).values(row | {"model": b""}))


def pending_versions(database: Engine, *, engine: str, horizon: int) -> list[PendingVersion]:
    """Versions that are not registered yet or wait for an alias, the newest first; `champion` is
    one of them at most. Raises: ModelRefused for a damaged one.
    """
    found: list[PendingVersion] = []
    is_decided = False
    for row in _rows(database, engine, horizon):
        alias = None if is_decided and row.alias == CHAMPION else row.alias
        is_decided |= alias in (CHAMPION, WITHDRAWN)
        if alias != WITHDRAWN:
            found.append(PendingVersion(unpack(bytes(row.model), row.version), alias))
    return found


def apply_pending_decisions(
    registered: Sequence[RegisteredVersion], database: Engine, *, engine: str, horizon: int
) -> list[RegisteredVersion]:
    """The registry's versions; its champion is none any more where another one, or none, was
    decided on and the alias has not moved yet.
    """
    moves = select(model_outbox.c.version).where(
        model_outbox.c.engine == engine,
        model_outbox.c.horizon_days == horizon,
        model_outbox.c.alias.in_((CHAMPION, WITHDRAWN)),
    )
    with checked_connection(database) as connection:
        if connection.execute(moves).first() is None:
            return list(registered)
    return [
        replace(one, aliases=tuple(alias for alias in one.aliases if alias != CHAMPION))
        for one in registered
    ]


def register_pending(
    database: Engine, registry: Registry, *, engine: str, horizon: int
) -> list[str]:
    """Make every move that waits, the oldest first, and return the registered versions. Raises:
    ModelRefused for a damaged version, RegistryUnreachable; what is left then waits on.
    """
    registered = []
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
