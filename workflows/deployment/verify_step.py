"""The step `verify`: checks that the project has this build's release, workflow source and images.
Changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

from common.errors import DeploymentFailed
from workflows.deployment.checkout import cloud_run_jobs, required_commit
from workflows.deployment.context import Context, say
from workflows.deployment.deploy_step import project_of, source_of
from workflows.deployment.images import CLOUD_RUN, provided_image
from workflows.deployment.release_step import OUTPUT_FILE as RELEASE
from workflows.deployment.settings_file import released_settings
from workflows.spec.release_paths import LATEST, MANIFEST, object_name


def verify(context: Context) -> None:
    """Run the step and log every difference.

    Raises:
        DeploymentFailed: There is a difference.
    """
    faults = [*_release_faults(context), *_project_faults(context)]
    for fault in faults:
        say(f"verify: {fault}")
    if faults:
        raise DeploymentFailed(
            f"the deployment differs from this build: {faults[0]}"
            f"{' and more' if faults[1:] else ''}. Another build may have been faster: run the"
            " newest commit's build again"
        )
    say("release, workflow and Cloud Run jobs are those of this build")


def _release_faults(context: Context) -> Iterator[str]:
    bucket = released_settings(context)["CODE_BUCKET"]
    version = context.load_output(RELEASE, "release")["version"]
    latest = json.loads(_object(context, bucket, LATEST))
    if latest["version"] != version:
        yield f"{LATEST} names {latest['version']}, but this build released {version}"
        # its manifest is of another commit
        return
    manifest = _object(context, bucket, object_name(version, MANIFEST))
    yield from manifest_faults(latest, manifest, required_commit(context))


def manifest_faults(latest: Mapping[str, str], manifest: str, commit: str) -> Iterator[str]:
    """Compare a release's manifest with latest.json and the build's commit.

    Args:
        latest: Payload of latest.json.
        manifest: Text of the manifest.
        commit: COMMIT_SHA.

    Returns:
        A message for each fault.
    """
    version = latest["version"]
    if hashlib.sha256(manifest.encode()).hexdigest() != latest["manifest_sha256"]:
        yield f"the {MANIFEST} of {version} is not the one that {LATEST} names"
    released_commit = json.loads(manifest)["commit"]
    if released_commit != commit:
        yield f"{version} is of commit {released_commit}, and COMMIT_SHA is {commit}"


def _object(context: Context, bucket: str, name: str) -> str:
    return context.output_of("gcloud", "storage", "cat", f"gs://{bucket}/{name}")


def _project_faults(context: Context) -> Iterator[str]:
    project, bucket = project_of(context), released_settings(context)["CODE_BUCKET"]
    workflow = project.workflow()
    if workflow["sourceContents"] != source_of(context):
        yield f"the source of {project.workflow_name} is not this commit's"
    if workflow.get("state") != "ACTIVE":
        yield f"{project.workflow_name} is {workflow.get('state')}, and not ACTIVE"
    variables = workflow.get("userEnvVars", {})
    if variables.get("CODE_BUCKET") != bucket:
        yield f"{project.workflow_name} reads CODE_BUCKET={variables.get('CODE_BUCKET')}"
    image = provided_image(context, CLOUD_RUN)
    for job in cloud_run_jobs(context):
        current_image = project.image_of(job)
        if current_image != image:
            yield f"{job} has the image {current_image}, and not {image}"
