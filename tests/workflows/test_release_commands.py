"""Tests the output and exit codes of `release`, `versions` and `rollback`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from local_runtime.jars import ensure_jars
from tests.conftest import JARS
from tests.support.dataproc_cases import WorkflowsHere, cloud_variables
from tests.support.releases import (
    BUCKET,
    FIRST,
    SECOND,
    latest_version,
    objects,
    publish_at,
    small_release,
)


@pytest.fixture
def fake(tmp_path: Path) -> FakeStorage:
    return FakeStorage(tmp_path / "storage", [BUCKET])


@pytest.fixture
def url(fake: FakeStorage) -> Iterator[str]:
    with serving([fake]) as address:
        yield address


@pytest.fixture
def run(url: str, tmp_path: Path) -> WorkflowsHere:
    missing = ensure_jars(JARS, lambda line: None).missing
    if missing:
        pytest.skip("; ".join(missing.values()))
    return WorkflowsHere(
        tmp_path, cloud_variables(url) | {"JARS_DIR": str(JARS), "ENGINE": "lightgbm"}
    )


def _bytes_of(fake: FakeStorage, document: dict[str, Any]) -> dict[str, bytes]:
    files = objects(fake)
    names = [file["name"] for file in document["files"]]
    return {name: files[f"versions/{document['version']}/{name}"] for name in names}


@pytest.mark.usefixtures("processes")
def test_a_dry_run_lists_the_files_that_a_release_uploads(
    run: WorkflowsHere, fake: FakeStorage
) -> None:
    plan = run.json("release", "--allow-dirty", "--dry-run")
    assert fake.requests == []
    result = run.json("release", "--allow-dirty")
    assert (result["version"], result["bytes"], result["files"]) == (
        plan["version"],
        plan["bytes"],
        len(plan["files"]),
    )
    actual = _bytes_of(fake, plan)
    assert plan["files"] == [
        {"name": name, "bytes": len(entry), "sha256": hashlib.sha256(entry).hexdigest()}
        for name, entry in actual.items()
    ]
    assert latest_version(fake) == plan["version"]
    for document in (plan, result):
        assert (document["platform"], document["platform_reason"]) == (
            "dataproc",
            "PLATFORM=dataproc",
        )
    output = run("release", "--allow-dirty", "--dry-run")
    assert plan["version"] in output.stdout
    assert plan["files"][0]["sha256"][:32] in output.stdout
    again = run("release", "--allow-dirty")
    assert again.returncode == 0, again.stdout + again.stderr
    assert ["uploaded", "0"] in [line.split() for line in again.stdout.splitlines()]


def test_versions_and_a_rollback_between_them(
    run: WorkflowsHere, url: str, fake: FakeStorage
) -> None:
    assert run.json("versions") == []
    for version in (FIRST, SECOND):
        publish_at(url, small_release(version))
    assert [
        (entry["version"], entry["latest"], entry["faults"]) for entry in run.json("versions")
    ] == [
        (SECOND, True, []),
        (FIRST, False, []),
    ]
    assert [entry["version"] for entry in run.json("versions", "--newest", "1")] == [SECOND]
    rows = [line.split() for line in run("versions").stdout.splitlines()]
    assert [(row[0], row[-2], row[-1]) for row in rows[1:]] == [
        (SECOND, "yes", "yes"),
        (FIRST, "no", "yes"),
    ]
    assert run.json("rollback", FIRST, "--dry-run") == {
        "version": FIRST,
        "previous": SECOND,
        "moved": False,
    }
    assert latest_version(fake) == SECOND
    assert run.json("rollback", FIRST) == {"version": FIRST, "previous": SECOND, "moved": True}
    assert latest_version(fake) == FIRST
    unknown = run.json("rollback", "1234567", code=2)
    assert f"the newest are: {SECOND}, {FIRST}." in unknown["error"]


@pytest.mark.usefixtures("processes")
def test_missing_settings_are_named(run: WorkflowsHere) -> None:
    assert (
        "CODE_BUCKET, REGION not set"
        in run.json("release", "--allow-dirty", "--dry-run", code=2, CODE_BUCKET="", REGION="")[
            "error"
        ]
    )
    assert (
        "DB_PASSWORD_SECRET not set"
        in run.json("release", "--allow-dirty", code=2, DB_PASSWORD_SECRET="")["error"]
    )
    assert "CODE_BUCKET not set" in run.json("versions", code=2, CODE_BUCKET="")["error"]
