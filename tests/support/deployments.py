"""Runs the steps of cloudbuild.yaml on this machine: processes in a clone, against fakes.

gcloud is the real one. Cloud Run's commands put the region before the host, so overrides alone
cannot redirect them; this machine's address is gcloud's proxy instead. docker is a stand-in
(tests/support/docker_stand_in.py), because it needs a daemon.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.private_files import write_private
from emulator.control_plane.deployment_services import FakeRunJobs, FakeWorkflows
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.object_store import Conditions
from tests.conftest import JARS
from tests.support import docker_stand_in
from tests.support.cloudbuild_rules import SUBSTITUTION, BuildFile, variables_of
from tests.support.processes import PROJECT
from tests.support.releases import BUCKET, publish_at
from workflows.releases.release_content import ReleaseContent
from workflows.releases.working_tree import files_of

REGION, WORKFLOW = "europe-west1", "yieldspark-pipeline"
PARENT = f"projects/acme/locations/{REGION}"
REPOSITORY = f"{REGION}-docker.pkg.dev/acme/yieldspark"
PLACEHOLDER = "us-docker.pkg.dev/cloudrun/container/job:1"
JOB = "yieldspark-forecast-pools"
SETTINGS = {
    "PROJECT_ID": "acme",
    "REGION": REGION,
    "CODE_BUCKET": BUCKET,
    "STAGING_BUCKET": "acme-staging",
    "BATCH_SERVICE_ACCOUNT": "batch@acme.iam.gserviceaccount.com",
    "BATCH_SUBNETWORK": f"projects/acme/regions/{REGION}/subnetworks/batches",
    "DB_HOST": "db.yieldspark.internal",
    "DB_NAME": "yieldspark",
    "DB_USER": "yieldspark",
    "DB_SSLMODE": "require",
    "DB_PASSWORD_SECRET": "projects/acme/secrets/database-password/versions/latest",
    "MLFLOW_TRACKING_URI": "postgresql+psycopg2://db.yieldspark.internal/mlflow",
    "MLFLOW_ARTIFACTS_URI": "gs://acme-models/models",
    "ENGINE": "lightgbm",
    "EXPECTED_ROWS": "1000000",
    "MAX_EXECUTORS": "20",
    "BATCH_TTL_MINUTES": "120",
    "WORKFLOW_NAME": WORKFLOW,
}
"""Settings that Terraform writes to settings.env."""

SERVICES = ("storage", "workflows", "run")
TOKEN_FILE = "access_token"

WHOAMI = ["-c", "user.name=tests", "-c", "user.email=tests@example.invalid"]


def committed_copy(folder: Path) -> Path:
    """Create a repository with this checkout's present files in one commit."""
    folder.mkdir(parents=True)
    for name in files_of(PROJECT, ["."]):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, target)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, *WHOAMI, "commit", "--quiet", "--message=a merge")
    return folder


def shallow_clone(origin: Path, folder: Path) -> Path:
    """Clone the last commit only, as a trigger does."""
    command = ["git", "clone", "--quiet", "--depth=1", origin.as_uri(), str(folder)]
    subprocess.run(command, check=True)
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Return git's output in the folder."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class DeploymentCloud:
    """The fakes, and a folder for docker's stand-in, programs and gcloud's configuration."""

    url: str
    folder: Path
    storage: FakeStorage
    workflows: FakeWorkflows
    jobs: FakeRunJobs

    @property
    def docker(self) -> Path:
        return self.folder / "docker"

    def access(self) -> dict[str, str]:
        """Return the variables with the fakes' address and token."""
        token_file = str(self.folder / TOKEN_FILE)
        return {
            "GOOGLE_API_ENDPOINT": self.url,
            "GOOGLE_API_TOKEN_FILE": token_file,
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": token_file,
        }

    def environment(self) -> dict[str, str]:
        """Return the variables of every step, without those of cloudbuild.yaml."""
        address = urlsplit(self.url)
        python = Path(sys.executable).parent
        overrides = {
            f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name.upper()}": f"http://{name}.example.test/"
            for name in SERVICES
        }
        overrides["CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE"] += "storage/v1/"
        variables = {
            name: value for name, value in os.environ.items() if "proxy" not in name.lower()
        }
        return variables | {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(python), os.environ["PATH"]]),
            "DOCKER_STAND_IN": str(self.docker),
            "YIELDSPARK_HOME": str(self.folder / "home"),
            **self.access(),
            "CLOUDSDK_CONFIG": str(self.folder / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_PROXY_TYPE": "http",
            "CLOUDSDK_PROXY_ADDRESS": str(address.hostname),
            "CLOUDSDK_PROXY_PORT": str(address.port),
            **overrides,
        }

    def publish(self, content: ReleaseContent) -> None:
        """Release content, as an earlier build did."""
        publish_at(self.url, content, self.access()["GOOGLE_API_TOKEN_FILE"])

    def put(self, name: str, content: bytes) -> None:
        """Write an object to the code bucket."""
        settings = {"contentType": "text/plain"}
        self.storage.store.write(BUCKET, name, content, settings, Conditions(), {})

    def changed(self) -> dict[str, Any]:
        """Return everything that a deployment can change: objects with generations, images,
        workflow, jobs.
        """
        return {
            "objects": dict(self.storage.store.objects_of(BUCKET)),
            "images": docker_stand_in.digests(self.docker),
            "workflows": json.loads(json.dumps(self.workflows.workflows)),
            "jobs": json.loads(json.dumps(self.jobs.jobs)),
        }


