"""Tests that wrong input stops a deployment step before a release, with the value, the allowed
values and the next step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from common.errors import DeploymentFailed
from tests.support.deployments import (
    JOB,
    PARENT,
    REPOSITORY,
    SETTINGS,
    WHOAMI,
    WORKFLOW,
    DeploymentCloud,
    deployment_cloud,
    git,
)
from tests.support.docker_stand_in import OTHER_DIGEST
from tests.support.processes import PROJECT
from tests.support.releases import BUCKET, FIRST, SECOND, latest_version, small_release
from workflows.deployment import images, release_step, settings_file
from workflows.deployment.checkout import check
from workflows.deployment.context import Context
from workflows.deployment.images import _digest_in, image_tag, provide_images
from workflows.deployment.release_step import release
from workflows.deployment.settings_file import fetch_settings, parse_settings, require_settings
from workflows.deployment.verify_step import manifest_faults, verify

DOCKERFILE = "FROM scratch AS batch\nFROM batch AS cloud-run\n"
PINNED = {
    target: f"{REPOSITORY}/{target}@sha256:{letter * 64}"
    for target, letter in zip(images.TARGETS, "12", strict=True)
}


@pytest.fixture
def checkout(processes: None, tmp_path: Path) -> Path:
    """A small clone in which an image can be built."""
    folder = tmp_path / "workspace"
    (folder / "container").mkdir(parents=True)
    (folder / "container" / "Dockerfile").write_text(DOCKERFILE)
    (folder / "requirements-spark.txt").write_text("numpy==1.26.4\n")
    (folder / "README.md").write_text("A product\n")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, *WHOAMI, "commit", "--quiet", "--message=change")
    return git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[DeploymentCloud]:
    with deployment_cloud(tmp_path / "cloud") as actual:
        yield actual


def context_of(checkout: Path, more: Mapping[str, str] | None = None) -> Context:
    """Return the context of a step of the trigger's build."""
    values = {
        "COMMIT_SHA": git(checkout, "rev-parse", "HEAD").strip(),
        "CODE_BUCKET": BUCKET,
        "IMAGE_REPOSITORY": REPOSITORY,
        "CLOUD_RUN_JOBS": f"{JOB} yieldspark-operator",
        "DEPLOYMENT_FOLDER": str(checkout.parent / "volume"),
    }
    return Context(checkout, os.environ | values | dict(more or {}))


def save_output(context: Context, **documents: Any) -> None:
    """Write the output of earlier steps, by file name without extension."""
    for name, document in documents.items():
        context.save_output(f"{name}.json", document)


def test_a_clone_of_the_commit_is_taken(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(context_of(checkout))
    assert capsys.readouterr().err.endswith("the tree is clean; 2 Cloud Run jobs\n")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"COMMIT_SHA": ""}, "COMMIT_SHA is empty: .* `gcloud builds triggers run`"),
        ({"COMMIT_SHA": "main"}, "COMMIT_SHA='main' is no commit: 40 hexadecimal digits"),
        ({"COMMIT_SHA": FIRST}, f"COMMIT_SHA={FIRST}, but the checkout is at"),
        ({"CODE_BUCKET": ""}, "CODE_BUCKET is empty: the trigger sets _CODE_BUCKET"),
        ({"CODE_BUCKET": "gs://acme"}, "CODE_BUCKET='gs://acme' is no bucket: a bare name"),
        ({"IMAGE_REPOSITORY": ""}, "IMAGE_REPOSITORY is empty"),
        ({"IMAGE_REPOSITORY": "gcr.io/acme"}, "'gcr.io/acme' is no repository of Artifact"),
        ({"IMAGE_REPOSITORY": "eu-docker.pkg.dev/acme"}, "REGION-docker.pkg.dev/PROJECT/NAME"),
        ({"CLOUD_RUN_JOBS": " "}, "CLOUD_RUN_JOBS is empty"),
        ({"CLOUD_RUN_JOBS": "a,b"}, "CLOUD_RUN_JOBS has 'a,b': .* with spaces between"),
        ({"DEPLOYMENT_FOLDER": ""}, "DEPLOYMENT_FOLDER is empty"),
    ],
)
def test_check_refuses(checkout: Path, variables: dict[str, str], message: str) -> None:
    with pytest.raises(DeploymentFailed, match=message):
        check(context_of(checkout, variables))


