"""The step `deploy`: gives the Cloud Workflow this commit's pipeline.yaml and the Cloud Run jobs
the image. Skips what is up to date, so a second run changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.deployment.checkout import cloud_run_jobs
from workflows.deployment.context import Context, say
from workflows.deployment.images import CLOUD_RUN, provided_image
from workflows.deployment.settings_file import released_settings

SOURCE = "workflows/pipeline.yaml"


@dataclass(frozen=True)
class Project:
    """The project's services, by gcloud. Every method raises DeploymentFailed."""

    context: Context
    project: str
    region: str
    workflow_name: str

    def workflow(self) -> dict[str, Any]:
        """Return the deployed workflow, as the API shows it."""
        return self._describe("workflows", "describe", self.workflow_name, self._location())

    def deploy_workflow(self) -> None:
        """Deploy the source; Terraform's account and variables stay."""
        arguments = [
            "workflows",
            "deploy",
            self.workflow_name,
            f"--source={SOURCE}",
            self._location(),
        ]
        self._gcloud(*arguments)

    def image_of(self, job: str) -> str:
        """Return the image of a Cloud Run job."""
        job_spec = self._describe("run", "jobs", "describe", job, f"--region={self.region}")
        # gcloud shows a job in the form of the API v1
        template = job_spec["spec"]["template"]["spec"]["template"]
        return str(template["spec"]["containers"][0]["image"])

    def set_image(self, job: str, image: str) -> None:
        """Give a Cloud Run job an image; its other fields stay."""
        arguments = ["run", "jobs", "update", job, f"--image={image}", f"--region={self.region}"]
        self._gcloud(*arguments)

    def _location(self) -> str:
        return f"--location={self.region}"

    def _describe(self, *arguments: str) -> dict[str, Any]:
        resource: dict[str, Any] = json.loads(self._gcloud(*arguments))
        return resource

    def _gcloud(self, *arguments: str) -> str:
        return self.context.output_of(
            "gcloud", *arguments, f"--project={self.project}", "--format=json"
        )


def project_of(context: Context) -> Project:
    """Return the project in settings.env.

    Raises:
        DeploymentFailed: The settings are missing.
    """
    settings = released_settings(context)
    names = (settings["PROJECT_ID"], settings["REGION"], settings["WORKFLOW_NAME"])
    return Project(context, *names)


def source_of(context: Context) -> str:
    """Return pipeline.yaml of the checkout."""
    return (Path(context.root) / SOURCE).read_text(encoding="utf-8")


def deploy(context: Context) -> None:
    """Run the step. A failure leaves the release; another build continues.

    Raises:
        DeploymentFailed: gcloud fails.
    """
    project = project_of(context)
    image = provided_image(context, CLOUD_RUN)
    # a deployment of the same source would make another revision
    if project.workflow()["sourceContents"] == source_of(context):
        say(f"{project.workflow_name}: source is up to date")
    else:
        project.deploy_workflow()
        say(f"{project.workflow_name}: deployed")
    for job in cloud_run_jobs(context):
        if project.image_of(job) == image:
            say(f"{job}: image is up to date")
        else:
            project.set_image(job, image)
            say(f"{job}: {image}")
