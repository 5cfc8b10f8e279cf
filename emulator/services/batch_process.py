"""A batch as a real process: what the request names, downloaded from the storage double, run by
spark-submit in a folder of its own.

In: a `Batch` as the REST API's JSON. Out: a running process, its exit code, its output in one file.
The process sees nothing of the checkout: only the files, properties, arguments and driver
environment of the request, this machine's Java and the packages of this environment, which stand in
for the container image. Spark runs as local[*] whatever executors the request names: they are the
service's business.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
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
"""Every account of this machine, and every web page, reaches Spark's ports on loopback."""

END_SECONDS = 20
"""What a job gets between being asked to end and being killed."""


class BatchProcess:
    """One running job; `output` has what it said, `errors` what it said on standard error, where
    that is apart. Both are files beside its folder: what the job's account may change it could
    replace by a link to a file of ours.
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
        self.output = folder.with_name(f"{folder.name}.driveroutput")
        self.errors = folder.with_name(f"{folder.name}.errors") if errors_apart else None
        with ExitStack() as files:
            stream, errors = (
                files.enter_context(open(_emptied(path), "wb")) if path else None
                for path in (self.output, self.errors)
            )
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdout=stream,
                stderr=errors or stream,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **_rights(account),
            )
        self._ends_by: float | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs. One that was asked to end and has not is killed here;
        of one that ended only what it said is left.
        """
        code = self._process.poll()
        if code is None and self._ends_by is not None and time.monotonic() > self._ends_by:
            self._signal(signal.SIGKILL)
        if code is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return code

    def cancel(self) -> None:
        """Ask it to end; returns at once."""
        self._ends_by = time.monotonic() + END_SECONDS
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            log.debug("process group %d has ended already", self._process.pid)


class LocalPlatform:
    """Starts batches and container jobs on this machine.

    Args: folder takes a folder for each, api_url is where the doubles answer, account is whom they
    run as, None: as this process. token is what the doubles ask for: each job has it in a file of
    its own, because the caller's is closed to the account.
    """

    def __init__(
        self, folder: Path, api_url: str, account: Account | None, token: str | None = None
    ) -> None:
        self.folder = folder
        self._api_url = api_url
        self._account = account
        self._token = token

    def run_batch(self, batch: dict[str, Any], batch_id: str) -> BatchProcess:
        """Download what the request names and hand it to spark-submit. Raises: OSError where a file
        is not in its bucket.
        """
        folder = self._new_folder(batch_id)
        job = batch["pysparkBatch"]
        names = ("pythonFileUris", "jarFileUris")
        archives, jars = (
            ",".join(self._fetch(uri, folder) for uri in job.get(name, [])) for name in names
        )
        entry = self._fetch(job["mainPythonFileUri"], folder)
        properties = batch.get("runtimeConfig", {}).get("properties", {})
        (folder / "spark.conf").write_text(
            "".join(f"{name} {_escaped(value)}\n" for name, value in properties.items()),
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
        command += [word for setting in CLOSED_SPARK for word in ("--conf", setting)]
        command += [
            word
            for option, files in (("--py-files", archives), ("--jars", jars))
            if files
            for word in (option, files)
        ]
        given = {
            name.removeprefix(DRIVER_VARIABLE): value
            for name, value in properties.items()
            if name.startswith(DRIVER_VARIABLE)
        }
        return self._start(
            [*command, entry, *job.get("args", [])], folder, given | {"SPARK_HOME": str(spark)}
        )

    def run_container(
        self, entry: Path, arguments: list[str], variables: Mapping[str, str], name: str
    ) -> BatchProcess:
        """Run a container's entry, copied out of the checkout, with a container's variables."""
        folder = self._new_folder(name)
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
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "JAVA_HOME": str(find_java()),
            "PYSPARK_PYTHON": sys.executable,
            # in place of the names and the network by which a machine of Google's finds Google
            "GOOGLE_API_ENDPOINT": self._api_url,
            # Java takes the home from the list of users, where an account without rights may have
            # none
            "SPARK_SUBMIT_OPTS": f"-Duser.home={folder / 'home'}",
            # the address of a machine on a network of its own may be unknown to its resolver
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        if self._token:
            write_private(folder / "access_token", self._token)
            environment["GOOGLE_API_TOKEN_FILE"] = str(folder / "access_token")
        if self._account:
            change_owner(folder, self._account.uid, self._account.gid)
        return BatchProcess(
            command,
            folder,
            environment | dict(variables),
            self._account,
            errors_apart=errors_apart,
        )

    def _new_folder(self, name: str) -> Path:
        batches = self.folder / "batches"
        batches.mkdir(parents=True, exist_ok=True)
        # the account passes through, and lists and changes nothing in it
        batches.chmod(0o711 if self._account else 0o700)
        folder = batches / name
        shutil.rmtree(folder, ignore_errors=True)  # of a cloud that was killed
        folder.mkdir(mode=0o700)
        for inner in ("home", "tmp"):
            private_folder(folder / inner)
        return folder

    def _fetch(self, uri: str, folder: Path) -> str:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        target = folder / name.rpartition("/")[2]
        url = f"{self._api_url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
        sent = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        with urlopen(Request(url, headers=sent)) as answer, target.open("wb") as stream:
            shutil.copyfileobj(answer, stream)
        return str(target)


def spark_home() -> Path:
    """The Spark that the pyspark wheel brings; found without importing it. Raises:
    EnvironmentNotReady.
    """
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise EnvironmentNotReady(
            "pyspark is not installed in this environment; run `python run_spark_local.py doctor`"
        )
    return Path(spec.origin).parent


def batch_account() -> Account | None:
    """Whom batches run as when the caller is root: an account without rights, as in the service's
    containers, where it can reach this Python.

    None: they run as this process does. The containers' own number, 1099, has no name here, and
    Hadoop takes no user without one.
    """
    account = server_account()
    if account is None:
        return None
    question = [sys.executable, "-c", "import pydantic"]
    try:
        subprocess.run(
            question, cwd="/", env={}, capture_output=True, check=True, **_rights(account)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return account


def _emptied(path: Path) -> int:
    """A descriptor to write to a new file in the place of an earlier batch's of this name."""
    path.unlink(missing_ok=True)
    return create_exclusively(path)


def _rights(account: Account | None) -> dict[str, Any]:
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def _escaped(value: str) -> str:
    """As java.util.Properties reads it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
