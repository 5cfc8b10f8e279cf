"""Entry point of a Cloud Run job: fetches a release from CODE_BUCKET, checks every file against its
manifest, and replaces this process by the job or an operator's command.

    cloud_run_entry.py JOB [--version VERSION] [arguments of the job ...]
    cloud_run_entry.py operator [--version VERSION] -- db migrate

It is the only file of the product in the image, which is older than the releases it runs, and needs
only google-cloud-storage. Exit codes before the job starts: 1 the release cannot be fetched, 2
wrong use, 130 SIGTERM.
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
from google.cloud.storage import Bucket, Client
from google.cloud.storage.retry import DEFAULT_RETRY
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
"""The only files that are written to the folder of the jars."""

RETRY_SECONDS = 60.0
"""How long one read is retried while the service does not answer."""

NETWORK_SECONDS = 90.0
"""How long to wait for the database's address. Direct VPC egress may need more than a minute before
a new instance's packets arrive (https://cloud.google.com/run/docs/configuring/vpc-direct-vpc).
"""

NO_BUCKET = "The specified bucket does not exist"
"""Cloud Storage's message; a missing object is a 404 too."""

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130

DEFAULTS = {"ENVIRONMENT": "production", "SPARK_MASTER": "local[*]"}
"""Defaults of the job's variables. The release overrides them; the container's environment
overrides both.
"""

DRIVER_VARIABLE = "spark.dataproc.driverEnv."
BATCH_ONLY_VARIABLES = {"ENGINE", "MODEL_THREADS"}
"""Variables of a batch that do not apply here: the engine is an argument, and the threads follow
from the container's cores.
"""

Read = Callable[[str], bytes | None]
"""Returns an object's bytes by its name; None if it does not exist."""


class NotStarted(Exception):
    """The job cannot be started; the message is for the operator."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the job.

    Args:
        arguments: Command line; default: `sys.argv`.

    Returns:
        The exit code if the job cannot be started; otherwise it does not return.
    """
    # the execve below resets it to the default, and the job sets its own
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options, job_arguments = _parser().parse_known_args(arguments)
    try:
        folder, version = fetch(
            reader(os.environ),
            options.job,
            options.version,
            Path(tempfile.mkdtemp(prefix="yieldspark-")),
        )
        _exec_job(folder, version, options.job, job_arguments)
    except NotStarted as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before the job began: nothing was changed\n")
        return INTERRUPTED
    return FAILED


