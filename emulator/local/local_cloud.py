"""The emulated cloud of `local run` and `local up`: all fakes at one address, real processes for
batches and containers, and the settings that direct commands to it. It uses the database of the
settings, or its own in the embedded server. Releases, models and outputs stay in
YIELDSPARK_HOME/cloud.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from common.errors import EnvironmentNotReady
from common.files import take_lock
from common.private_files import change_owner, private_folder, write_private
from common.registry_address import sqlite_uri
from config_spark import Settings
from database.connections.engine import make_engine
from database.embedded.folders import Account, system_folder
from database.embedded.resolve import resolve_database
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.batch_process import BatchProcess, LocalPlatform, batch_account
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions, UntilCancelled
from emulator.services.fake_logging import FakeLogging
from emulator.services.fake_secret_manager import FakeSecretManager
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.http_service import Service
from emulator.services.object_store import Conditions
from emulator.workflow_engine import Transport, execute, route_to

if TYPE_CHECKING:
    from emulator.services.fake_monitoring import FakeMonitoring

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "workflows" / "pipeline.yaml"
DESCRIPTORS = ROOT / "terraform" / "metric_descriptors.json"
CONTAINER_ENTRY = ROOT / "container" / "cloud_run_entry.py"

DATABASE = "yieldspark_cloud"
"""Separate from the demo's database in the same server, so that the emulator never changes
user data.
"""

PROJECT, REGION, WORKFLOW = "local-cloud", "europe-west1", "yieldspark-pipeline"
CODE_BUCKET, STAGING_BUCKET = "local-cloud-code", "local-cloud-staging"
SECRET = f"projects/{PROJECT}/secrets/database-password/versions/1"

SPEED_UP = 10.0
"""Divisor of the workflow's waits: a local batch starts in a second instead of a minute."""

POLL_SECONDS = 0.5
"""Interval between polls of the processes."""


LOCAL_BATCH = BatchScript(pending_seconds=1, usage_delay_seconds=2)


def log_line(entry: dict[str, Any]) -> None:
    """Log one event of the workflow; the batch's name shows job and execution."""
    event = entry.get("jsonPayload") or {}
    fields = (event.get(name) for name in ("event", "batch", "state", "message"))
    log.info("workflow: %s", " ".join(str(field) for field in fields if field) or entry)


@dataclass(frozen=True)
class Rehearsal:
    """What a caller may set in the emulator, such as a clock that is not this machine's.

    Attributes:
        now: Clock of the services, in seconds since the epoch.
        job_variables: Returns further variables of a job's environment, when it starts.
        log: Receives each log entry of the workflow.
        speed_up: Divisor of the workflow's waits.
        batch_script: Returns the behaviour of a batch by its id, as FakeDataproc takes it.
    """

    now: Callable[[], float] = time.time
    job_variables: Callable[[], Mapping[str, str]] = dict
    log: Callable[[dict[str, Any]], None] = log_line
    speed_up: float = SPEED_UP
    batch_script: Callable[[str], BatchScript] = lambda _: LOCAL_BATCH


