"""Tests the entry point of the Cloud Run jobs against the storage fake: it downloads the manifest's
files, rejects all others, and becomes the job.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Bucket, Client

from container import cloud_run_entry
from container.cloud_run_entry import FAILED, INTERRUPTED
from emulator.services.fake_storage import UNAVAILABLE, FakeStorage, Fault
from emulator.services.http_server import serving
from emulator.services.http_service import Request
from tests.support.processes import PROJECT
from workflows.spec import release_paths as release_names

JOB = "calculate_metrics"
VERSION, OLDER = "f" * 40, "a" * 40
SAYS = """
import json, os, sys
from greeting import GREETING
names = (
    "CODE_VERSION", "ENVIRONMENT", "SPARK_MASTER", "PYTHONPATH", "CODE_BUCKET", "MAX_FILL_DAYS",
    "MODEL_THREADS", "ENGINE"
)
print(json.dumps({
    "greeting": GREETING, "arguments": sys.argv[1:], "folder": os.getcwd(),
    "jars": sorted(os.listdir(os.environ["JARS_DIR"])),
    "variables": {name: os.environ[name] for name in names if name in os.environ}
}))
sys.exit(7)
"""
PROPERTIES = {
    "MAX_FILL_DAYS": "3",
    "MODEL_THREADS": "4",
    "ENGINE": "lightgbm",
    "CODE_VERSION": "another",
    "ENVIRONMENT": "production",
}
BATCH = {
    "runtimeConfig": {
        "properties": (
            {f"spark.dataproc.driverEnv.{name}": value for name, value in PROPERTIES.items()}
            | {"spark.a.b": "c"}
        )
    }
}
BATCHES = json.dumps({"batches": {f"{JOB}s": {}, JOB: BATCH}}).encode()
WAITS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit("the job was asked to end"))
print("ready", flush=True)
signal.pause()
"""


def code(greeting: str) -> bytes:
    """Return a release's zip with one module."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("greeting.py", f"GREETING = {greeting!r}\n")
    return stream.getvalue()


@dataclass
class Bucketful:
    """A bucket of releases, and the container's variables for it."""

    bucket: Bucket
    fake: FakeStorage
    variables: dict[str, str]
    files: dict[str, bytes] = field(
        default_factory=lambda: {
            release_names.CODE: code("new"),
            f"{JOB}.py": SAYS.encode(),
            "jars/one.jar": b"1",
        }
    )

    def write(self, name: str, content: bytes | object) -> bytes:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.bucket.blob(name).upload_from_string(data)
        return data

    def release(self, version: str = VERSION, files: Mapping[str, bytes] | None = None) -> None:
        """Write a release like `python -m workflows release`.

        `files` are added or replace the usual ones.
        """
        every = self.files | {"batches.json": BATCHES} | dict(files or {})
        files_of_manifest = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in every.items()
        }
        for name, content in every.items():
            self.write(release_names.object_name(version, name), content)
        manifest = self.write(
            release_names.object_name(version, release_names.MANIFEST),
            {"version": version, "commit": version, "files": files_of_manifest},
        )
        self.write(
            release_names.LATEST,
            {"version": version, "manifest_sha256": hashlib.sha256(manifest).hexdigest()},
        )


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Bucketful]:
    fake = FakeStorage(tmp_path / "storage", ["code"])
    with serving([fake]) as url:
        client = Client(
            project=None,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": url},
        )
        yield Bucketful(
            client.bucket("code"), fake, {"CODE_BUCKET": "code", "GOOGLE_API_ENDPOINT": url}
        )


