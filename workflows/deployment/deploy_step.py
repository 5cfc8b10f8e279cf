"""The step `deploy`: the Cloud Workflow gets this commit's pipeline.yaml, and the Cloud Run jobs
the image. What is as it should be is not touched: a second run changes nothing.
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
        """The deployed workflow, as the API has it."""
        return self._described("workflows", "describe", self.workflow_name, self._location())

    def deploy_workflow(self) -> None:
        """Account and variables of the workflow stay as Terraform made them."""
        words = ["workflows", "deploy", self.workflow_name, f"--source={SOURCE}", self._location()]
        self._asked(*words)

    def image_of(self, job: str) -> str:
        """The image of a Cloud Run job."""
        document = self._described("run", "jobs", "describe", job, f"--region={self.region}")
        template = document["spec"]["template"]["spec"]["template"]
        return str(template["spec"]["containers"][0]["image"])

    def set_image(self, job: str, image: str) -> None:
        words = ["run", "jobs", "update", job, f"--image={image}", f"--region={self.region}"]
        self._asked(*words)

    def _location(self) -> str:
        return f"--location={self.region}"

    def _described(self, *words: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._asked(*words))
        return document

    def _asked(self, *words: str) -> str:
        return self.context.output_of(
            "gcloud", *words, f"--project={self.project}", "--format=json"
        )


def project_of(context: Context) -> Project:
    """The project that settings.env names. Raises: DeploymentFailed."""
    settings = released_settings(context)
    names = (settings["PROJECT_ID"], settings["REGION"], settings["WORKFLOW_NAME"])
    return Project(context, *names)


def source_of(context: Context) -> str:
    """pipeline.yaml of the checkout."""
    return (Path(context.root) / SOURCE).read_text(encoding="utf-8")


def deploy(context: Context) -> None:
    """Raises: DeploymentFailed; the release stays, and another build goes on."""
    project = project_of(context)
    image = provided_image(context, CLOUD_RUN)
    if project.workflow()["sourceContents"] == source_of(context):
        say(f"{project.workflow_name}: has this source already")
    else:
        project.deploy_workflow()
        say(f"{project.workflow_name}: deployed")
    for job in cloud_run_jobs(context):
        if project.image_of(job) == image:
            say(f"{job}: has this image already")
        else:
            project.set_image(job, image)
            say(f"{job}: {image}")