@dataclass(frozen=True)
class LocalCloud:
    """A running emulator.

    Attributes:
        url: Address of all services.
        variables: Environment that directs a command to it. It has no secret: the token is in a
            file that only this account can read.
        database: Settings of its database.
        dataproc: The service of its batches.
        monitoring: Cloud Monitoring, with the points of its jobs.
    """

    url: str
    variables: Mapping[str, str]
    database: Settings
    dataproc: FakeDataproc
    monitoring: FakeMonitoring

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the variables and the database password, for
        commands on this machine.
        """
        password = self.database.db_password.get_secret_value() if self.database.db_password else ""
        home = str(self.database.yieldspark_home)
        return {**os.environ, **self.variables, "YIELDSPARK_HOME": home, "DB_PASSWORD": password}


@contextmanager
def local_cloud(
    settings: Settings, port: int = 0, rehearsal: Rehearsal | None = None
) -> Iterator[LocalCloud]:
    """Run the emulator while the block runs.

    Args:
        settings: The user's settings.
        port: TCP port; 0 selects a free one.
        rehearsal: Clock, variables and log; default: this machine's, none, and the program's.

    Raises:
        EnvironmentNotReady: Another emulator uses this home.
        DatabaseError: The database cannot be reached.
        OSError: The port is in use.
    """
    folder = settings.yieldspark_home / "cloud"
    with exclusive_folder(folder):
        database = cloud_database(settings)
        with _services(database, folder, port, rehearsal or Rehearsal()) as cloud:
            yield cloud


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs. Two emulators would store buckets in one folder and each
    would know only its own objects.

    Raises:
        EnvironmentNotReady: Another emulator uses it.
    """
    try:
        descriptor = take_lock(private_folder(folder), seconds=0)
    except TimeoutError:
        raise EnvironmentNotReady(
            f"another local cloud uses {folder}: end it (Ctrl-C), or set YIELDSPARK_HOME to"
            " another folder"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _services(
    database: Settings, folder: Path, port: int, rehearsal: Rehearsal
) -> Iterator[LocalCloud]:
    storage = FakeStorage(folder / "storage", [CODE_BUCKET, STAGING_BUCKET])
    services: list[Service] = [storage]
    with (
        _new_token(folder) as (token, token_file),
        serving(services, port, token=token) as url,
        _monitoring(token, rehearsal.now) as (monitoring, monitoring_variables),
    ):
        account = batch_account()
        platform = LocalPlatform(
            open_folder(folder, account),
            url,
            account,
            token,
            more=lambda: {**monitoring_variables, **rehearsal.job_variables()},
        )
        variables = (
            _variables(database, url, platform.folder)
            | token_variables(url, token_file)
            | monitoring_variables
        )
        password = database.db_password.get_secret_value() if database.db_password else ""
        dataproc = FakeDataproc(
            rehearsal.batch_script,
            now=rehearsal.now,
            run=platform.run_batch,
            write_output=partial(_put, storage),
        )
        cloud_run = FakeCloudRun(
            BatchScript(pending_seconds=0),
            now=rehearsal.now,
            run=partial(_run_container, platform),
        )
        # annotated: the lambda below refers to it
        executions: FakeExecutions = FakeExecutions(
            run=lambda execution, argument: _run_pipeline(
                route_to(url, token), executions, execution, argument, rehearsal
            ),
            now=rehearsal.now,
        )
        # added after the server has started: these services need its address
        services += [
            dataproc,
            cloud_run,
            executions,
            FakeSecretManager({SECRET: password.encode()}),
        ]
        services.append(FakeLogging(cloud_run.lines))
        with polling(dataproc, cloud_run):
            yield LocalCloud(url, variables, database, dataproc, monitoring)


@contextmanager
def _monitoring(
    token: str, now: Callable[[], float]
) -> Iterator[tuple[FakeMonitoring, dict[str, str]]]:
    """Serve Cloud Monitoring with Terraform's descriptors; yield it, and the variables that make a
    job write to it.
    """
    # gRPC and Google's types take a second, which other commands do not need
    from emulator.services.fake_monitoring import FakeMonitoring, read_descriptors

    def refusal(authorization: str) -> str | None:
        is_ours = secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode())
        return None if is_ours else "Request had invalid authentication credentials."

    monitoring = FakeMonitoring(
        read_descriptors(DESCRIPTORS),
        now=lambda: datetime.fromtimestamp(now(), UTC),
        refusal=refusal,
    )
    with monitoring.listening() as address:
        variables = {"MONITORING_EMITTER": "cloud_monitoring", "MONITORING_ENDPOINT": address}
        yield monitoring, variables


