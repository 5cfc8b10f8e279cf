"""A private network for tests: the doubles that a container of the operator meets, one release of
this checkout, and the commands that a person starts from outside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from config_spark import Settings
from emulator.local.local_cloud import CONTAINER_ENTRY, PIPELINE
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.batch_process import BatchProcess, LocalPlatform
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions, UntilCancelled
from emulator.services.fake_logging import FakeLogging
from emulator.services.fake_secret_manager import FakeSecretManager
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_service import Service, serving
from emulator.workflow_engine import execute, hosts_at
from tests.support.dataproc_cases import WorkflowsHere
from tests.support.releases import BUCKET, cloud_settings
from tests.support.workflow_services import JARS
from workflows.releases.code_archive import build_archive, build_operator_archive
from workflows.releases.code_bucket import CodeBucket
from workflows.releases.release import publish_content
from workflows.releases.release_batches import batches_document
from workflows.releases.release_content import ReleaseContent, as_json, job_entry_files
from workflows.spec.release_paths import BATCHES, CODE, OPERATOR_CODE, Release

VERSION = "d" * 40
SECONDS_OF_A_DAY = 86_400

AT_ONCE = BatchScript(pending_seconds=0, running_seconds=0, usage_delay_seconds=0)


@dataclass
class Network:
    """settings are the operator's, run the command line with them; batches are those of yesterday,
    by their double.
    """

    settings: Settings
    run: WorkflowsHere
    cloud_run: FakeCloudRun
    folder: Path


@contextmanager
def network(database: Settings, folder: Path, **more: Any) -> Iterator[Network]:
    """Containers really run, in folders of their own; a batch goes by a script, as of yesterday.

    Args: more are settings of the release.
    """
    storage = FakeStorage(folder / "storage", [BUCKET, "acme-staging"])
    services: list[Service] = [storage]
    with serving(services) as url:
        settings = _settings(database, url, **more)
        platform = LocalPlatform(folder / "network", url, None)
        cloud_run = FakeCloudRun(BatchScript(pending_seconds=0), run=partial(_container, platform))
        password = database.db_password.get_secret_value() if database.db_password else ""
        executions: FakeExecutions = FakeExecutions(
            lambda name, argument: _pipeline(url, executions, name, argument)
        )
        services += [
            FakeDataproc(AT_ONCE, now=lambda: time.time() - SECONDS_OF_A_DAY),
            cloud_run,
            FakeLogging(cloud_run.lines),
            FakeSecretManager({str(settings.db_password_secret): password.encode()}),
            executions,
        ]
        publish_content(CodeBucket(settings), _release(settings))
        run = WorkflowsHere(folder, variables_of(settings))
        try:
            yield Network(settings, run, cloud_run, folder / "network")
        finally:
            cloud_run.cancel_all()


def variables_of(settings: Settings) -> dict[str, str]:
    """What a person sets outside: nothing of the database reaches from there."""
    given = settings.model_dump(include=settings.model_fields_set, exclude_none=True)
    return {
        name.upper(): str(value)
        for name, value in given.items()
        if not name.startswith(("db_", "mlflow_"))
    }


def _settings(database: Settings, url: str, **more: Any) -> Settings:
    names = ("db_host", "db_port", "db_name", "db_user", "db_sslmode")
    return cloud_settings(
        url,
        **{name: getattr(database, name) for name in names},
        mlflow_tracking_uri="https://mlflow.acme.example",
        **more,
    )


def _release(settings: Settings) -> ReleaseContent:
    """The code of this checkout, without the jars, which no command of the tests needs."""
    release = Release(BUCKET, VERSION, JARS)
    files = {
        CODE: build_archive(),
        OPERATOR_CODE: build_operator_archive(),
        **job_entry_files(),
        BATCHES: as_json(batches_document(settings, release)),
    }
    return ReleaseContent(release, VERSION, files)


def _container(
    platform: LocalPlatform, name: str, arguments: list[str], variables: dict[str, str]
) -> BatchProcess:
    given = {"CODE_BUCKET": BUCKET, **variables}
    return platform.run_container(CONTAINER_ENTRY, arguments, given, name)


def _pipeline(url: str, executions: FakeExecutions, name: str, argument: Any) -> Any:
    return execute(
        PIPELINE.read_text(encoding="utf-8"),
        argument,
        environment={
            "GOOGLE_CLOUD_PROJECT_ID": "acme",
            "GOOGLE_CLOUD_LOCATION": "europe-west1",
            "GOOGLE_CLOUD_WORKFLOW_ID": "yieldspark-pipeline",
            "GOOGLE_CLOUD_WORKFLOW_EXECUTION_ID": name,
            "CODE_BUCKET": BUCKET,
        },
        transport=hosts_at(url),
        clock=UntilCancelled(executions, name, 50),
        log=lambda entry: None,
    )
