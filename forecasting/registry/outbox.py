"""Model versions on their way to the registry: they are committed with the forecasts they made, and
registered when the registry answers.

So a registry that is down stops no forecast, and no forecast names a version that is nowhere (the
transactional outbox pattern). In: archives. Out: rows of `yieldspark.model_outbox`, which are gone
once they are registered.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, insert, select

from database.connection import checked_connection
from database.tables import model_outbox
from forecasting.registry.mlflow_registry import Registry
from forecasting.registry.model_archive import ModelArchive, unpacked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    archive: ModelArchive
    alias: str | None


def put(connection: Connection, archive: ModelArchive, alias: str | None, run_id: str) -> None:
    """Inside the caller's transaction."""
    card = archive.card
    row = {
        "version": card.version,
        "engine": card.engine,
        "horizon_days": card.horizon_days,
        "alias": alias,
        "run_id": run_id,
    }
    connection.execute(delete(model_outbox).where(model_outbox.c.version == card.version))
    connection.execute(insert(model_outbox).values(row | {"model": archive.packed()}))


def waiting(database: Engine, *, engine: str, horizon: int) -> list[Waiting]:
    """Versions that are not registered yet, the newest first. Raises: ModelRefused for a damaged
    one.
    """
    rows = (
        select(model_outbox)
        .where(model_outbox.c.engine == engine, model_outbox.c.horizon_days == horizon)
        .order_by(model_outbox.c.created_at.desc(), model_outbox.c.version.desc())
    )
    with checked_connection(database) as connection:
        return [
            Waiting(unpacked(bytes(row.model), row.version), row.alias)
            for row in connection.execute(rows)
        ]


def register_waiting(
    database: Engine, registry: Registry, *, engine: str, horizon: int
) -> list[str]:
    """Register what waits, the oldest first, and return the versions. Raises: RegistryUnreachable;
    what is left then waits on.
    """
    registered = []
    for one in reversed(waiting(database, engine=engine, horizon=horizon)):
        number = registry.register(one.archive, one.alias)
        with checked_connection(database) as connection:
            connection.execute(
                delete(model_outbox).where(model_outbox.c.version == one.archive.card.version)
            )
        log.info(
            "registered model version %s as %s version %d, alias %s",
            one.archive.card.version,
            registry.name,
            number,
            one.alias,
        )
        registered.append(one.archive.card.version)
    return registered