@contextmanager
def _new_token(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write a token to a file, which is deleted when the block ends."""
    token, path = secrets.token_urlsafe(32), folder / "access_token"
    write_private(path, token)
    try:
        yield token, path
    finally:
        path.unlink(missing_ok=True)


def token_variables(url: str, token_file: Path) -> dict[str, str]:
    """Return the variables that make the product's clients and gcloud send the token, and direct
    gcloud to the services.
    """
    return {
        "GOOGLE_API_TOKEN_FILE": str(token_file),
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(token_file),
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAPROC": f"{url}/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": f"{url}/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{url}/storage/v1/",
    }


def _run_container(
    platform: LocalPlatform, name: str, arguments: list[str], variables: dict[str, str]
) -> BatchProcess:
    container_variables = {"CODE_BUCKET": CODE_BUCKET, **variables}
    return platform.run_container(CONTAINER_ENTRY, arguments, container_variables, name)


def _run_pipeline(
    transport: Transport,
    executions: FakeExecutions,
    execution_id: str,
    argument: Any,
    rehearsal: Rehearsal,
) -> Any:
    environment = {
        "GOOGLE_CLOUD_PROJECT_ID": PROJECT,
        "GOOGLE_CLOUD_LOCATION": REGION,
        "GOOGLE_CLOUD_WORKFLOW_ID": WORKFLOW,
        "GOOGLE_CLOUD_WORKFLOW_EXECUTION_ID": execution_id,
        "CODE_BUCKET": CODE_BUCKET,
    }
    source = PIPELINE.read_text(encoding="utf-8")
    return execute(
        source,
        argument,
        environment=environment,
        transport=transport,
        clock=UntilCancelled(executions, execution_id, rehearsal.speed_up),
        log=rehearsal.log,
    )


def _put(storage: FakeStorage, uri: str, content: bytes) -> None:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    storage.store.write(bucket, name, content, {"contentType": "text/plain"}, Conditions(), {})


def cloud_database(settings: Settings) -> Settings:
    """Return the user's database if DB_HOST is set, else the emulator's own in the embedded server.
    A job or `db migrate` creates its tables, as in the cloud.
    """
    ready = resolve_database(settings)
    if not settings.db_host:
        # CREATE DATABASE cannot run inside a transaction
        admin = make_engine(ready.model_copy(update={"db_name": "postgres"})).execution_options(
            isolation_level="AUTOCOMMIT"
        )
        with admin.connect() as connection:
            if not connection.execute(
                text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": DATABASE}
            ).first():
                connection.execute(text(f"CREATE DATABASE {DATABASE}"))
        ready = ready.model_copy(update={"db_name": DATABASE})
    return ready


def _variables(database: Settings, url: str, folder: Path) -> dict[str, str]:
    """Return the environment of the operator's machine, the batches and the container jobs."""
    return {
        "GOOGLE_API_ENDPOINT": url,
        "PROJECT_ID": PROJECT,
        "REGION": REGION,
        "WORKFLOW_NAME": WORKFLOW,
        "CODE_BUCKET": CODE_BUCKET,
        "STAGING_BUCKET": STAGING_BUCKET,
        "BATCH_SERVICE_ACCOUNT": f"yieldspark-batch@{PROJECT}.iam.gserviceaccount.com",
        "BATCH_SUBNETWORK": "yieldspark",
        "CONTAINER_IMAGE": f"{REGION}-docker.pkg.dev/{PROJECT}/yieldspark/batch@sha256:{'0' * 64}",
        "DB_HOST": str(database.db_host),
        "DB_PORT": str(database.db_port),
        "DB_NAME": database.db_name,
        "DB_USER": database.db_user,
        "DB_SSLMODE": database.db_sslmode,
        **({"DB_SSLROOTCERT": str(database.db_sslrootcert)} if database.db_sslrootcert else {}),
        "DB_PASSWORD_SECRET": SECRET,
        "MLFLOW_TRACKING_URI": sqlite_uri(folder / "models" / "mlflow.db"),
        "MLFLOW_ARTIFACTS_URI": (folder / "models" / "artifacts").as_uri(),
    }


def open_folder(home: Path, account: Account | None) -> Path:
    """Create the folder of batches and models: in the home, or in root's own system folder if
    batches run under another account, which cannot enter root's home.

    Raises:
        EnvironmentNotReady: The system folder belongs to somebody else.
    """
    if account is None:
        private_folder(home / "models")
        return home
    folder = system_folder() / f"cloud-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    # not followed: another account may have put a link here
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise EnvironmentNotReady(
            f"{folder} is not a folder of root's, and batches would run in it; delete it"
        )
    # the account may pass through the folder, but not list it
    folder.chmod(0o711)
    models = folder / "models"
    models.mkdir(mode=0o700, exist_ok=True)
    change_owner(models, account.uid, account.gid)
    return folder


@contextmanager
def polling(*fakes: FakeDataproc | FakeCloudRun) -> Iterator[None]:
    """Advance fakes while the block runs, so that ended and overdue jobs are noticed between
    requests; then cancel the remaining jobs.
    """

    def advance_all() -> None:
        for fake in fakes:
            fake.advance()

    try:
        with repeated(advance_all, POLL_SECONDS):
            yield
    finally:
        for fake in fakes:
            fake.cancel_all()


@contextmanager
def repeated(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call an action at an interval, in a thread, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
