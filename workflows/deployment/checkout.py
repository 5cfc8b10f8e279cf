"""The step `check`: verifies that the checkout is the build's commit and that the trigger's
variables are set. It runs first, before anything is built, released or deployed.
"""

from __future__ import annotations

import re

from common.errors import DeploymentFailed
from workflows.deployment.context import Context, say
from workflows.releases.working_tree import read_status

COMMIT = re.compile(r"[0-9a-f]{40}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
REPOSITORY = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev/[a-z0-9.:-]+/[a-z0-9-]+")
JOB = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
FROM_TRIGGER = "start the build by its trigger: push a commit, or `gcloud builds triggers run`"
SHOWN_CHANGES = 5


def check(context: Context) -> None:
    """Run the step.

    Raises:
        DeploymentFailed: The checkout or a variable is wrong.
    """
    commit = required_commit(context)
    require_commit_in_checkout(context, commit)
    bucket = context.required("CODE_BUCKET", "the trigger sets _CODE_BUCKET")
    if not BUCKET.fullmatch(bucket):
        raise DeploymentFailed(
            f"CODE_BUCKET={bucket!r} is no bucket: a bare name is allowed, without gs://; correct"
            " _CODE_BUCKET in the trigger"
        )
    image_repository(context)
    jobs = cloud_run_jobs(context)
    context.folder.mkdir(parents=True, exist_ok=True)
    say(f"{commit} is checked out, and the tree is clean; {len(jobs)} Cloud Run jobs")


def required_commit(context: Context) -> str:
    """Return COMMIT_SHA.

    Raises:
        DeploymentFailed: It is missing or no commit.
    """
    meaning = f"Cloud Build sets it for a build of a commit, and {FROM_TRIGGER}"
    commit = context.required("COMMIT_SHA", meaning)
    if not COMMIT.fullmatch(commit):
        raise DeploymentFailed(
            f"COMMIT_SHA={commit!r} is no commit: 40 hexadecimal digits are allowed; {FROM_TRIGGER}"
        )
    return commit


def require_commit_in_checkout(context: Context, commit: str) -> None:
    """Check that the working folder is a clean clone at a commit.

    Raises:
        DeploymentFailed: It is no clone, at another commit, or changed.
        ConfigurationError: git cannot read it.
    """
    if not (context.root / ".git").exists():
        raise DeploymentFailed(
            f"{context.root} has no .git, which `gcloud builds submit` omits, and a release needs"
            f" its commit; {FROM_TRIGGER}"
        )
    tree = read_status(context.root)
    if tree.commit != commit:
        raise DeploymentFailed(
            f"COMMIT_SHA={commit}, but the checkout is at {tree.commit}; {FROM_TRIGGER}"
        )
    # a step that wrote into the checkout would make another version than the commit's
    if tree.changes:
        changes = ", ".join(line.strip() for line in tree.changes[:SHOWN_CHANGES])
        more = (
            f" and {len(tree.changes) - SHOWN_CHANGES} more"
            if len(tree.changes) > SHOWN_CHANGES
            else ""
        )
        raise DeploymentFailed(
            f"the checkout differs from {commit}: {changes}{more}; a step may write into the volume"
            " DEPLOYMENT_FOLDER only, or into what .gitignore lists"
        )


def image_repository(context: Context) -> str:
    """Return IMAGE_REPOSITORY.

    Raises:
        DeploymentFailed: It is missing or no repository of Artifact Registry.
    """
    repository = context.required("IMAGE_REPOSITORY", "the trigger sets _IMAGE_REPOSITORY")
    if not REPOSITORY.fullmatch(repository):
        raise DeploymentFailed(
            f"IMAGE_REPOSITORY={repository!r} is no repository of Artifact Registry:"
            " REGION-docker.pkg.dev/PROJECT/NAME is allowed; correct _IMAGE_REPOSITORY in the"
            " trigger"
        )
    return repository


def cloud_run_jobs(context: Context) -> list[str]:
    """Return the names in CLOUD_RUN_JOBS.

    Raises:
        DeploymentFailed: It is missing, or a name is wrong.
    """
    jobs = context.required("CLOUD_RUN_JOBS", "the trigger sets _CLOUD_RUN_JOBS").split()
    wrong = [name for name in jobs if not JOB.fullmatch(name)]
    if wrong:
        raise DeploymentFailed(
            f"CLOUD_RUN_JOBS has {wrong[0]!r}: names of Cloud Run jobs are allowed, with spaces"
            " between; correct _CLOUD_RUN_JOBS in the trigger"
        )
    return jobs