def start(folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start the entry point as in the image: one file in its own folder, with a container's
    variables.
    """
    (folder / "image").mkdir()
    (folder / "tmp").mkdir()
    entry = shutil.copy(PROJECT / "container" / "cloud_run_entry.py", folder / "image")
    environment = {"PATH": os.defpath, "TMPDIR": str(folder / "tmp")} | variables
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, entry, *arguments],
        cwd=folder,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


@pytest.mark.usefixtures("processes")
def test_the_process_becomes_the_job_of_the_latest_release(
    releases: Bucketful, tmp_path: Path
) -> None:
    releases.release(OLDER, {release_names.CODE: code("old")})
    releases.release()
    job = start(
        tmp_path,
        releases.variables | {"PYTHONPATH": str(PROJECT)},
        JOB,
        "--start",
        "2025-08-01",
        "--batch",
        "metrics-1",
    )
    output, errors = job.communicate()
    printed = json.loads(output)
    folder = Path(printed["folder"])
    assert (job.returncode, errors) == (7, f"{JOB} of version {VERSION}\n")
    assert printed | {"folder": "", "variables": {}} == {
        "greeting": "new",
        "arguments": ["--start", "2025-08-01", "--batch", "metrics-1"],
        "folder": "",
        "jars": ["one.jar"],
        "variables": {},
    }
    assert printed["variables"] == {
        "CODE_VERSION": VERSION,
        "ENVIRONMENT": "production",
        "SPARK_MASTER": "local[*]",
        "PYTHONPATH": str(folder / "yieldspark.zip"),
        "CODE_BUCKET": "code",
        "MAX_FILL_DAYS": "3",
    }
    assert folder.parent == tmp_path / "tmp"
    assert sorted(path.name for path in folder.iterdir()) == [
        "batches.json",
        f"{JOB}.py",
        "jars",
        "yieldspark.zip",
    ]


@pytest.mark.usefixtures("processes")
def test_a_version_is_the_rollback_and_the_containers_variables_win(
    releases: Bucketful, tmp_path: Path
) -> None:
    releases.release(OLDER, {release_names.CODE: code("old")})
    releases.release()
    job = start(
        tmp_path,
        releases.variables | {"SPARK_MASTER": "local[2]", "MAX_FILL_DAYS": "5"},
        JOB,
        f"--version={OLDER}",
        "--full-refresh",
        "--vers",
        "1",
    )
    output = json.loads(job.communicate()[0])
    assert (output["greeting"], output["arguments"], output["variables"]["SPARK_MASTER"]) == (
        "old",
        ["--full-refresh", "--vers", "1"],
        "local[2]",
    )
    assert (output["variables"]["CODE_VERSION"], output["variables"]["MAX_FILL_DAYS"]) == (
        OLDER,
        "5",
    )


def operators_code(program: str) -> bytes:
    """Return a release's zip of the operator with one program."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("__main__.py", program)
        archive.writestr("greeting.py", "GREETING = 'from the zip'\n")
    return stream.getvalue()


def test_the_network_to_the_database_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Any answer, also a refusal, ends the wait; an address without a route is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        cloud_run_entry.wait_for_network("127.0.0.1", port)
    cloud_run_entry.wait_for_network("127.0.0.1", port)
    cloud_run_entry.wait_for_network("/run/postgresql", 5432)
    cloud_run_entry.wait_for_network("no host has this name", 5432)
    assert capsys.readouterr().err == ""
    cloud_run_entry.wait_for_network(
        "0100::1", port, seconds=0.1
    )  # RFC 6666: packets to this prefix are discarded
    assert "waiting for the network to 0100::1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("--", "db", "migrate", "--json"), ("db", "migrate", "--json")]
)
@pytest.mark.usefixtures("processes")
def test_the_process_becomes_the_operators_command(
    releases: Bucketful, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The process has the release's variables.

    It runs from a folder whose name is no Python module, so that files beside its modules are
    files.
    """
    variables = {"ENGINE": "lightgbm", "MAX_FILL_DAYS": "4", "ENVIRONMENT": "production"}
    document = {"batches": {}, cloud_run_entry.VARIABLES: variables}
    releases.release(
        files={
            release_names.OPERATOR_CODE: operators_code(SAYS),
            release_names.BATCHES: json.dumps(document).encode(),
        }
    )
    job = start(tmp_path, releases.variables, "operator", f"--version={VERSION}", *arguments)
    output, errors = job.communicate()
    assert (job.returncode, errors) == (7, f"operator of version {VERSION}\n")
    printed = json.loads(output)
    folder = Path(printed["folder"])
    assert (printed["greeting"], printed["arguments"]) == (
        "from the zip",
        ["db", "migrate", "--json"],
    )
    assert printed["variables"] == {
        "CODE_VERSION": VERSION,
        "SPARK_MASTER": "local[*]",
        "PYTHONPATH": str(folder / "operator_code"),
        "CODE_BUCKET": "code",
        **variables,
    }
    assert sorted(path.name for path in folder.iterdir()) == [
        "batches.json",
        "jars",
        "operator.zip",
        "operator_code",
    ]


@pytest.mark.usefixtures("processes")
def test_sigterm_reaches_the_job(releases: Bucketful, tmp_path: Path) -> None:
    releases.release(files={f"{JOB}.py": WAITS.encode()})
    job = start(tmp_path, releases.variables, JOB)
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGTERM)
    assert (job.communicate()[1].splitlines()[-1], job.returncode) == (
        "the job was asked to end",
        1,
    )


@pytest.mark.usefixtures("processes")
def test_sigterm_before_the_job_ends_the_entry(releases: Bucketful, tmp_path: Path) -> None:
    requests, over = threading.Event(), threading.Event()

    def hold(_number: int, _request: Request) -> Fault | None:
        requests.set()
        over.wait(60)
        return UNAVAILABLE

    releases.fake.fault = hold
    job = start(tmp_path, releases.variables, JOB)
    assert requests.wait(60)
    job.send_signal(signal.SIGTERM)
    output, errors = job.communicate()
    over.set()
    assert (job.returncode, output, errors) == (
        INTERRUPTED,
        "",
        "interrupted before the job began: nothing was changed\n",
    )


@pytest.mark.usefixtures("processes")
def test_an_error_is_a_sentence_and_an_exit_code(releases: Bucketful, tmp_path: Path) -> None:
    job = start(tmp_path, releases.variables, JOB)
    output, errors = job.communicate()
    assert (job.returncode, output) == (FAILED, "")
    assert (
        errors
        == "the bucket has no latest.json: release a version with `python -m workflows release`, or"
        " give one with --version\n"
    )


def test_the_bucket_is_laid_out_as_releases_are() -> None:
    """The entry repeats the names, because the image has no other file of the product."""
    for name in ("CODE", "OPERATOR", "OPERATOR_CODE", "BATCHES", "MANIFEST", "LATEST"):
        assert getattr(cloud_run_entry, name) == getattr(release_names, name)
    assert release_names.jar_name("one.jar") == f"{cloud_run_entry.JARS}one.jar"