def test_check_refuses_a_checkout_that_differs(checkout: Path) -> None:
    context = context_of(checkout)
    (checkout / "README.md").write_text("Another product\n")
    (checkout / "images.json").write_text("{}")
    with pytest.raises(
        DeploymentFailed, match=r"differs from \w{40}: M README\.md, \?\? images\.json; a step may"
    ):
        check(context)
    git(checkout, "checkout", "--quiet", "README.md")
    (checkout / "images.json").unlink()
    with pytest.raises(DeploymentFailed, match=r"is in the checkout .* set it to a folder outside"):
        check(context_of(checkout, {"DEPLOYMENT_FOLDER": str(checkout / "volume")}))


def test_check_says_that_builds_submit_sends_no_repository(checkout: Path) -> None:
    context = context_of(checkout)
    shutil.rmtree(checkout / ".git")
    with pytest.raises(DeploymentFailed, match=r"has no \.git, which `gcloud builds submit` omits"):
        check(context)


@pytest.mark.parametrize(
    ("variables", "dirty"),
    [({"COMMIT_SHA": ""}, False), ({"COMMIT_SHA": FIRST}, False), ({}, True)],
    ids=["no commit", "another commit", "a dirty tree"],
)
@pytest.mark.parametrize("name", ["check", "release"])
def test_the_program_ends_with_1_and_releases_nothing(
    cloud: DeploymentCloud, checkout: Path, name: str, variables: dict[str, str], dirty: bool
) -> None:
    """Started as in cloudbuild.yaml, with only the standard library."""
    cloud.publish(small_release(SECOND))
    before, context = cloud.changed(), context_of(checkout, variables)
    if dirty:
        (checkout / "README.md").write_text("Another product\n")
    save_output(context, images=PINNED, settings=SETTINGS)
    program = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from workflows.deployment.__main__"
        f" import main; sys.exit(main([{name!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        cwd=checkout,
        env={**context.variables, **cloud.access()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{name}: ")
    assert cloud.changed() == before
    assert latest_version(cloud.storage) == SECOND


@pytest.mark.parametrize(
    ("handed", "message"),
    [
        ({}, r"images\.json can't be read .*: the step `images` writes it"),
        ({"batch": f"{REPOSITORY}/batch:1f0e7c9b"}, "HOST/PATH@sha256:<64 digits> is allowed"),
        ({"cloud-run": PINNED["cloud-run"]}, "has None for the image batch"),
    ],
)
def test_a_release_without_a_digest_does_not_begin(
    cloud: DeploymentCloud, checkout: Path, handed: dict[str, str], message: str
) -> None:
    cloud.publish(small_release(SECOND))
    context = context_of(checkout, cloud.access())
    save_output(context, settings=SETTINGS, **({"images": handed} if handed else {}))
    with pytest.raises(DeploymentFailed, match=message):
        release(context)
    assert latest_version(cloud.storage) == SECOND


def test_a_release_that_is_refused_ends_the_build(cloud: DeploymentCloud, checkout: Path) -> None:
    """The commit has no product, so `python -m workflows` is missing."""
    cloud.publish(small_release(SECOND))
    context = context_of(checkout, cloud.access())
    save_output(context, settings=SETTINGS, images=PINNED)
    with pytest.raises(
        DeploymentFailed, match=r"ended with exit code 1; .* latest\.json is unchanged"
    ):
        release(context)
    assert latest_version(cloud.storage) == SECOND
    assert not (context.folder / release_step.OUTPUT_FILE).exists()


def test_the_tag_follows_from_what_the_images_are_made_of(checkout: Path) -> None:
    tags = [image_tag(context_of(checkout))]
    for name in ("README.md", "requirements-spark.txt", "container/Dockerfile"):
        (checkout / name).write_text((checkout / name).read_text() + "\n")
        commit(checkout)
        tags.append(image_tag(context_of(checkout)))
    (checkout / "container" / "entry.py").write_text("")
    commit(checkout)
    tags.append(image_tag(context_of(checkout)))
    assert tags[1] == tags[0]
    assert len(set(tags)) == 4
    git(checkout, "rm", "--quiet", "-r", "container", "requirements-spark.txt")
    commit(checkout)
    with pytest.raises(DeploymentFailed, match="are not in the commit"):
        image_tag(context_of(checkout))


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ("build: no space left on device", r"`docker build .* failed with exit code 1"),
        (
            "push: denied: permission",
            r"docker push .* failed: denied: permission; check that the build's",
        ),
        ("manifest: x509", r"was pushed, and the registry shows no digest of it for linux/amd64"),
    ],
)
def test_reports_an_image_without_a_digest_after_the_push(
    cloud: DeploymentCloud, checkout: Path, refuse: str, message: str
) -> None:
    (cloud.docker / "refuse").write_text(refuse)
    context = context_of(checkout, cloud.environment())
    with pytest.raises(DeploymentFailed, match=message):
        provide_images(context)
    assert not (context.folder / images.OUTPUT_FILE).exists()


