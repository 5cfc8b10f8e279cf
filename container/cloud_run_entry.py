"""What the container of a Cloud Run job starts: it fetches a release, checks every file against the
manifest, and becomes the release's job, or a command of its operator.

    cloud_run_entry.py JOB [--version VERSION] [what the job takes ...]
    cloud_run_entry.py operator [--version VERSION] -- db migrate

In: the release's files in CODE_BUCKET; without `--version` the one that latest.json names. Out:
this process is the job or the command, on the release's zip alone, so that signals and the exit
code are its own. Before that it ends with 1 where the release can't be had, 2 for wrong use, 130 on
SIGTERM. An image is older than the releases that it runs: this file is all of the product that is
in it, and needs google-cloud-storage and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Bucket, Client  # type: ignore[import-untyped]
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]
from google.oauth2.credentials import Credentials as AccessToken
from requests import RequestException

LATEST = "latest.json"
MANIFEST = "manifest.json"
CODE = "yieldspark.zip"
OPERATOR = "operator"
OPERATOR_CODE = "operator.zip"
OPERATOR_FOLDER = "operator_code"
VARIABLES = "operator_variables"
BATCHES = "batches.json"
JARS = "jars/"
VERSION = re.compile(r"[a-z0-9-]{7,60}")
JAR = re.compile(r"jars/[A-Za-z0-9._-]+\.jar")
"""What is written to the folder of the jars, and to no other."""

RETRY_SECONDS = 60.0
"""How long an object is asked for while the service does not answer."""

NETWORK_SECONDS = 90.0
"""How long the database's address is tried. Direct VPC egress may need a minute and more before a
new instance's packets arrive (https://cloud.google.com/run/docs/configuring/vpc-direct-vpc).
"""

NO_BUCKET = "The specified bucket does not exist"
"""Cloud Storage's words; a missing object is a 404 too."""

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130

DEFAULTS = {"ENVIRONMENT": "production", "SPARK_MASTER": "local[*]"}
"""Of the job's variables. What the release says wins over them, and what the container's
environment says over both.
"""

DRIVER_VARIABLE = "spark.dataproc.driverEnv."
OF_A_BATCH = {"ENGINE", "MODEL_THREADS"}
"""Of a batch's variables those that this container has otherwise: the engine as an argument, the
threads from its own cores.
"""

Read = Callable[[str], bytes | None]
"""An object's bytes, by name; None where there is none."""


class NotStarted(Exception):
    """The job can't be started; the message is for the operator."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the job; returns the exit code only where that fails."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options, job_arguments = _parser().parse_known_args(arguments)
    try:
        folder, version = fetch(
            reader(os.environ),
            options.job,
            options.version,
            Path(tempfile.mkdtemp(prefix="yieldspark-")),
        )
        _become(folder, version, options.job, job_arguments)
    except NotStarted as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before the job began: nothing was changed\n")
        return INTERRUPTED
    return FAILED


def fetch(read: Read, job: str, version: str | None, folder: Path) -> tuple[Path, str]:
    """Put the job's files of a release into the folder, every one with the manifest's sha256;
    returns the folder and the version.

    Raises: NotStarted (unknown version or job, a file that is missing or another one, a service
    that does not answer).
    """
    expected = None
    if version is None:
        version, expected = _latest(read)
    if not VERSION.fullmatch(version):
        raise NotStarted(
            f"{version!r} is no version: allowed is what `python -m workflows versions` lists",
            WRONG_USE,
        )
    content = read(f"versions/{version}/{MANIFEST}")
    if content is None:
        raise NotStarted(
            f"version {version} is not in the bucket: `python -m workflows versions` lists those"
            " that are",
            WRONG_USE,
        )
    if expected:
        _compare(f"versions/{version}/{MANIFEST}", content, expected, LATEST)
    files = _document(f"versions/{version}/{MANIFEST}", content, "files")["files"]
    if not files.keys() >= set(_code_of(job)):
        raise NotStarted(
            f"version {version} has no job {job!r}: it has {', '.join(_jobs_in(files))}", WRONG_USE
        )
    jars = [name for name in files if name.startswith(JARS)]
    strange = [name for name in jars if not JAR.fullmatch(name)]
    if strange:
        raise NotStarted(
            f"version {version} is refused: {strange[0]!r} in its {MANIFEST} is no jar's name"
        )
    for name in [*_code_of(job), BATCHES, *jars]:
        _save(read, f"versions/{version}/{name}", files[name]["sha256"], folder / name)
    return folder, version


def _code_of(job: str) -> list[str]:
    """The files of a release that a job's code is in."""
    return [OPERATOR_CODE] if job == OPERATOR else [CODE, f"{job}.py"]


