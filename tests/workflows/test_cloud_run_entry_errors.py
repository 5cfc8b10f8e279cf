"""Tests that the entry point of the Cloud Run jobs rejects wrong use and damaged releases with a
sentence and an exit code.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from container import cloud_run_entry
from container.cloud_run_entry import FAILED, WRONG_USE, NotStarted, fetch, reader
from emulator.services.fake_storage import UNAVAILABLE, Fault
from emulator.services.http_service import Request
from tests.workflows.test_cloud_run_entry import JOB, VERSION, Bucketful, code, releases
from workflows.spec import release_paths as release_names

__all__ = ["releases"]

WRONG = {
    "unknown version": (WRONG_USE, JOB, "b" * 40, {}, f"version {'b' * 40} is not in the bucket"),
    "no version at all": (WRONG_USE, JOB, "../latest", {}, "'../latest' is no version"),
    "unknown job": (
        WRONG_USE,
        "run_all",
        VERSION,
        {},
        f"version {VERSION} has no job 'run_all': it has {JOB}",
    ),
    "a release without an operator": (
        WRONG_USE,
        "operator",
        VERSION,
        {},
        f"version {VERSION} has no job 'operator': it has {JOB}",
    ),
    "no bucket's name": (WRONG_USE, JOB, VERSION, {"CODE_BUCKET": ""}, "CODE_BUCKET is not set"),
    "no such bucket": (
        WRONG_USE,
        JOB,
        VERSION,
        {"CODE_BUCKET": "cod"},
        "CODE_BUCKET=cod does not exist",
    ),
}


@pytest.mark.parametrize(
    ("exit_code", "job", "version", "variables", "sentence"), WRONG.values(), ids=WRONG
)
def test_wrong_use(
    releases: Bucketful,
    tmp_path: Path,
    exit_code: int,
    job: str,
    version: str,
    variables: dict[str, str],
    sentence: str,
) -> None:
    releases.release()
    with pytest.raises(NotStarted, match=f"^{sentence}") as refused:
        fetch(reader(releases.variables | variables), job, version, tmp_path)
    assert refused.value.exit_code == exit_code


MANIFEST = release_names.object_name(VERSION, release_names.MANIFEST)
CODE = release_names.object_name(VERSION, release_names.CODE)

DAMAGED: dict[str, tuple[str, bytes | None, str]] = {
    "other bytes": (CODE, code("evil"), f"{CODE} is refused: its sha256 is .* manifest.json says"),
    "another jar": (
        release_names.object_name(VERSION, "jars/one.jar"),
        b"2",
        "jars/one.jar is refused: its sha256 is",
    ),
    "another entry": (
        release_names.object_name(VERSION, f"{JOB}.py"),
        b"pass",
        f"{JOB}.py is refused: its sha256 is",
    ),
    "another manifest": (
        MANIFEST,
        b"{}",
        f"{MANIFEST} is refused: its sha256 is .* latest.json says",
    ),
    "a file is gone": (CODE, None, f"{CODE} is in the manifest and not in the bucket"),
    "latest is no document": (
        "latest.json",
        b"{",
        "latest.json is no JSON object with version, manifest_sha256",
    ),
    "latest is no object": (
        "latest.json",
        b"[]",
        "latest.json is no JSON object with version, manifest_sha256",
    ),
}
"""An object, what stands there instead (None: nothing), and the message."""


@pytest.mark.parametrize(("name", "content", "sentence"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_release_is_not_started(
    releases: Bucketful, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    releases.release()
    if content is None:
        releases.bucket.blob(name).delete()
    else:
        releases.write(name, content)
    with pytest.raises(NotStarted, match=sentence) as refused:
        fetch(reader(releases.variables), JOB, None, tmp_path)
    assert refused.value.exit_code == FAILED


def test_a_manifest_writes_nowhere_but_to_the_folder(releases: Bucketful, tmp_path: Path) -> None:
    releases.release(files={"jars/../../evil.jar": b"1"})
    with pytest.raises(
        NotStarted, match=r"'jars/../../evil.jar' in its manifest.json is no jar's name"
    ):
        fetch(reader(releases.variables), JOB, VERSION, tmp_path / "a" / "b")
    assert not (tmp_path / "evil.jar").exists()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, "Google Cloud refused: .*check that the job's service account"),
        (503, "does not answer"),
    ],
)
def test_a_service_that_does_not_give_the_release(
    releases: Bucketful, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, sentence: str
) -> None:
    monkeypatch.setattr(cloud_run_entry, "RETRY_SECONDS", 0.1)
    releases.release()
    releases.fake.fault = lambda number, request: Fault(status=status)
    with pytest.raises(NotStarted, match=rf"^gs://code/{MANIFEST}: .*{sentence}") as refused:
        fetch(reader(releases.variables), JOB, VERSION, tmp_path)
    assert refused.value.exit_code == FAILED


def test_a_request_that_is_refused_once_is_made_again(releases: Bucketful, tmp_path: Path) -> None:
    releases.release()
    requests: list[Request] = []

    def once(_number: int, request: Request) -> Fault | None:
        if request.path.endswith(release_names.CODE):
            requests.append(request)
        return UNAVAILABLE if [request] == requests else None

    releases.fake.fault = once
    assert fetch(reader(releases.variables), JOB, VERSION, tmp_path) == (tmp_path, VERSION)
    assert len(requests) == 2
