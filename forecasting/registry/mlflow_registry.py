"""The model registry: MLflow's, in a SQLite file of YIELDSPARK_HOME, or by MLFLOW_TRACKING_URI in a
PostgreSQL database beside the product's, or on a server.

In: model archives. Out: versions with their aliases, archives again. A version is an MLflow run
(settings, scores, data interval and hash, hash of the features, engine, code version, native texts
as artifacts) and a registered version, with the alias `champion` (serves) or `challenger` (the
newest that does not). Its own name stands in its tags, and registering it twice makes one.
Credentials are never part of the URI: a database takes those of DB_USER (`mlflow_tables`), a server
MLflow's own variables (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN).
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ModelRefused, RegistryUnreachable
from common.google.clients import client_options, credentials
from config_spark import Settings
from forecasting.registry.mlflow_tables import (
    LATER,
    has_tables,
    login,
    registry_folder,
    registry_uri,
)
from forecasting.registry.model_archive import ModelArchive, ModelCard, from_files

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
EXPERIMENT = "yieldspark"
STORAGE = "https://storage.googleapis.com"
FOLDER = "model"
TAGS = ("version", "origin", "known", "features_hash", "interval_level", "passed", "code_version")


def _reach_stand_in(settings: Settings) -> None:
    """Let MLflow ask for files in a bucket by the product's client, with the address and the token
    of what stands in for Google: its own client knows the machine's credentials alone.
    """
    from google.cloud import storage
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
    from mlflow.store.artifact.gcs_artifact_repo import GCSArtifactRepository

    client = storage.Client(
        project=None,
        credentials=credentials(settings),
        client_options=client_options(settings, STORAGE),
    )
    _artifact_repository_registry.register(  # type: ignore[no-untyped-call]
        "gs", partial(GCSArtifactRepository, client=client)
    )


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as lists show it, and as the night chooses by. `number` is MLflow's; None while it
    waits in the outbox.
    """

    version: str
    number: int | None
    aliases: tuple[str, ...]
    origin: dt.date
    known: dt.date
    features_hash: str
    interval_level: float
    passed: bool
    code_version: str


def unregistered_version(card: ModelCard, alias: str | None) -> RegisteredVersion:
    """A version that is not registered yet."""
    return RegisteredVersion(
        card.version,
        None,
        (alias,) if alias else (),
        card.origin,
        card.known,
        card.features_hash,
        card.interval_level,
        card.passed,
        card.code_version,
    )