def _jobs_in(files: Mapping[str, Any]) -> list[str]:
    jobs = sorted(name.removesuffix(".py") for name in files if name.endswith(".py"))
    return [*jobs, *([OPERATOR] if OPERATOR_CODE in files else [])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cloud_run_entry.py",
        allow_abbrev=False,
        epilog="All other arguments are the job's own.",
    )
    parser.add_argument(
        "job",
        metavar="JOB",
        type=_job_name,
        help="an entry of the release: the name of a job, or `operator`",
    )
    parser.add_argument("--version", help="the release to run; default: the latest")
    return parser


def _job_name(text: str) -> str:
    if not re.fullmatch(r"[a-z_]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no job's name")
    return text


def _latest(read: Read) -> tuple[str, str]:
    content = read(LATEST)
    if content is None:
        raise NotStarted(
            f"the bucket has no {LATEST}: release a version with `python -m workflows release`, or"
            " give one with --version"
        )
    latest = _document(LATEST, content, "version", "manifest_sha256")
    return latest["version"], latest["manifest_sha256"]


def _save(read: Read, name: str, expected: str, target: Path) -> None:
    content = read(name)
    if content is None:
        raise NotStarted(
            f"{name} is in the manifest and not in the bucket: release again, or give an earlier"
            " --version"
        )
    _compare(name, content, expected, MANIFEST)
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)