@contextmanager
def deployment_cloud(folder: Path) -> Iterator[DeploymentCloud]:
    """Run a project as `terraform apply` leaves it: settings.env, a workflow with an older source,
    a job with a placeholder image.
    """
    for name in ("bin", "docker"):
        (folder / name).mkdir(parents=True)
    docker = folder / "bin" / "docker"
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} {docker_stand_in.__file__} "$@"\n')
    docker.chmod(0o755)
    storage = FakeStorage(folder / "storage", [BUCKET])
    older = {"sourceContents": "main: {}\n", "userEnvVars": {"CODE_BUCKET": BUCKET}}
    workflows = FakeWorkflows({f"{PARENT}/workflows/{WORKFLOW}": older})

    def has_image(image: str) -> bool:
        name, _, digest = image.partition("@")
        pushed = docker_stand_in.digests(folder / "docker")
        return any(
            pushed_digest == digest and reference.rpartition(":")[0] == name
            for reference, pushed_digest in pushed.items()
        )

    jobs = FakeRunJobs([JOB], PLACEHOLDER, region=REGION, has_image=has_image)
    token = secrets.token_urlsafe(32)
    write_private(folder / TOKEN_FILE, token)
    # gcloud sends the services' host names to its proxy
    names = [f"{name}.example.test" for name in (*SERVICES, f"{REGION}-run")]
    with serving([storage, workflows, jobs], token=token, hosts=names) as url:
        cloud = DeploymentCloud(url, folder, storage, workflows, jobs)
        lines = "".join(f"{name}={value}\n" for name, value in SETTINGS.items())
        cloud.put("settings.env", lines.encode())
        yield cloud


@dataclass
class HostBuild:
    """A build of cloudbuild.yaml on this machine; `workspace` is the checkout, `volume` replaces
    the file's volume.
    """

    cloud: DeploymentCloud
    workspace: Path
    volume: Path
    substitutions: Mapping[str, str]

    def run(self, *left_out: str) -> dict[str, subprocess.CompletedProcess[str]]:
        """Run the steps in order, up to the first that fails; return the process of each.

        Args:
            left_out: Steps to omit.
        """
        processes: dict[str, subprocess.CompletedProcess[str]] = {}
        file = BuildFile((self.workspace / "cloudbuild.yaml").read_text(), self.workspace)
        for step in file.steps:
            if step["id"] in left_out:
                continue
            assert set(step["waitFor"]) - {"-"} <= processes.keys() | set(left_out)
            processes[step["id"]] = self._run_step(step, file.options["env"])
            if processes[step["id"]].returncode:
                break
        return processes

    def _run_step(
        self, step: Mapping[str, Any], common: list[str]
    ) -> subprocess.CompletedProcess[str]:
        variables = variables_of([*common, *step.get("env", [])])
        return subprocess.run(
            [step["entrypoint"], *step["args"]],
            cwd=self.workspace,
            env=self.cloud.environment()
            | {name: self._substitute(value) for name, value in variables.items()}
            | ({"JARS_DIR": str(JARS)} if "JARS_DIR" in variables else {}),
            capture_output=True,
            text=True,
            check=False,
        )

    def _substitute(self, value: str) -> str:
        """Substitute as Cloud Build does; a missing substitution is empty."""
        text = SUBSTITUTION.sub(
            lambda match: self.substitutions.get(match[1] or match[2], ""), value
        )
        return text.replace("/deployment", str(self.volume))


def build_of(cloud: DeploymentCloud, workspace: Path, volume: Path, commit: str) -> HostBuild:
    """Return the build that a trigger starts for the commit."""
    substitutions = {
        "COMMIT_SHA": commit,
        "_CODE_BUCKET": BUCKET,
        "_IMAGE_REPOSITORY": REPOSITORY,
        "_CLOUD_RUN_JOBS": JOB,
    }
    return HostBuild(cloud, workspace, volume, substitutions)
