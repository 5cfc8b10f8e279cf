"""The cloud on this machine: all doubles at one address, and the settings with which every command
of the product finds it.

In: the user's settings. Out: an address where releases are kept, batches and container jobs really
run and `pipeline.yaml` is executed, on the database of the settings, or on one of its own in the
embedded server. Releases, models and outputs stay in YIELDSPARK_HOME/cloud between runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
from emulator.services.http_service import Service, serving
from emulator.services.object_store import Conditions
from emulator.workflow_engine import Transport, execute, hosts_at

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "workflows" / "pipeline.yaml"
CONTAINER_ENTRY = ROOT / "container" / "cloud_run_entry.py"

DATABASE = "yieldspark_cloud"
"""Beside the demo's own, in the same embedded server: trying the cloud changes nothing of what the
user has.
"""

PROJECT, REGION, WORKFLOW = "local-cloud", "europe-west1", "yieldspark-pipeline"
CODE_BUCKET, STAGING_BUCKET = "local-cloud-code", "local-cloud-staging"
SECRET = f"projects/{PROJECT}/secrets/database-password/versions/1"

FASTER = 10.0
"""A wait of the workflow takes a tenth here: a local batch starts in a second, and not in a minute.
"""

LOOK_SECONDS = 0.5
"""Between two looks at the processes of the batches."""


@dataclass(frozen=True)
class LocalCloud:
    """Where it is: the address, and the variables that lead a command there. No secret is among
    these: the token is in a file that only this account may read.
    """

    url: str
    variables: Mapping[str, str]
    database: Settings

    def environment(self) -> dict[str, str]:
        """This process's environment with the variables, and the password in place of its name: for
        commands on this machine.
        """
        password = self.database.db_password.get_secret_value() if self.database.db_password else ""
        home = str(self.database.yieldspark_home)
        return {**os.environ, **self.variables, "YIELDSPARK_HOME": home, "DB_PASSWORD": password}


@contextmanager
def local_cloud(settings: Settings, port: int = 0) -> Iterator[LocalCloud]:
    """The cloud while the block runs. Args: port 0 takes a free one.

    Raises: EnvironmentNotReady (another one of this home runs), DatabaseError, OSError where the
    port is taken.
    """
    folder = settings.yieldspark_home / "cloud"
    with alone_in(folder):
        database = cloud_database(settings)
        with _services(database, folder, port) as cloud:
            yield cloud


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two would keep their buckets in one folder, and each would know only its own objects."""
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
def _services(database: Settings, folder: Path, port: int) -> Iterator[LocalCloud]:
    storage = FakeStorage(folder / "storage", [CODE_BUCKET, STAGING_BUCKET])
    services: list[Service] = [storage]
    with _new_token(folder) as (token, token_file), serving(services, port, token=token) as url:
        account = batch_account()
        platform = LocalPlatform(open_folder(folder, account), url, account, token)
        variables = _variables(database, url, platform.folder) | token_variables(url, token_file)
        password = database.db_password.get_secret_value() if database.db_password else ""
        dataproc = FakeDataproc(
            BatchScript(pending_seconds=1, usage_delay_seconds=2),
            run=platform.run_batch,
            write_output=partial(_put, storage),
        )
        cloud_run = FakeCloudRun(
            BatchScript(pending_seconds=0), run=partial(_run_container, platform)
        )
        executions: FakeExecutions = FakeExecutions(
            run=lambda execution, argument: _run_pipeline(
                hosts_at(url, token), executions, execution, argument
            )
        )
        # the address has to be known first: the others hand it on
        services += [
            dataproc,
            cloud_run,
            executions,
            FakeSecretManager({SECRET: password.encode()}),
        ]
        services.append(FakeLogging(cloud_run.lines))
        with looking_at(dataproc, cloud_run):
            yield LocalCloud(url, variables, database)


@contextmanager
def _new_token(folder: Path) -> Iterator[tuple[str, Path]]:
    """A token for this cloud's life, and the file that has it."""
    token, path = secrets.token_urlsafe(32), folder / "access_token"
    write_private(path, token)
    try:
        yield token, path
    finally:
        path.unlink(missing_ok=True)


def token_variables(url: str, token_file: Path) -> dict[str, str]:
    """What makes the product's own clients and gcloud send the token, and lets gcloud find the
    services here that it can be led to.
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
    given = {"CODE_BUCKET": CODE_BUCKET, **variables}
    return platform.run_container(CONTAINER_ENTRY, arguments, given, name)


def _run_pipeline(
    transport: Transport, executions: FakeExecutions, execution_id: str, argument: Any
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
        clock=UntilCancelled(executions, execution_id, FASTER),
        log=log_line,
    )


def _put(storage: FakeStorage, uri: str, content: bytes) -> None:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    storage.store.write(bucket, name, content, {"contentType": "text/plain"}, Conditions(), {})


def cloud_database(settings: Settings) -> Settings:
    """The user's own database where DB_HOST names it, else one of the local cloud's own in the
    embedded server. Its tables are made as in the cloud, by a job or by `db migrate`.
    """
    ready = resolve_database(settings)
    if not settings.db_host:
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
    """What the operator's machine, the batches and the container jobs have in their environment."""
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
    """Where batches and models are: in the home, and where batches run under another account, to
    which root's home is closed, in root's own folder beside the system's other state.
    """
    if account is None:
        private_folder(home / "models")
        return home
    folder = system_folder() / f"cloud-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise EnvironmentNotReady(
            f"{folder} is not a folder of root's, and batches would run in it; delete it"
        )
    folder.chmod(0o711)
    models = folder / "models"
    models.mkdir(mode=0o700, exist_ok=True)
    change_owner(models, account.uid, account.gid)
    return folder


@contextmanager
def looking_at(*doubles: FakeDataproc | FakeCloudRun) -> Iterator[None]:
    """Jobs go on between two requests: someone has to notice that they ended, or went over their
    ttl. None outlives the block.
    """

    def look() -> None:
        for double in doubles:
            double.advance()

    try:
        with repeated(look, LOOK_SECONDS):
            yield
    finally:
        for double in doubles:
            double.cancel_all()


@contextmanager
def repeated(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call the action every so many seconds, in a thread of its own, until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def log_line(entry: dict[str, Any]) -> None:
    """One event of the workflow, as one reads it: the batch's name says which job and which
    execution.
    """
    event = entry.get("jsonPayload") or {}
    words = (event.get(name) for name in ("event", "batch", "state", "message"))
    log.info("workflow: %s", " ".join(str(word) for word in words if word) or entry)
