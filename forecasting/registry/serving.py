"""Selection of the model versions of a forecast run.

Reads versions of registry and outbox; returns `ServingVersions`. Never uses a version that has seen
a day after the as-of day. Moves no alias.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from forecasting.evaluation.model_roles import CHAMPION
from forecasting.features.feature_names import feature_names
from forecasting.registry import outbox
from forecasting.registry.mlflow_registry import RegisteredVersion, Registry, unregistered_version
from forecasting.registry.model_archive import ModelArchive, features_hash, require_features

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingVersions:
    """The versions of a run.

    Attributes:
        champion: the serving version; None if persistence serves.
        newest: the newest usable version; its moves go to the forecast history while persistence
            serves.
        is_reached: the registry answered, so all versions are known.
        is_past: a version of a later as-of day exists; a version fitted now moves no alias.
        problems: messages for the run's checks.
    """

    champion: ModelArchive | None
    newest: ModelArchive | None
    is_reached: bool
    is_past: bool
    problems: tuple[str, ...] = ()

    @property
    def newest_as_of(self) -> dt.date | None:
        """As-of day of the newest version's run."""
        return self.newest.card.known if self.newest else None


def serving_versions(
    settings: Settings, database: Engine, *, engine: str, horizon: int, as_of: dt.date
) -> ServingVersions:
    """Selects and loads the versions that a run of this as-of day uses.

    A registry that does not answer and a damaged version become `problems`, not errors.

    Args:
        engine: name of the forecasting engine.
        horizon: days from the as-of day to the target day.
        as_of: the as-of day.
    """
    model: dict[str, Any] = {"engine": engine, "horizon": horizon}
    registry = Registry(settings, **model)
    problems: list[str] = []
    versions, archives, is_outbox_intact = _pending(database, model, problems)
    is_reached = True
    try:
        registered = registry.versions()
        if is_outbox_intact:
            registered = outbox.apply_pending_decisions(registered, database, **model)
        versions += [version for version in registered if version.version not in archives]
    except RegistryUnreachable as error:
        is_reached = False
        problems.append(str(error))

    features = feature_names(market=settings.market_features)
    loaded: dict[str, ModelArchive | None] = {}

    def load(version: RegisteredVersion) -> ModelArchive | None:
        name = version.version
        if name not in loaded:
            try:
                archive = archives.get(name) or registry.load(name)
                require_features(archive.card, features)
                loaded[name] = archive
            except (ModelRefused, RegistryUnreachable) as error:
                problems.append(str(error))
                loaded[name] = None
        return loaded[name]

    current = _current(versions, as_of, settings.interval_level)
    usable = [version for version in current if version.features_hash == features_hash(features)]
    newest_first = sorted(usable, key=lambda version: version.known, reverse=True)
    selected = _champion(versions, current, usable, is_reached)
    # a champion that can't be loaded is replaced by the newest version that passed
    passed = [version for version in newest_first if version.passed]
    candidates = [selected, *passed] if selected else []
    champion = next(filter(None, map(load, candidates)), None)
    newest = load(newest_first[0]) if newest_first else None
    for problem in problems:
        log.warning("%s", problem)
    return ServingVersions(
        champion=champion,
        newest=newest,
        is_reached=is_reached,
        is_past=any(version.known > as_of for version in versions),
        problems=tuple(problems),
    )


def _pending(
    database: Engine, model: dict[str, Any], problems: list[str]
) -> tuple[list[RegisteredVersion], dict[str, ModelArchive], bool]:
    """Versions of the outbox, their archives by name, and whether all are intact."""
    try:
        pending = outbox.pending_versions(database, **model)
    except ModelRefused as error:
        problems.append(str(error))
        return [], {}, False
    archives = {entry.archive.card.version: entry.archive for entry in pending}
    versions = [unregistered_version(entry.archive.card, entry.alias) for entry in pending]
    return versions, archives, True


def _current(
    versions: Sequence[RegisteredVersion], as_of: dt.date, level: float
) -> list[RegisteredVersion]:
    # a version of a later run has seen days after the as-of day
    return [
        version
        for version in versions
        if version.known <= as_of and version.interval_level == level
    ]


def _champion(
    versions: Sequence[RegisteredVersion],
    current: Sequence[RegisteredVersion],
    usable: Sequence[RegisteredVersion],
    is_reached: bool,
) -> RegisteredVersion | None:
    """The champion as of this day; None if persistence serves."""
    champion = next((version for version in versions if CHAMPION in version.aliases), None)
    if champion in current:
        # with other features too: loading it names them
        return champion
    passed = [version for version in usable if version.passed]
    if champion is not None or not is_reached:
        # the champion has seen later days, or is unknown without the registry
        return max(passed, key=lambda version: version.known, default=None)
    # The oldest pending version that passed: it has served since the registry stopped answering,
    # and becomes the registry's first champion.
    pending = [version for version in passed if version.number is None and version.aliases]
    return pending[-1] if pending else None
