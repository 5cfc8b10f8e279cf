"""Tests a build of cloudbuild.yaml on this machine: it deploys the commit, a second build changes
nothing, and wrong input stops it before a release.

The steps are processes in a shallow clone, with the real git and gcloud and a real release to the
storage fake. The step `test` is omitted: it is this suite.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_runtime.jars import ensure_jars
from tests.conftest import JARS
from tests.support import docker_stand_in
from tests.support.deployments import (
    JOB,
    PARENT,
    REPOSITORY,
    SETTINGS,
    WORKFLOW,
    DeploymentCloud,
    build_of,
    committed_copy,
    deployment_cloud,
    git,
    shallow_clone,
)
from tests.support.processes import PROJECT
from tests.support.releases import BUCKET, latest_version, objects

STEPS = ["check", "settings", "images", "release", "deploy", "verify"]


@dataclass
class TwoBuilds:
    """Two builds of one commit in a new project, each in its own clone.

    `changed` is the project's state after each build.
    """

    cloud: DeploymentCloud
    commit: str
    builds: list[dict[str, subprocess.CompletedProcess[str]]]
    changed: list[dict[str, Any]]


@pytest.fixture(scope="module")
def origin(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return committed_copy(tmp_path_factory.mktemp("origin") / "yieldspark")


@pytest.fixture(scope="module")
def twice(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoBuilds]:
    """Takes long, because gcloud is started 14 times and takes a second for each."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not installed here")
    missing = ensure_jars(JARS, lambda line: None).missing
    if missing:
        pytest.skip("; ".join(missing.values()))
    folder = tmp_path_factory.mktemp("deployment")
    commit = git(origin, "rev-parse", "HEAD").strip()
    with deployment_cloud(folder / "cloud") as cloud:
        actual = TwoBuilds(cloud, commit, [], [])
        for name in ("first", "second"):
            workspace = shallow_clone(origin, folder / name / "workspace")
            build = build_of(cloud, workspace, folder / name / "volume", commit)
            actual.builds.append(build.run("test"))
            actual.changed.append(cloud.changed())
            assert git(workspace, "status", "--porcelain") == ""
        yield actual


def test_a_build_deploys_its_commit(twice: TwoBuilds) -> None:
    first, cloud = twice.builds[0], twice.cloud
    output = "\n".join(result.stderr for result in first.values())
    assert [(step, result.returncode) for step, result in first.items()] == [
        (step, 0) for step in STEPS
    ], output
    version = latest_version(cloud.storage)
    actual = objects(cloud.storage)
    assert json.loads(actual[f"versions/{version}/manifest.json"])["commit"] == twice.commit
    images = docker_stand_in.digests(cloud.docker)
    tag = next(iter(images)).rpartition(":")[2]
    assert re.fullmatch(r"[0-9a-f]{16}", tag)
    assert set(images) == {f"{REPOSITORY}/batch:{tag}", f"{REPOSITORY}/cloud-run:{tag}"}
    batches = json.loads(actual[f"versions/{version}/batches.json"])["batches"]
    assert {batch["runtimeConfig"]["containerImage"] for batch in batches.values()} == {
        f"{REPOSITORY}/batch@{images[f'{REPOSITORY}/batch:{tag}']}"
    }
    workflow = cloud.workflows.workflows[f"{PARENT}/workflows/{WORKFLOW}"]
    source = (PROJECT / "workflows" / "pipeline.yaml").read_text(encoding="utf-8")
    assert (workflow["sourceContents"], workflow["revisionId"]) == (source, "000002-000")
    assert workflow["userEnvVars"] == {"CODE_BUCKET": BUCKET}
    assert cloud.jobs.image_of(JOB) == (
        f"{REPOSITORY}/cloud-run@{images[f'{REPOSITORY}/cloud-run:{tag}']}"
    )


def test_a_second_build_of_the_commit_changes_nothing(twice: TwoBuilds) -> None:
    """Its images and its release exist, and neither workflow nor job is changed."""
    second = twice.builds[1]
    assert [(step, result.returncode) for step, result in second.items()] == [
        (step, 0) for step in STEPS
    ]
    assert twice.changed[1] == twice.changed[0]
    requests = [call[0] for call in docker_stand_in.calls(twice.cloud.docker)]
    # the first build looks up, builds, pushes and looks up each image again
    assert requests == ["manifest", "build", "push", "manifest"] * 2 + ["manifest"] * 2
    patched = [entry for entry in twice.cloud.workflows.requests if entry.method == "PATCH"]
    assert [entry.query["updateMask"] for entry in patched] == ["sourceContents"]
    assert [entry.method for entry in twice.cloud.jobs.requests].count("PUT") == 1


def test_each_step_says_what_it_did(twice: TwoBuilds) -> None:
    first, second = twice.builds
    assert f"{twice.commit} is checked out" in first["check"].stderr
    assert f"{len(SETTINGS)} settings from gs://{BUCKET}/settings.env" in first["settings"].stderr
    assert "no such manifest: " in first["images"].stderr
    assert "0 files were new" in second["release"].stderr
    assert f"{JOB}: image is up to date" in second["deploy"].stderr
    assert "are those of this build" in second["verify"].stderr
