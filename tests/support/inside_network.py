"""A private network for tests: the fakes that an operator's container calls, a release of this
checkout, and a command line outside.
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
from emulator.services.http_server import serving
from emulator.services.http_service import Service
from emulator.workflow_engine import execute, route_to
from tests.support.dataproc_cases import WorkflowsHere
from tests.support.releases import BUCKET, cloud_settings
from tests.support.workflow_services import JARS, Log
from workflows.releases.code_archive import build_archive, build_operator_archive
from workflows.releases.code_bucket import CodeBucket
from workflows.releases.release import publish_content
from workflows.releases.release_batches import build_batches_json
from workflows.releases.release_content import ReleaseContent, as_json, job_entry_files
from workflows.spec.release_paths import BATCHES, CODE, OPERATOR_CODE, Release, jar_name

VERSION = "d" * 40
SECONDS_OF_A_DAY = 86_400

AT_ONCE = BatchScript(pending_seconds=0, running_seconds=0, usage_delay_seconds=0)


@dataclass
class Network:
    """Settings and command line of an operator, and the log of the workflow.

    The fake dates batches to the day before.
    """

    settings: Settings
    run: WorkflowsHere
    cloud_run: FakeCloudRun
    folder: Path
    log: list[dict[str, Any]]


@contextmanager
def network(database: Settings, folder: Path, **more: Any) -> Iterator[Network]:
    """Run the network while the block runs. Containers really run; a batch follows a script.

    Args:
        database: Database in the network.
        folder: Receives all files.
        more: Settings of the release.
    """
    storage = FakeStorage(folder / "storage", [BUCKET, "acme-staging"])
    services: list[Service] = [storage]
    with serving(services) as url:
        settings = _settings(database, url, **more)
        platform = LocalPlatform(folder / "network", url, None)
        cloud_run = FakeCloudRun(BatchScript(pending_seconds=0), run=partial(_container, platform))
        password = database.db_password.get_secret_value() if database.db_password else ""
        log: list[dict[str, Any]] = []
        executions: FakeExecutions = FakeExecutions(
            lambda name, argument: _pipeline(url, executions, name, argument, log.append)
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
            yield Network(settings, run, cloud_run, folder / "network", log)
        finally:
            cloud_run.cancel_all()


def variables_of(settings: Settings) -> dict[str, str]:
    """Return the variables of a person outside; the database is not reachable from there."""
    values = settings.model_dump(include=settings.model_fields_set, exclude_none=True)
    return {
        name.upper(): str(value)
        for name, value in values.items()
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
    """Return the code of this checkout with empty jars: no tested command starts a JVM."""
    release = Release(BUCKET, VERSION, JARS)
    files = {
        CODE: build_archive(),
        OPERATOR_CODE: build_operator_archive(),
        **job_entry_files(),
        **{jar_name(jar): b"" for jar in JARS},
        BATCHES: as_json(build_batches_json(settings, release)),
    }
    return ReleaseContent(release, VERSION, files)


def _container(
    platform: LocalPlatform, name: str, arguments: list[str], variables: dict[str, str]
) -> BatchProcess:
    container_variables = {"CODE_BUCKET": BUCKET, **variables}
    return platform.run_container(CONTAINER_ENTRY, arguments, container_variables, name)


def _pipeline(url: str, executions: FakeExecutions, name: str, argument: Any, log: Log) -> Any:
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
        transport=route_to(url),
        clock=UntilCancelled(executions, name, 50),
        log=log,
    )