def _compare(name: str, content: bytes, expected: str, witness: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise NotStarted(
            f"{name} is refused: its sha256 is {found}, and {witness} says {expected}; release"
            " again, or give an earlier --version"
        )


def _document(name: str, content: bytes, *fields: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
        return {field: document[field] for field in fields}
    except (ValueError, KeyError, TypeError) as error:
        raise NotStarted(
            f"{name} is no document with {', '.join(fields)} ({error!r}); release again, or give an"
            " earlier --version"
        ) from None


def reader(variables: Mapping[str, str]) -> Read:
    """Reads from CODE_BUCKET, at GOOGLE_API_ENDPOINT where it stands in for Google."""
    name, url = variables.get("CODE_BUCKET"), variables.get("GOOGLE_API_ENDPOINT")
    if not name:
        raise NotStarted(
            "CODE_BUCKET is not set: give the Cloud Run job the bucket of the releases, a bare"
            " name",
            WRONG_USE,
        )
    given: dict[str, Any] = {}
    if url:
        given = {
            "credentials": _credentials(variables.get("GOOGLE_API_TOKEN_FILE")),
            "client_options": {"api_endpoint": url},
        }
    retry = DEFAULT_RETRY.with_timeout(RETRY_SECONDS)

    @cache
    def bucket() -> Bucket:
        # a project is for making and listing buckets
        return Client(project=None, **given).bucket(name)

    def read(path: str) -> bytes | None:
        where = f"gs://{name}/{path}"
        try:
            return bytes(bucket().blob(path).download_as_bytes(retry=retry))
        except exceptions.NotFound as error:
            if NO_BUCKET in error.message:
                raise NotStarted(
                    f"CODE_BUCKET={name} does not exist: give the Cloud Run job the bucket of the"
                    " releases",
                    WRONG_USE,
                ) from None
            return None
        except exceptions.ClientError as error:
            raise NotStarted(
                f"{where}: Google Cloud refused: {error.message}; may the job's service account"
                " read the bucket?"
            ) from None
        except (exceptions.GoogleAPIError, RequestException) as error:
            raise NotStarted(
                f"{where}: Google Cloud does not answer: {error}; start the job again in some"
                " minutes"
            ) from None
        except GoogleAuthError as error:
            raise NotStarted(
                f"{where}: no valid credentials: {error}; a Cloud Run job has those of its service"
                " account"
            ) from None

    return read


def _credentials(token_file: str | None) -> Credentials:
    """Those for what stands in for Google. Raises: NotStarted."""
    if not token_file:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    try:
        token = Path(token_file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise NotStarted(
            f"GOOGLE_API_TOKEN_FILE={token_file} can't be read: {error}; give it a file with the"
            " token of GOOGLE_API_ENDPOINT",
            WRONG_USE,
        ) from None
    return AccessToken(token)  # type: ignore[no-untyped-call]


def released_settings(content: bytes, job: str) -> dict[str, str]:
    """The variables that the job's batches have in the release: a night is the same in a batch and
    in a container. The operator has variables of its own there. Raises: NotStarted.
    """
    if job == OPERATOR:
        variables: dict[str, str] = _document(BATCHES, content, VARIABLES)[VARIABLES]
        return variables
    batches = _document(BATCHES, content, "batches")["batches"]
    batch: dict[str, Any] = next(
        (batch for key, batch in sorted(batches.items()) if key.partition("/")[0] == job), {}
    )
    properties = batch.get("runtimeConfig", {}).get("properties", {})
    found = {
        name.removeprefix(DRIVER_VARIABLE): value
        for name, value in properties.items()
        if name.startswith(DRIVER_VARIABLE)
    }
    return {name: value for name, value in found.items() if name not in OF_A_BATCH}


def _become(folder: Path, version: str, job: str, arguments: Sequence[str]) -> None:
    """Replace this process by the job's. Its working folder is the release's: no `.env` and no
    module of another place is in its way.
    """
    settings = released_settings((folder / BATCHES).read_bytes(), job)
    entry, path = _unpacked(folder) if job == OPERATOR else (folder / f"{job}.py", folder / CODE)
    given = {
        "CODE_VERSION": version,
        "JARS_DIR": str(folder / JARS),
        "PYTHONPATH": str(path),
    }
    words = [word for number, word in enumerate(arguments) if number or word != "--"]
    variables = DEFAULTS | settings | os.environ | given
    wait_for_network(variables.get("DB_HOST", ""), int(variables.get("DB_PORT", "5432")))
    sys.stderr.write(f"{job} of version {version}\n")
    sys.stderr.flush()
    os.chdir(folder)
    os.execve(
        sys.executable,
        [sys.executable, str(entry), *words],
        variables,
    )


def wait_for_network(host: str, port: int, seconds: float = NETWORK_SECONDS) -> None:
    """Return when the database's address answers, if only with a refusal, or after `seconds`: what
    is wrong with it then is the job's to say. A path of a socket is not tried.
    """
    end, is_first = time.monotonic() + seconds, True
    while host and not host.startswith("/"):
        try:
            socket.create_connection((host, port), timeout=min(5.0, seconds)).close()
        except ConnectionRefusedError:
            return
        except OSError as error:
            if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
                return
            if is_first:
                sys.stderr.write(f"waiting for the network to {host}: {error}\n")
                is_first = False
            if time.monotonic() >= end:
                return
            time.sleep(1)
        else:
            return


def _unpacked(folder: Path) -> tuple[Path, Path]:
    """The operator's entry and code: a folder, because its commands read files beside their
    modules.
    """
    target = folder / OPERATOR_FOLDER
    with zipfile.ZipFile(folder / OPERATOR_CODE) as archive:
        archive.extractall(target)
    return target, target


if __name__ == "__main__":
    sys.exit(main())
