"""The versions of a model as a person looks at them and moves them: list, show, promote, roll back.

In: the settings' engine and horizon, a version by its name, its number or an alias. Out: plain
dicts. What is moved here, the next forecast run uses; every move is a row of `yieldspark.promotion`
with who and why.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Engine

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from database.connections.engine import checked_connection
from forecasting.features.feature_frame import feature_names
from forecasting.registry import decisions, outbox
from forecasting.registry.mlflow_registry import (
    CHAMPION,
    RegisteredVersion,
    Registry,
    waiting_version,
)
from forecasting.registry.model_archive import ModelArchive, require_features

log = logging.getLogger(__name__)

SHOWN_DECISIONS = 10


def list_versions(settings: Settings, database: Engine) -> list[RegisteredVersion]:
    """Those that wait for the registry first, then those it has, the newest first. Raises:
    RegistryUnreachable.
    """
    return _listed(
        settings,
        database,
        outbox.waiting(database, **_model(settings)),
        Registry(settings, **_model(settings)),
    )


def _listed(
    settings: Settings, database: Engine, waiting: list[outbox.Waiting], registry: Registry
) -> list[RegisteredVersion]:
    names = {one.archive.card.version for one in waiting}
    registered = registry.versions()
    numbers = {one.version: one.number for one in registered}
    waits = [
        replace(
            waiting_version(one.archive.card, one.alias),
            number=numbers.get(one.archive.card.version),
        )
        for one in waiting
    ]
    decided = outbox.as_decided(registered, database, **_model(settings))
    return waits + [one for one in decided if one.version not in names]


def show_version(settings: Settings, database: Engine, name: str) -> dict[str, Any]:
    """The version's card without the drift reference, its aliases and number, and the decisions
    that named it.

    Raises: ModelRefused for one that is unknown or damaged, RegistryUnreachable.
    """
    found, archive = load_version(settings, database, name)
    card = {key: value for key, value in asdict(archive.card).items() if key != "reference"}
    of_it = [
        row
        for row in decisions.decisions(database, **_model(settings))
        if found.version in (row["challenger"], row["champion"], row["serving_version"])
    ]
    return {
        **card,
        "features_hash": archive.card.features_hash,
        "number": found.number,
        "aliases": found.aliases,
        "decisions": of_it[:SHOWN_DECISIONS],
    }


def load_version(
    settings: Settings, database: Engine, name: str
) -> tuple[RegisteredVersion, ModelArchive]:
    """Raises: ModelRefused, RegistryUnreachable."""
    waiting, registry = (
        outbox.waiting(database, **_model(settings)),
        Registry(settings, **_model(settings)),
    )
    found = _find(_listed(settings, database, waiting, registry), name)
    return found, next(
        (one.archive for one in waiting if one.archive.card.version == found.version), None
    ) or registry.load(found.version)


def promote(settings: Settings, database: Engine, name: str, reason: str) -> dict[str, Any]:
    """Let a version serve from the next forecast run on. Returns: decision, champion (before),
    serving_version, reason.

    The decision is committed first, and the alias moves after it. A process that ends in between,
    or a registry that no longer answers, leaves the move to the next command or forecast run. The
    decision counts from its commit on.

    Raises: ModelRefused for a version that is unknown, damaged or not of the code's features and
    the settings' interval; RegistryUnreachable.
    """
    return _serve(settings, database, name, decisions.BY_HAND, reason)


def roll_back(
    settings: Settings, database: Engine, name: str | None, reason: str
) -> dict[str, Any]:
    """Let the version serve that did before the present one (or `name`). Returns and raises as
    `promote`; ModelRefused too where none did.
    """
    champion = _champion(list_versions(settings, database))
    before = name or decisions.served_before(database, champion, **_model(settings))
    if before is None:
        said = f"before {champion}" if champion else "yet"
        raise ModelRefused(
            f"no version served {said}, so there is none to go back to: `models list` shows them,"
            " `models promote VERSION` takes one"
        )
    return _serve(settings, database, before, decisions.ROLLED_BACK, reason)


def _serve(
    settings: Settings, database: Engine, name: str, decision: str, reason: str
) -> dict[str, Any]:
    registry = Registry(settings, **_model(settings))
    outbox.register_waiting(database, registry, **_model(settings))
    found, archive = load_version(settings, database, name)
    require_features(archive.card, feature_names(market=settings.market_features))
    if archive.card.interval_level != settings.interval_level:
        raise ModelRefused(
            f"model version {found.version} was fitted for intervals of"
            f" {archive.card.interval_level:.0%}, and INTERVAL_LEVEL is"
            f" {settings.interval_level:.0%}: the next forecast run fits a version for it"
        )
    before = _champion(list_versions(settings, database))
    row: dict[str, Any] = {
        "decision": decision,
        "champion": before,
        "serving_version": found.version,
        "reason": reason,
    }
    with checked_connection(database) as connection:
        decisions.record(
            connection,
            **_model(settings),
            challenger=found.version,
            numbers=archive.card.scores,
            as_of=archive.card.known,
            **row,
        )
        outbox.put(connection, archive, CHAMPION, decision)
    try:
        outbox.register_waiting(database, registry, **_model(settings))
    except RegistryUnreachable as error:
        log.warning(
            "%s serves from the next forecast run on; its alias moves when the registry answers:"
            " %s",
            found.version,
            error,
        )
    return row


def _find(versions: list[RegisteredVersion], name: str) -> RegisteredVersion:
    found = next(
        (one for one in versions if name in (one.version, str(one.number), *one.aliases)), None
    )
    if found is None:
        known = (
            ", ".join(one.version for one in versions[:5])
            or "none yet: `forecast_pools` fits the first"
        )
        raise ModelRefused(
            f"no model version {name!r}: there are {known}; `models list` shows all, and their"
            " aliases"
        )
    return found


def _champion(versions: list[RegisteredVersion]) -> str | None:
    return next((one.version for one in versions if CHAMPION in one.aliases), None)


def _model(settings: Settings) -> dict[str, Any]:
    return {"engine": settings.engine, "horizon": settings.horizon_days}


def shown(one: RegisteredVersion, today: dt.date) -> dict[str, Any]:
    """A version as `models list` prints it; age_days is how long ago its origin is."""
    return {**asdict(one), "aliases": list(one.aliases), "age_days": (today - one.origin).days}
