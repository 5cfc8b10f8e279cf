"""Which model version a forecast run uses, and whether it has to fit a new one.

In: the versions of registry and outbox, the as-of day, and what the code makes. Out: `ServingVersions`. No
version that knows anything after the as-of day is ever used. It reads and decides; nothing is
loaded or moved here.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from forecasting.features.feature_frame import feature_names
from forecasting.registry import outbox
from forecasting.registry.mlflow_registry import (
    CHAMPION,
    RegisteredVersion,
    Registry,
    unregistered_version,
)
from forecasting.registry.model_archive import ModelArchive, features_hash, require_features

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingVersions:
    """`champion` serves, None: persistence does; `newest` is the newest version that could: its
    moves go into the ledger while persistence is served.

    `is_reached`: whether the registry answered, so that all versions are known. `is_past`: a later
    as-of day has a version already, so that nothing that is fitted now moves an alias. `problems`:
    what the run has to say.
    """

    champion: ModelArchive | None
    newest: ModelArchive | None
    is_reached: bool
    is_past: bool
    problems: tuple[str, ...] = ()

    @property
    def newest_as_of(self) -> dt.date | None:
        return self.newest.card.known if self.newest else None


def serving(
    settings: Settings, database: Engine, *, engine: str, as_of: dt.date
) -> ServingVersions:
    """Never raises for a registry that does not answer or a damaged version: it says so, and goes
    on with what there is.
    """
    registry, problems = Registry(settings, engine=engine, horizon=settings.horizon_days), []
    packed: dict[str, ModelArchive] = {}
    versions: list[RegisteredVersion] = []
    is_outbox_whole = True
    try:
        waiting = outbox.pending_versions(database, engine=engine, horizon=settings.horizon_days)
        packed = {one.archive.card.version: one.archive for one in waiting}
        versions = [unregistered_version(one.archive.card, one.alias) for one in waiting]
    except ModelRefused as error:
        is_outbox_whole = False
        problems.append(str(error))
    is_reached = True
    try:
        registered = registry.versions()
        if is_outbox_whole:
            registered = outbox.apply_pending_decisions(
                registered, database, engine=engine, horizon=settings.horizon_days
            )
        versions += [one for one in registered if one.version not in packed]
    except RegistryUnreachable as error:
        is_reached = False
        problems.append(str(error))

    features, loaded = (
        feature_names(market=settings.market_features),
        dict[str, ModelArchive | None](),
    )

    def load(one: RegisteredVersion) -> ModelArchive | None:
        if one.version not in loaded:
            try:
                archive = packed.get(one.version) or registry.load(one.version)
                require_features(archive.card, features)
                loaded[one.version] = archive
            except (ModelRefused, RegistryUnreachable) as error:
                problems.append(str(error))
                loaded[one.version] = None
        return loaded[one.version]

    known = [
        one
        for one in versions
        if one.known <= as_of and one.interval_level == settings.interval_level
    ]
    usable = [one for one in known if one.features_hash == features_hash(features)]
    newest_first = sorted(usable, key=lambda one: one.known, reverse=True)
    chosen = _champion(versions, known, usable, is_reached)
    # one that can't be loaded costs no forecast: the newest other that passed serves
    candidates = [chosen, *(one for one in newest_first if one.passed)] if chosen else []
    champion = next((found for one in candidates if (found := load(one))), None)
    newest = load(newest_first[0]) if newest_first else None
    for problem in problems:
        log.warning("%s", problem)
    return ServingVersions(
        champion, newest, is_reached, any(one.known > as_of for one in versions), tuple(problems)
    )


def _champion(
    versions: Sequence[RegisteredVersion],
    known: Sequence[RegisteredVersion],
    usable: Sequence[RegisteredVersion],
    is_reached: bool,
) -> RegisteredVersion | None:
    """The champion where it may be used; on a past as-of day that it knows too much of, and without
    a registry, the newest that passed judgement; where there is none, the one that waits to be the
    first.
    """
    champion = next((one for one in versions if CHAMPION in one.aliases), None)
    if champion in known:
        # other features: loading it says which
        return champion
    if champion is not None or not is_reached:
        return max((one for one in usable if one.passed), key=lambda one: one.known, default=None)
    # the registry will make it the first champion: it passed while the registry did not answer, and
    # has served since
    return next(
        (one for one in reversed(usable) if one.number is None and one.aliases and one.passed), None
    )
