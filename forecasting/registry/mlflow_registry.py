"""The model registry: MLflow, in a SQLite file of YIELDSPARK_HOME or at MLFLOW_TRACKING_URI.

Stores and loads model archives. A version is an MLflow run (settings, scores, data interval, texts
as artifacts) and a registered version, with the alias `champion` (it serves) or `challenger` (the
newest that does not). Registering a version twice makes one. Credentials are never part of the URI.
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
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.registry.mlflow_tables import (
    LATER,
    has_tables,
    is_database,
    login,
    model_name,
    open_tables,
    registry_folder,
    registry_uri,
)
from forecasting.registry.model_archive import ModelArchive, ModelCard, from_files
from forecasting.registry.stored_versions import (
    StoredVersion,
    local_folder,
    stored_aliases,
    stored_versions,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "yieldspark"
STORAGE = "https://storage.googleapis.com"
FOLDER = "model"
TAGS = ("version", "origin", "known", "features_hash", "interval_level", "passed", "code_version")


def _use_product_storage_client(settings: Settings) -> None:
    """Makes MLflow read buckets by the product's client, for an emulator's address and token."""
    from google.cloud.storage import Client
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
    from mlflow.store.artifact.gcs_artifact_repo import GCSArtifactRepository

    # MLflow's own client knows the machine's credentials only
    client = Client(
        project=None,
        credentials=credentials(settings),
        client_options=client_options(settings, STORAGE),
    )
    _artifact_repository_registry.register(  # type: ignore[no-untyped-call]
        "gs", partial(GCSArtifactRepository, client=client)
    )


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in lists and for the selection of a run.

    Attributes:
        number: MLflow's number; None while the version is only in the outbox.
        origin: last UTC day of the training data.
        known: as-of day of the run that fitted it.
        passed: it beat persistence in its validation.
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
    """Returns the list entry of a version that is not registered yet."""
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
    """The versions of one database's engine and horizon.

    Every method raises RegistryUnreachable if the server, database or file does not answer.
    """

    def __init__(self, settings: Settings, *, engine: str, horizon: int) -> None:
        self.name = model_name(settings, engine=engine, horizon=horizon)
        self._settings, self._uri = settings, registry_uri(settings)

    def versions(self) -> list[RegisteredVersion]:
        """Returns all versions, the newest first; creates no file and no table."""
        with self._translated_errors():
            if not has_tables(self._settings, make=False):
                return []
            versions, aliases = self._stored()
            return [self._version(version.tags, version.number, aliases) for version in versions]

    def load(self, version: str) -> ModelArchive:
        """Loads a version.

        Raises:
            ModelRefused: the version is unknown or damaged.
        """
        with self._translated_errors():
            if files := self._local_files(version):
                return from_files(files, version)
            entry = self._require(version)
            with tempfile.TemporaryDirectory(prefix="yieldspark-model-") as folder:
                path = Path(self._client.download_artifacts(entry.run_id, FOLDER, folder))
                files = {file.name: file.read_bytes() for file in path.iterdir()}
        return from_files(files, version)

    def register(self, archive: ModelArchive, alias: str | None) -> int:
        """Registers a version unless it is registered already, and gives it the alias.

        Args:
            alias: CHAMPION, CHALLENGER or None.

        Returns:
            MLflow's number of the version.
        """
        with self._translated_errors():
            entry = self._find(archive.card.version)
            number = int(entry.version) if entry else self._register(archive)
            if alias:
                # a version that passed while the registry did not answer is the first champion
                is_first = archive.card.passed and CHAMPION not in self._aliases()
                self._set_alias(CHAMPION if is_first else alias, number)
            return number

    def set_champion(self, version: str | None) -> None:
        """Moves the champion's alias; None removes it, so that persistence is published.

        Raises:
            ModelRefused: the version is unknown.
        """
        with self._translated_errors():
            if version is None:
                if CHAMPION in self._aliases():
                    self._client.delete_registered_model_alias(self.name, CHAMPION)
                return
            self._set_alias(CHAMPION, int(self._require(version).version))

    def _stored(self) -> tuple[list[StoredVersion], dict[str, int]]:
        """The versions, the newest first, and their numbers by alias."""
        if is_database(self._uri):
            with open_tables(self._settings) as connection:
                return stored_versions(connection, self.name), stored_aliases(connection, self.name)
        entries = self._client.search_model_versions(
            f"name='{self.name}'", order_by=["version_number DESC"]
        )
        versions = [
            StoredVersion(int(entry.version), str(entry.source), entry.tags) for entry in entries
        ]
        return versions, self._aliases()

    def _local_files(self, version: str) -> dict[str, bytes]:
        """The files of a version by name; none if they are not on this machine, or not known."""
        if not is_database(self._uri) or not has_tables(self._settings, make=False):
            return {}
        with open_tables(self._settings) as connection:
            stored = stored_versions(connection, self.name)
        matching = (entry for entry in stored if entry.tags.get("version") == version)
        folders = (local_folder(entry.source) for entry in matching)
        folder = next((folder for folder in folders if folder and folder.is_dir()), None)
        return {file.name: file.read_bytes() for file in folder.iterdir()} if folder else {}

    @cached_property
    def _client(self) -> MlflowClient:
        has_tables(self._settings, make=True)
        from mlflow import MlflowClient

        if self._settings.google_api_endpoint:
            _use_product_storage_client(self._settings)
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
        # after its files: a version that is listed can be loaded
        entry = self._client.create_model_version(
            self.name, source, run.info.run_id, tags=tags, await_creation_for=0
        )
        self._client.set_terminated(run.info.run_id)
        return int(entry.version)

    def _set_alias(self, alias: str, number: int) -> None:
        # a version is champion or challenger, and never both
        aliases = self._aliases()
        other = CHALLENGER if alias == CHAMPION else CHAMPION
        if aliases.get(other) == number:
            if alias == CHALLENGER:
                return
            self._client.delete_registered_model_alias(self.name, other)
        self._client.set_registered_model_alias(self.name, alias, str(number))

    def _experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment:
            return str(experiment.experiment_id)
        location = self._settings.mlflow_artifacts_uri
        if location is None and self._settings.mlflow_tracking_uri is None:
            # MLflow's default is ./mlruns, below the folder in which the command runs
            location = (registry_folder(self._settings) / "artifacts").as_uri()
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))

    def _require(self, version: str) -> Any:
        entry = self._find(version)
        if entry is None:
            raise ModelRefused(
                f"no model version {version} in {self.name}: `models list` shows the versions"
            )
        return entry

    def _find(self, version: str) -> Any:
        # the name is part of a filter expression, which has no parameters
        if not version.replace("-", "").isalnum():
            return None
        entries = self._client.search_model_versions(
            f"name='{self.name}' and tag.version='{version}'"
        )
        return entries[0] if entries else None

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
        """The list entry of MLflow's version."""
        own_aliases = sorted(alias for alias, holder in aliases.items() if holder == number)
        try:
            return RegisteredVersion(
                version=tags["version"],
                number=number,
                aliases=tuple(own_aliases),
                origin=dt.date.fromisoformat(tags["origin"]),
                known=dt.date.fromisoformat(tags["known"]),
                features_hash=tags["features_hash"],
                interval_level=float(tags["interval_level"]),
                passed=tags["passed"] == "True",
                code_version=tags["code_version"],
            )
        except (KeyError, ValueError) as error:
            # the version may be the champion: without it the champion is unknown
            raise RegistryUnreachable(
                f"version {number} of {self.name} in the model registry at {self._uri} has damaged"
                f" tags ({type(error).__name__}: {error}). Restore a backup of the registry, or"
                f" delete that version with MLflow; {LATER}"
            ) from error

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            with login(self._settings):
                yield
        except (ModelRefused, RegistryUnreachable, ImportError):
            raise
        # MLflow passes on any error of its stores: of requests, of SQLAlchemy, OSError
        except Exception as error:
            raise RegistryUnreachable(
                f"the model registry at {self._uri} failed: {type(error).__name__}:"
                f" {str(error).splitlines()[0][:200]}. Check MLFLOW_TRACKING_URI and that it runs;"
                f" {LATER}"
            ) from error


def _parameters(card: ModelCard) -> dict[str, str]:
    names = (
        "horizon_days",
        "interval_level",
        "origin",
        "known",
        "data_first_day",
        "data_rows",
        "data_hash",
        "features_hash",
    )
    return {name: str(getattr(card, name)) for name in names} | {
        name: str(value) for name, value in card.settings.items()
    }


def _metrics(card: ModelCard) -> dict[str, float]:
    ratios: dict[str, list[float | None]] = card.scores.get("ratio", {})
    return {
        name.replace("/", "_to_"): ratio
        for name, (ratio, *_) in ratios.items()
        if ratio is not None
    }