def fetch(read: Read, job: str, version: str | None, folder: Path) -> tuple[Path, str]:
    """Download the job's files of a release and check each against the manifest's SHA-256.

    Args:
        read: Reads the bucket.
        job: Name of the job, or `operator`.
        version: Release; default: the one in latest.json.
        folder: Receives the files.

    Returns:
        The folder and the version.

    Raises:
        NotStarted: The version or job is unknown, a file is missing or changed, or the service does
            not answer.
    """
    expected = None
    if version is None:
        version, expected = _latest(read)
    if not VERSION.fullmatch(version):
        raise NotStarted(
            f"{version!r} is no version; allowed: those that `python -m workflows versions` lists",
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
    files = _parse_json(f"versions/{version}/{MANIFEST}", content, "files")["files"]
    if not files.keys() >= set(_code_of(job)):
        raise NotStarted(
            f"version {version} has no job {job!r}: it has {', '.join(_jobs_in(files))}", WRONG_USE
        )
    jars = [name for name in files if name.startswith(JARS)]
    unexpected = [name for name in jars if not JAR.fullmatch(name)]
    if unexpected:
        raise NotStarted(
            f"version {version} is refused: {unexpected[0]!r} in its {MANIFEST} is no jar's name"
        )
    # the whole manifest is not needed: the job's own files, its settings and the jars
    for name in [*_code_of(job), BATCHES, *jars]:
        _save(read, f"versions/{version}/{name}", files[name]["sha256"], folder / name)
    return folder, version


def _code_of(job: str) -> list[str]:
    """Return the files of a job's code."""
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
    latest = _parse_json(LATEST, content, "version", "manifest_sha256")
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


def _compare(name: str, content: bytes, expected: str, source: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise NotStarted(
            f"{name} is refused: its sha256 is {digest}, and {source} says {expected}; release"
            " again, or give an earlier --version"
        )


def _parse_json(name: str, content: bytes, *fields: str) -> dict[str, Any]:
    try:
        payload = json.loads(content)
        return {field: payload[field] for field in fields}
    except (ValueError, KeyError, TypeError) as error:
        raise NotStarted(
            f"{name} is no JSON object with {', '.join(fields)} ({error!r}); release again, or"
            " give an earlier --version"
        ) from None


def reader(variables: Mapping[str, str]) -> Read:
    """Return a reader of CODE_BUCKET.

    Args:
        variables: CODE_BUCKET; GOOGLE_API_ENDPOINT and GOOGLE_API_TOKEN_FILE for an emulator.

    Raises:
        NotStarted: CODE_BUCKET is not set, or the token cannot be read.
    """
    name, url = variables.get("CODE_BUCKET"), variables.get("GOOGLE_API_ENDPOINT")
    if not name:
        raise NotStarted(
            "CODE_BUCKET is not set: give the Cloud Run job the bucket of the releases, a bare"
            " name",
            WRONG_USE,
        )
    client_options: dict[str, Any] = {}
    if url:
        client_options = {
            "credentials": _credentials(variables.get("GOOGLE_API_TOKEN_FILE")),
            "client_options": {"api_endpoint": url},
        }
    retry = DEFAULT_RETRY.with_timeout(RETRY_SECONDS)

    @cache
    def bucket() -> Bucket:
        # a project is only needed to create and list buckets
        return Client(project=None, **client_options).bucket(name)

    def read(path: str) -> bytes | None:
        uri = f"gs://{name}/{path}"
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
                f"{uri}: Google Cloud refused: {error.message}; check that the job's service"
                " account may read the bucket"
            ) from None
        except (exceptions.GoogleAPIError, RequestException) as error:
            raise NotStarted(
                f"{uri}: Google Cloud does not answer: {error}; start the job again in some minutes"
            ) from None
        except GoogleAuthError as error:
            raise NotStarted(
                f"{uri}: no valid credentials: {error}; a Cloud Run job has those of its service"
                " account"
            ) from None

    return read


def _credentials(token_file: str | None) -> Credentials:
    """Return the credentials of an emulator."""
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
    """Return the release's variables of a job: those of its batches, so that a run is the same on
    both platforms, or the operator's own.

    Raises:
        NotStarted: batches.json (`content`) is damaged.
    """
    if job == OPERATOR:
        variables: dict[str, str] = _parse_json(BATCHES, content, VARIABLES)[VARIABLES]
        return variables
    batches = _parse_json(BATCHES, content, "batches")["batches"]
    batch: dict[str, Any] = next(
        (batch for key, batch in sorted(batches.items()) if key.partition("/")[0] == job), {}
    )
    properties = batch.get("runtimeConfig", {}).get("properties", {})
    driver_variables = {
        name.removeprefix(DRIVER_VARIABLE): value
        for name, value in properties.items()
        if name.startswith(DRIVER_VARIABLE)
    }
    return {
        name: value for name, value in driver_variables.items() if name not in BATCH_ONLY_VARIABLES
    }


def _exec_job(folder: Path, version: str, job: str, arguments: Sequence[str]) -> None:
    """Replace this process by the job's, in the release's folder, where no other `.env` or module
    is found.
    """
    settings = released_settings((folder / BATCHES).read_bytes(), job)
    entry, path = (
        _unpack_operator(folder) if job == OPERATOR else (folder / f"{job}.py", folder / CODE)
    )
    release_variables = {
        "CODE_VERSION": version,
        "JARS_DIR": str(folder / JARS),
        "PYTHONPATH": str(path),
    }
    # argparse leaves a leading `--` in the rest
    job_arguments = [word for index, word in enumerate(arguments) if index or word != "--"]
    variables = DEFAULTS | settings | os.environ | release_variables
    wait_for_network(variables.get("DB_HOST", ""), int(variables.get("DB_PORT", "5432")))
    sys.stderr.write(f"{job} of version {version}\n")
    sys.stderr.flush()
    os.chdir(folder)
    os.execve(sys.executable, [sys.executable, str(entry), *job_arguments], variables)


def wait_for_network(host: str, port: int, seconds: float = NETWORK_SECONDS) -> None:
    """Wait up to `seconds` until the database's address answers, even with a refusal. After that
    return too: the job reports the error. A socket's path is not tried.
    """
    end, is_first = time.monotonic() + seconds, True
    while host and not host.startswith("/"):
        try:
            socket.create_connection((host, port), timeout=min(5.0, seconds)).close()
        except ConnectionRefusedError:
            return
        except OSError as error:
            # another name error will not go away: the job reports it
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


def _unpack_operator(folder: Path) -> tuple[Path, Path]:
    """Unpack the operator's zip, because its commands read files next to their modules; return its
    entry and code.
    """
    target = folder / OPERATOR_FOLDER
    with zipfile.ZipFile(folder / OPERATOR_CODE) as archive:
        archive.extractall(target)
    return target, target


if __name__ == "__main__":
    sys.exit(main())
