"""Model versions for the command line: list, show, promote, roll back.

Reads the settings' engine, a horizon, and a version by its name, number or alias; returns the
payloads of `models`. A change takes effect with the next forecast run, and is a row of
`yieldspark.promotion`.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Engine

from common.errors import ModelRefused, RegistryUnreachable
from common.horizons import NEXT_DAY
from config_spark import Settings
from database.connections.engine import checked_connection
from forecasting.evaluation.model_roles import CHAMPION
from forecasting.features.feature_names import feature_names
from forecasting.registry import decisions, outbox
from forecasting.registry.mlflow_registry import RegisteredVersion, Registry, unregistered_version
from forecasting.registry.model_archive import ModelArchive, require_features

log = logging.getLogger(__name__)

MAX_DECISIONS = 10


def list_versions(
    settings: Settings, database: Engine, *, horizon: int = NEXT_DAY
) -> list[RegisteredVersion]:
    """Returns the pending versions, then the registered ones, each the newest first.

    Args:
        horizon: days from the as-of day to the target day.

    Raises:
        RegistryUnreachable: the registry does not answer.
    """
    return _merge_versions(
        database,
        outbox.pending_versions(database, **_model(settings, horizon)),
        Registry(settings, **_model(settings, horizon)),
        _model(settings, horizon),
    )


def _merge_versions(
    database: Engine,
    pending: list[outbox.PendingVersion],
    registry: Registry,
    model: dict[str, Any],
) -> list[RegisteredVersion]:
    names = {entry.archive.card.version for entry in pending}
    registered = registry.versions()
    numbers = {version.version: version.number for version in registered}
    # a registered version is pending too while it waits for an alias
    versions = [
        replace(
            unregistered_version(entry.archive.card, entry.alias),
            number=numbers.get(entry.archive.card.version),
        )
        for entry in pending
    ]
    decided = outbox.apply_pending_decisions(registered, database, **model)
    return versions + [version for version in decided if version.version not in names]


def show_version(
    settings: Settings, database: Engine, name: str, *, horizon: int = NEXT_DAY
) -> dict[str, Any]:
    """Returns a version's card without its drift reference, its number, aliases and decisions.

    Args:
        name: the version's name, number or alias.
        horizon: days from the as-of day to the target day.

    Raises:
        ModelRefused: the version is unknown or damaged.
        RegistryUnreachable: the registry does not answer.
    """
    version, archive = load_version(settings, database, name, horizon=horizon)
    card = {key: value for key, value in asdict(archive.card).items() if key != "reference"}
    of_version = [
        recorded
        for recorded in decisions.list_decisions(database, **_model(settings, horizon))
        if version.version in (recorded.challenger, recorded.champion, recorded.serving_version)
    ]
    return {
        **card,
        "features_hash": archive.card.features_hash,
        "number": version.number,
        "aliases": version.aliases,
        "decisions": [asdict(recorded) for recorded in of_version[:MAX_DECISIONS]],
    }


def load_version(
    settings: Settings, database: Engine, name: str, *, horizon: int = NEXT_DAY
) -> tuple[RegisteredVersion, ModelArchive]:
    """Loads a version from the outbox or the registry.

    Args:
        name: its name, number or alias.
        horizon: days from the as-of day to the target day.

    Raises:
        ModelRefused: the version is unknown or damaged.
        RegistryUnreachable: the registry does not answer.
    """
    model = _model(settings, horizon)
    pending, registry = outbox.pending_versions(database, **model), Registry(settings, **model)
    version = _find(_merge_versions(database, pending, registry, model), name)
    archives = {entry.archive.card.version: entry.archive for entry in pending}
    return version, archives.get(version.version) or registry.load(version.version)


def promote(
    settings: Settings, database: Engine, name: str, reason: str, *, horizon: int = NEXT_DAY
) -> dict[str, Any]:
    """Makes a version the serving one from the next forecast run on.

    The decision is committed before the alias moves. If the process ends in between, or the
    registry does not answer, the next command or forecast run moves the alias; the decision counts
    from its commit on.

    Args:
        name: the version's name, number or alias.
        reason: stored with the decision.
        horizon: days from the as-of day to the target day.

    Returns:
        decision, champion (before), serving_version, reason.

    Raises:
        ModelRefused: the version is unknown, damaged, or of other features or another interval
            level than the code and the settings.
        RegistryUnreachable: the registry does not answer.
    """
    return _serve(settings, database, name, decisions.BY_HAND, reason, horizon)


def roll_back(
    settings: Settings,
    database: Engine,
    name: str | None,
    reason: str,
    *,
    horizon: int = NEXT_DAY,
) -> dict[str, Any]:
    """Makes the previously serving version, or `name`, the serving one.

    Args and returns as `promote`.

    Raises:
        ModelRefused: as `promote`, or no version served before.
        RegistryUnreachable: the registry does not answer.
    """
    champion = _champion(list_versions(settings, database, horizon=horizon))
    before = name or decisions.previous_champion(database, champion, **_model(settings, horizon))
    if before is None:
        period = f"before {champion}" if champion else "yet"
        raise ModelRefused(
            f"no version served {period}, so there is none to roll back to: `models list` shows the"
            " versions, `models promote VERSION` selects one"
        )
    return _serve(settings, database, before, decisions.ROLLED_BACK, reason, horizon)


def _serve(
    settings: Settings, database: Engine, name: str, decision: str, reason: str, horizon: int
) -> dict[str, Any]:
    model = _model(settings, horizon)
    registry = Registry(settings, **model)
    outbox.register_pending(database, registry, **model)
    version, archive = load_version(settings, database, name, horizon=horizon)
    require_features(archive.card, feature_names(market=settings.market_features))
    if archive.card.interval_level != settings.interval_level:
        raise ModelRefused(
            f"model version {version.version} was fitted for intervals of"
            f" {archive.card.interval_level:.0%}, and INTERVAL_LEVEL is"
            f" {settings.interval_level:.0%}: the next forecast run fits a version for it"
        )
    before = _champion(list_versions(settings, database, horizon=horizon))
    row: dict[str, Any] = {
        "decision": decision,
        "champion": before,
        "serving_version": version.version,
        "reason": reason,
    }
    # one transaction, so that no decision is left without its move of the alias
    with checked_connection(database) as connection:
        decisions.record_decision(
            connection,
            **model,
            challenger=version.version,
            numbers=archive.card.scores,
            as_of=archive.card.known,
            **row,
        )
        outbox.enqueue(connection, archive, CHAMPION, decision)
    try:
        outbox.register_pending(database, registry, **model)
    except RegistryUnreachable as error:
        log.warning(
            "%s serves from the next forecast run on; its alias moves when the registry answers:"
            " %s",
            version.version,
            error,
        )
    return row


def _find(versions: list[RegisteredVersion], name: str) -> RegisteredVersion:
    for version in versions:
        if name in (version.version, str(version.number), *version.aliases):
            return version
    names = ", ".join(version.version for version in versions[:5])
    raise ModelRefused(
        f"no model version {name!r}: there are"
        f" {names or 'none yet: `forecast_pools` fits the first'}; `models list` shows all, and"
        " their aliases"
    )


def _champion(versions: list[RegisteredVersion]) -> str | None:
    return next((version.version for version in versions if CHAMPION in version.aliases), None)


def _model(settings: Settings, horizon: int) -> dict[str, Any]:
    return {"engine": settings.engine, "horizon": horizon}


def version_summary(version: RegisteredVersion, today: dt.date) -> dict[str, Any]:
    """Returns a version as `models list` prints it; `age_days` is counted from its origin."""
    age_days = (today - version.origin).days
    return {**asdict(version), "aliases": list(version.aliases), "age_days": age_days}
