"""Runs a batch or a container job as a real process of this machine, in a folder of its own. The
process sees only the request's files, properties, arguments and driver environment, this machine's
Java with its SPARK_SUBMIT_OPTS, and this environment's packages in place of the image. Spark runs
as local[*], whatever executors the request has.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from common.errors import EnvironmentNotReady
from common.private_files import change_owner, create_exclusively, private_folder, write_private
from database.embedded.folders import Account, server_account
from local_runtime.java import find_java
from workflows.spec.batch_request import DRIVER_VARIABLE

log = logging.getLogger(__name__)

CLOSED_SPARK = ("spark.authenticate=true", "spark.ui.enabled=false")
"""Spark's ports on loopback are open to every account and web page of this machine."""

END_SECONDS = 20
"""Time of a job between SIGTERM and SIGKILL."""


class BatchProcess:
    """One running job.

    Attributes:
        output: File of its output, and of its standard error unless that is separate.
        errors: File of its standard error, if separate.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str],
        account: Account | None,
        *,
        errors_apart: bool = False,
    ) -> None:
        self._folder = folder
        # next to its folder: the job's account could replace a file inside by a link to ours
        self.output = folder.with_name(f"{folder.name}.driveroutput")
        self.errors = folder.with_name(f"{folder.name}.errors") if errors_apart else None
        with ExitStack() as files:
            stream, errors = (
                files.enter_context(open(_open_new(path), "wb")) if path else None
                for path in (self.output, self.errors)
            )
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdout=stream,
                stderr=errors or stream,
                stdin=subprocess.DEVNULL,
                # a cancel ends the whole group: spark-submit, its JVM and Python workers
                start_new_session=True,
                **_rights(account),
            )
        self._ends_by: float | None = None
        self._is_over = False

    def poll(self) -> int | None:
        """Return the exit code; None while it runs. Kills a process that did not end after a
        cancel, the children of one that has ended, and deletes its folder.
        """
        code = self._process.poll()
        if code is None and self._ends_by is not None and time.monotonic() > self._ends_by:
            self._signal(signal.SIGKILL)
        if code is not None and not self._is_over:
            self._is_over = True
            # a container ends with its first process, also if that one was killed
            self._signal(signal.SIGKILL)
            shutil.rmtree(self._folder, ignore_errors=True)
        return code

    def cancel(self) -> None:
        """Request its end; returns at once."""
        self._ends_by = time.monotonic() + END_SECONDS
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            log.debug("process group %d has ended already", self._process.pid)


class LocalPlatform:
    """Starts batches and container jobs on this machine.

    Args:
        folder: Receives a folder for each job.
        api_url: Address of the fakes.
        account: Account of the jobs; None: this process's.
        token: Token of the fakes. Each job gets its own file, because the caller's is closed to the
            account.
        more: Returns further variables of a job's environment, when it starts.
    """

    def __init__(
        self,
        folder: Path,
        api_url: str,
        account: Account | None,
        token: str | None = None,
        *,
        more: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.folder = folder
        self._api_url = api_url
        self._account = account
        self._token = token
        self._more = more

    def run_batch(self, batch: dict[str, Any], batch_id: str) -> BatchProcess:
        """Download the request's files and run them with spark-submit.

        Raises:
            OSError: A file is not in its bucket.
        """
        folder = self._new_folder(batch_id)
        job = batch["pysparkBatch"]
        archives = self._fetch_all(job.get("pythonFileUris", []), folder)
        jars = self._fetch_all(job.get("jarFileUris", []), folder)
        entry = self._fetch(job["mainPythonFileUri"], folder)
        properties = batch.get("runtimeConfig", {}).get("properties", {})
        (folder / "spark.conf").write_text(
            "".join(f"{name} {_escape(value)}\n" for name, value in properties.items()),
            encoding="utf-8",
        )
        spark = spark_home()
        command = [str(spark / "bin" / "spark-submit"), "--master", "local[*]", "--name", batch_id]
        command += [
            "--properties-file",
            str(folder / "spark.conf"),
            "--conf",
            f"spark.local.dir={folder / 'tmp'}",
        ]
        # behind the properties file: --conf takes precedence, so a request cannot open the ports
        for setting in CLOSED_SPARK:
            command += ["--conf", setting]
        for option, files in (("--py-files", archives), ("--jars", jars)):
            if files:
                command += [option, files]
        driver_variables = {
            name.removeprefix(DRIVER_VARIABLE): value
            for name, value in properties.items()
            if name.startswith(DRIVER_VARIABLE)
        }
        return self._start(
            [*command, entry, *job.get("args", [])],
            folder,
            driver_variables | {"SPARK_HOME": str(spark)},
        )

    def run_container(
        self, entry: Path, arguments: list[str], variables: Mapping[str, str], name: str
    ) -> BatchProcess:
        """Run a container's entry, copied out of the checkout, with a container's variables."""
        folder = self._new_folder(name)
        # out of the checkout: Python puts a script's folder on sys.path
        copied = str(shutil.copy(entry, folder))
        return self._start(
            [sys.executable, copied, *arguments], folder, variables, errors_apart=True
        )

    def _start(
        self,
        command: list[str],
        folder: Path,
        variables: Mapping[str, str],
        *,
        errors_apart: bool = False,
    ) -> BatchProcess:
        # built from nothing, so that no variable of this process reaches the job
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "JAVA_HOME": str(find_java()),
            "PYSPARK_PYTHON": sys.executable,
            # replaces Google's host names
            "GOOGLE_API_ENDPOINT": self._api_url,
            # this machine's options of Spark's JVM, then ours: the last one counts. Java reads the
            # home from the user database, where an unprivileged account may have none
            "SPARK_SUBMIT_OPTS": (
                f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} -Duser.home={folder / 'home'}".strip()
            ),
            # an isolated machine may not resolve its own host name
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        if self._token:
            write_private(folder / "access_token", self._token)
            environment["GOOGLE_API_TOKEN_FILE"] = str(folder / "access_token")
        # last: the folder has all of its files now
        if self._account:
            change_owner(folder, self._account.uid, self._account.gid)
        return BatchProcess(
            command,
            folder,
            environment | dict(variables) | dict(self._more()),
            self._account,
            errors_apart=errors_apart,
        )

    def _new_folder(self, name: str) -> Path:
        batches = self.folder / "batches"
        batches.mkdir(parents=True, exist_ok=True)
        # the account may enter the folder, but not list or change it
        batches.chmod(0o711 if self._account else 0o700)
        folder = batches / name
        # left by a killed emulator
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        for inner in ("home", "tmp"):
            private_folder(folder / inner)
        return folder

    def _fetch_all(self, uris: list[str], folder: Path) -> str:
        """Download files; return their paths, separated by commas."""
        return ",".join(self._fetch(uri, folder) for uri in uris)

    def _fetch(self, uri: str, folder: Path) -> str:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        target = folder / name.rpartition("/")[2]
        url = f"{self._api_url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        with urlopen(Request(url, headers=headers)) as response, target.open("wb") as stream:
            shutil.copyfileobj(response, stream)
        return str(target)


def spark_home() -> Path:
    """Return the Spark of the pyspark package, without importing it.

    Raises:
        EnvironmentNotReady: pyspark is not installed.
    """
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise EnvironmentNotReady(
            "pyspark is not installed in this environment; run `python run_spark_local.py doctor`"
        )
    return Path(spec.origin).parent


def batch_account() -> Account | None:
    """Return the unprivileged account of batches if the caller is root and the account can run this
    Python; else None: they run as this process. The containers' own id 1099 has no name here, and
    Hadoop rejects a user without one.
    """
    account = server_account()
    if account is None:
        return None
    # a package of the environment, which the account may be unable to read
    command = [sys.executable, "-c", "import pydantic"]
    try:
        subprocess.run(
            command, cwd="/", env={}, capture_output=True, check=True, **_rights(account)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return account


def _open_new(path: Path) -> int:
    """Replace a file by a new one and return a descriptor to write it."""
    path.unlink(missing_ok=True)
    return create_exclusively(path)


def _rights(account: Account | None) -> dict[str, Any]:
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def _escape(value: str) -> str:
    """Escape a value for java.util.Properties."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