class Registry:
    """The versions of one database's engine and horizon. Every method raises RegistryUnreachable
    where the server, database or file does not answer.
    """

    def __init__(self, settings: Settings, *, engine: str, horizon: int) -> None:
        # a database's pools are what its models learn from: two databases may share a server, but
        # no champion
        self.name = f"yieldspark-{settings.db_name}-{engine}-{horizon}d"
        self._settings, self._uri = settings, registry_uri(settings)

    def versions(self) -> list[RegisteredVersion]:
        """All of them, the newest first. Looking makes no file and no table."""
        with self._reached():
            if not has_tables(self._settings, make=False):
                return []
            aliases = self._aliases()
            found = self._client.search_model_versions(
                f"name='{self.name}'", order_by=["version_number DESC"]
            )
            return [self._version(one.tags, int(one.version), aliases) for one in found]

    def load(self, version: str) -> ModelArchive:
        """Raises: ModelRefused for a version that is unknown or damaged."""
        with self._reached():
            found = self._find(version)
            if found is None:
                raise ModelRefused(
                    f"no model version {version} in {self.name}: `models list` shows those"
                    " there are"
                )
            with tempfile.TemporaryDirectory(prefix="yieldspark-model-") as folder:
                path = Path(self._client.download_artifacts(found.run_id, FOLDER, folder))
                files = {one.name: one.read_bytes() for one in path.iterdir()}
        return from_files(files, version)

    def register(self, archive: ModelArchive, alias: str | None) -> int:
        """Register a version unless it is there already, give it the alias if any, and return
        MLflow's number of it.

        A challenger that passed its judgement is the champion of a registry that has none: it was
        fitted while the registry did not answer.
        """
        with self._reached():
            found = self._find(archive.card.version)
            number = int(found.version) if found else self._register(archive)
            if alias:
                first = archive.card.passed and CHAMPION not in self._aliases()
                self._give(CHAMPION if first else alias, number)
            return number

    def set_champion(self, version: str | None) -> None:
        """Move the alias; None takes it away, so that persistence is served. Raises: ModelRefused
        for an unknown version.
        """
        with self._reached():
            if version is None:
                if CHAMPION in self._aliases():
                    self._client.delete_registered_model_alias(self.name, CHAMPION)
                return
            found = self._find(version)
            if found is None:
                raise ModelRefused(
                    f"no model version {version} in {self.name}: `models list` shows those"
                    " there are"
                )
            self._give(CHAMPION, int(found.version))

    @cached_property
    def _client(self) -> MlflowClient:
        has_tables(self._settings, make=True)
        from mlflow import MlflowClient

        if self._settings.google_api_endpoint:
            _reach_stand_in(self._settings)
        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def _register(self, archive: ModelArchive) -> int:
        card = archive.card
        if self._registered_model() is None:
            self._client.create_registered_model(self.name)
        run = self._client.create_run(
            self._experiment(),
            run_name=card.version,
            tags={"engine": card.engine, "code_version": card.code_version},
        )
        for name, setting in _parameters(card).items():
            self._client.log_param(run.info.run_id, name, setting)
        for name, ratio in _metrics(card).items():
            self._client.log_metric(run.info.run_id, name, ratio)
        with tempfile.TemporaryDirectory(prefix="yieldspark-model-") as folder:
            for name, content in archive.files().items():
                Path(folder, name).write_bytes(content)
            self._client.log_artifacts(run.info.run_id, folder, FOLDER)
        tags = {name: str(getattr(card, name)) for name in TAGS}
        source = f"{run.info.artifact_uri}/{FOLDER}"
        made = self._client.create_model_version(
            self.name, source, run.info.run_id, tags=tags, await_creation_for=0
        )
        self._client.set_terminated(run.info.run_id)
        return int(made.version)

    def _give(self, alias: str, number: int) -> None:
        """A version is champion or challenger, and never both."""
        aliases = self._aliases()
        other = CHALLENGER if alias == CHAMPION else CHAMPION
        if aliases.get(other) == number:
            if alias == CHALLENGER:
                return
            self._client.delete_registered_model_alias(self.name, other)
        self._client.set_registered_model_alias(self.name, alias, str(number))

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        if known:
            return str(known.experiment_id)
        place = self._settings.mlflow_artifacts_uri
        if place is None and self._settings.mlflow_tracking_uri is None:
            place = (registry_folder(self._settings) / "artifacts").as_uri()
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place))

    def _find(self, version: str) -> Any:
        found = (
            self._client.search_model_versions(f"name='{self.name}' and tag.version='{version}'")
            if version.replace("-", "").isalnum()
            else []
        )
        return found[0] if found else None

    def _aliases(self) -> dict[str, int]:
        model = self._registered_model()
        return {alias: int(number) for alias, number in model.aliases.items()} if model else {}

    def _registered_model(self) -> Any:
        """None before the first version is registered."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _version(
        self, tags: dict[str, str], number: int, aliases: dict[str, int]
    ) -> RegisteredVersion:
        """Raises: RegistryUnreachable, for a version whose tags are damaged may be the champion."""
        try:
            return RegisteredVersion(
                version=tags["version"],
                number=number,
                aliases=tuple(sorted(alias for alias, of in aliases.items() if of == number)),
                origin=dt.date.fromisoformat(tags["origin"]),
                known=dt.date.fromisoformat(tags["known"]),
                features_hash=tags["features_hash"],
                interval_level=float(tags["interval_level"]),
                passed=tags["passed"] == "True",
                code_version=tags["code_version"],
            )
        except (KeyError, ValueError) as error:
            raise RegistryUnreachable(
                f"version {number} of {self.name} in the model registry at {self._uri} has damaged"
                f" tags ({type(error).__name__}: {error}). Put a copy of the registry back, or"
                f" delete that version with MLflow; {LATER}"
            ) from error

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            with login(self._settings):
                yield
        except (ModelRefused, RegistryUnreachable, ImportError):
            raise
        except (
            Exception
        ) as error:  # MLflow passes on what its stores raise: requests', SQLAlchemy's, OSError
            raise RegistryUnreachable(
                f"the model registry at {self._uri} failed: {type(error).__name__}:"
                f" {str(error).splitlines()[0][:200]}. Check MLFLOW_TRACKING_URI and that it runs;"
                f" {LATER}"
            ) from error


def _parameters(card: ModelCard) -> dict[str, str]:
    own = (
        "horizon_days",
        "interval_level",
        "origin",
        "known",
        "data_first_day",
        "data_rows",
        "data_hash",
        "features_hash",
    )
    return {name: str(getattr(card, name)) for name in own} | {
        name: str(value) for name, value in card.settings.items()
    }


def _metrics(card: ModelCard) -> dict[str, float]:
    ratios: dict[str, list[float | None]] = card.scores.get("ratio", {})
    return {
        name.replace("/", "_to_"): ratio
        for name, (ratio, *_) in ratios.items()
        if ratio is not None
    }
