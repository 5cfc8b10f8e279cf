"""Terraform's commands against the fakes: apply, what a second plan would change, and a destroy
that the protections refuse.

In: a copy of the configuration (`terraform_runs.py`), the address of the control plane, variables.
Out: what is in the state, and the outputs. The configuration is not changed: what is other here is
in the environment, and in an override file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import YieldSparkError
from emulator.terraform.google_provider import Say
from emulator.terraform.terraform_runs import ROOT, Terraform, copied_configuration

ENDPOINTS = {
    "artifact_registry": "artifactregistry.googleapis.com/v1/",
    "cloud_build": "cloudbuild.googleapis.com/v1/",
    "cloud_run_v2": "run.googleapis.com/v2/",
    "cloud_scheduler": "cloudscheduler.googleapis.com/v1/",
    "compute": "compute.googleapis.com/compute/v1/",
    "dns": "dns.googleapis.com/dns/v1/",
    "iam_beta": "iam.googleapis.com/v1/",
    "resource_manager": "cloudresourcemanager.googleapis.com/v1/",
    "secret_manager": "secretmanager.googleapis.com/v1/",
    "service_networking": "servicenetworking.googleapis.com/v1/",
    "service_usage": "serviceusage.googleapis.com/v1/",
    "sql": "sqladmin.googleapis.com/sql/v1beta4/",
    # its uploads go to /upload at the root, so there is no host before its path
    "storage": "storage/v1/",
    "workflows": "workflows.googleapis.com/v1/",
}
"""The provider's argument without `_custom_endpoint`, and the path at the control plane. They are
set by the argument's variable, which every provider block reads.
"""

SHORT_WAITS = {
    "batching": [{"send_after": "1s", "enable_batching": True}],
    "poll_interval": "0.2s",
}
"""By itself the provider waits 3 s for requests that it can send together, and 10 s between two
looks at an operation.
"""

PARALLELISM = "-parallelism=40"
"""After a grant the provider looks three times, a second apart, whether it lasts."""


class TerraformFailed(YieldSparkError):
    """A command of Terraform's ended with an error; the message has its words."""


def laid_out(
    folder: Path,
    url: str,
    variables: Mapping[str, Any],
    say: Say,
    *,
    token: str,
    source: Path = ROOT,
) -> Terraform:
    """A copy of the configuration whose provider asks the control plane at `url`. Args: token is
    the provider's `access_token`, in its environment. source is the checkout.

    Raises: EnvironmentNotReady where the provider can't be built.
    """
    terraform = copied_configuration(folder, say, source=source)
    (terraform.folder / "waits_override.tf.json").write_text(
        json.dumps({"provider": {"google": SHORT_WAITS}}), encoding="utf-8"
    )
    (terraform.folder / "terraform.tfvars.json").write_text(
        json.dumps(dict(variables)), encoding="utf-8"
    )
    endpoints = {
        f"GOOGLE_{name.upper()}_CUSTOM_ENDPOINT": f"{url}/{path}"
        for name, path in ENDPOINTS.items()
    }
    access = {"GOOGLE_OAUTH_ACCESS_TOKEN": token}
    return replace(terraform, environment={**terraform.environment, **endpoints, **access})


def apply(terraform: Terraform, *options: str) -> None:
    """Raises: TerraformFailed."""
    _said(terraform, "apply", "-input=false", "-no-color", "-auto-approve", PARALLELISM, *options)


def changes(terraform: Terraform, *options: str) -> list[str]:
    """What a plan would change: `actions address` for each. Raises: TerraformFailed."""
    _said(terraform, "plan", "-input=false", "-no-color", "-out=plan.tfplan", PARALLELISM, *options)
    plan = json.loads(_said(terraform, "show", "-json", "plan.tfplan"))
    planned = [
        ("/".join(change["change"]["actions"]), change["address"])
        for change in plan.get("resource_changes", [])
    ]
    return [f"{action} {address}" for action, address in planned if action not in ("no-op", "read")]


def refused_destroy(terraform: Terraform) -> str:
    """Try to destroy everything; returns Terraform's words, empty where nothing refused it."""
    finished = terraform.run("destroy", "-input=false", "-no-color", "-auto-approve", PARALLELISM)
    return finished.text if finished.exit_code else ""


def addresses(terraform: Terraform) -> list[str]:
    """Addresses of the resources in the state. Raises: TerraformFailed."""
    return _said(terraform, "state", "list").split()


def outputs(terraform: Terraform) -> dict[str, Any]:
    """Values of the outputs by name. Raises: TerraformFailed."""
    document = json.loads(_said(terraform, "output", "-json"))
    return {name: output["value"] for name, output in document.items()}


def _said(terraform: Terraform, *words: str) -> str:
    finished = terraform.run(*words)
    if finished.exit_code:
        raise TerraformFailed(
            f"terraform {words[0]} ended with {finished.exit_code}:\n{finished.text}"
        )
    return finished.text