def test_a_container_without_docker_gets_debians_client(
    cloud: DeploymentCloud, checkout: Path, tmp_path: Path
) -> None:
    """apt-get is a stand-in like docker, because installing requires the machine of a build."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    (programs / "git").symlink_to(str(shutil.which("git")))
    installed = f"/bin/ln -s {cloud.folder / 'bin' / 'docker'} {programs / 'docker'}"
    apt = programs / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n[ "$1" = update ] || {installed}\n')
    apt.chmod(0o755)
    context = context_of(checkout, cloud.environment() | {"PATH": str(programs)})
    provide_images(context)
    requests = ["update", " ".join(images.INSTALL_CLIENT[1:])]
    assert calls.read_text().splitlines() == requests
    provide_images(context)
    assert calls.read_text().splitlines() == requests


def test_an_image_that_another_build_pushed_meanwhile_is_taken(
    cloud: DeploymentCloud, checkout: Path
) -> None:
    (cloud.docker / "other-build").touch()
    context = context_of(checkout, cloud.environment())
    provide_images(context)
    handed = json.loads((context.folder / images.OUTPUT_FILE).read_text())
    assert handed == {target: f"{REPOSITORY}/{target}@{OTHER_DIGEST}" for target in images.TARGETS}


def test_a_digest_is_read_for_our_platform_or_not_at_all() -> None:
    def entry(digest: str, architecture: str) -> dict[str, Any]:
        platform = {"os": "linux", "architecture": architecture}
        return {"Descriptor": {"digest": f"sha256:{digest * 64}", "platform": platform}}

    ours, other = entry("1", "amd64"), entry("2", "arm64")
    actual = {
        "one": _digest_in(json.dumps(ours)),
        "several": _digest_in(json.dumps([other, ours])),
        "another": _digest_in(json.dumps([other])),
        "two of ours": _digest_in(json.dumps([ours, ours])),
        "no digest": _digest_in(json.dumps({"Descriptor": {"digest": "sha256:1"}})),
        "words": _digest_in("no such manifest"),
    }
    expected = ours["Descriptor"]["digest"]
    assert actual == {name: expected if name in ("one", "several") else None for name in actual}


def test_settings_are_read_with_quotes_and_comments() -> None:
    text = '# by Terraform\n\nREGION=europe-west1\nDB_HOST="db.internal"\nMLFLOW_TRACKING_URI=a=b\n'
    assert parse_settings(text, "there") == {
        "REGION": "europe-west1",
        "DB_HOST": "db.internal",
        "MLFLOW_TRACKING_URI": "a=b",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("REGION", "there, line 1 is no setting: NAME=VALUE is allowed"),
        ("A=1\nregion=x", "line 2 is no setting"),
        ("A=1\nA=2", "line 2 has A a second time"),
        ("DB_PASSWORD=hunter2", "line 1 has DB_PASSWORD, and the file must not hold a secret"),
    ],
)
def test_invalid_settings_are_refused_without_their_value(text: str, message: str) -> None:
    with pytest.raises(DeploymentFailed, match=message) as raised:
        parse_settings(text, "there")
    assert "hunter2" not in str(raised.value)


def test_settings_of_another_project_are_refused() -> None:
    require_settings(SETTINGS, BUCKET, "there")
    with pytest.raises(DeploymentFailed, match="there is of another bucket, CODE_BUCKET=acme-code"):
        require_settings(SETTINGS, "other-code", "there")
    with pytest.raises(DeploymentFailed, match="there lacks REGION, WORKFLOW_NAME; `terraform"):
        require_settings(
            {"PROJECT_ID": "acme", "CODE_BUCKET": BUCKET, "REGION": ""}, BUCKET, "there"
        )


needs_gcloud = pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed here")


@needs_gcloud
def test_missing_settings_ask_for_terraform_apply(cloud: DeploymentCloud, checkout: Path) -> None:
    context = context_of(checkout, {**cloud.environment(), "CODE_BUCKET": "nowhere"})
    with pytest.raises(
        DeploymentFailed,
        match=r"gs://nowhere/settings\.env can't be read: ERROR: .*; `terraform apply` writes it",
    ):
        fetch_settings(context)
    assert not (context.folder / settings_file.OUTPUT_FILE).exists()


@needs_gcloud
def test_verify_names_everything_that_is_otherwise(
    cloud: DeploymentCloud, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.publish(small_release(SECOND))
    workflow = cloud.workflows.workflows[f"{PARENT}/workflows/{WORKFLOW}"]
    workflow.update({"state": "UNAVAILABLE", "userEnvVars": {}})
    (checkout / "workflows").mkdir()
    (checkout / "workflows" / "pipeline.yaml").write_text("main:\n")
    context = context_of(checkout, {**cloud.environment(), "CLOUD_RUN_JOBS": JOB})
    save_output(context, settings=SETTINGS, images=PINNED, release={"version": FIRST})
    capsys.readouterr()
    with pytest.raises(
        DeploymentFailed, match=r"differs from this build: latest\.json .* and more"
    ):
        verify(context)
    output = capsys.readouterr()
    for message in (
        f"latest.json names {SECOND}, but this build released {FIRST}",
        f"the source of {WORKFLOW} is not this commit's",
        f"{WORKFLOW} is UNAVAILABLE, and not ACTIVE",
        f"{WORKFLOW} reads CODE_BUCKET=None",
        f"and not {PINNED['cloud-run']}",
    ):
        assert message in output.out + output.err


def test_a_manifest_is_compared_with_latest_and_with_the_commit() -> None:
    manifest = json.dumps({"commit": FIRST})
    latest = {"version": FIRST, "manifest_sha256": hashlib.sha256(manifest.encode()).hexdigest()}
    assert list(manifest_faults(latest, manifest, FIRST)) == []
    assert list(manifest_faults(latest, manifest + "\n", SECOND)) == [
        f"the manifest.json of {FIRST} is not the one that latest.json names",
        f"{FIRST} is of commit {FIRST}, and COMMIT_SHA is {SECOND}",
    ]


@needs_gcloud
@pytest.mark.usefixtures("processes")
def test_no_clobber_succeeds_silently_and_a_generation_does_not(
    cloud: DeploymentCloud, tmp_path: Path
) -> None:
    """Therefore a release uses the client with a generation for each object, and not `gcloud
    storage cp --no-clobber`.
    """
    (tmp_path / "other").write_bytes(b"other code")
    where = f"gs://{BUCKET}/versions/{FIRST}/yieldspark.zip"
    cloud.publish(small_release(FIRST))
    codes = {}
    for option in ("--no-clobber", "--if-generation-match=0"):
        command = ["gcloud", "storage", "cp", option, str(tmp_path / "other"), where]
        result = subprocess.run(
            command, env=cloud.environment(), capture_output=True, text=True, check=False
        )
        codes[option] = result.returncode
    assert codes == {"--no-clobber": 0, "--if-generation-match=0": 1}
    assert latest_version(cloud.storage) == FIRST
