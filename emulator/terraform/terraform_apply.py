"""Runs Terraform against the fakes: apply, a second plan, and a destroy that protections reject.
The configuration is unchanged; differences are in the environment and an override file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import YieldSparkError
from emulator.terraform.google_provider import Say
from emulator.terraform.terraform_runs import ROOT, Terraform, copy_configuration

ENDPOINTS = {
    "artifact_registry": "artifactregistry.googleapis.com/v1/",
    "billing_budgets": "billingbudgets.googleapis.com/v1/",
    "cloud_billing": "cloudbilling.googleapis.com/",
    "cloud_build": "cloudbuild.googleapis.com/v1/",
    "cloud_run_v2": "run.googleapis.com/v2/",
    "cloud_scheduler": "cloudscheduler.googleapis.com/v1/",
    "compute": "compute.googleapis.com/compute/v1/",
    "dns": "dns.googleapis.com/dns/v1/",
    "iam_beta": "iam.googleapis.com/v1/",
    "logging": "logging.googleapis.com/v2/",
    "monitoring": "monitoring.googleapis.com/",
    "resource_manager": "cloudresourcemanager.googleapis.com/v1/",
    "secret_manager": "secretmanager.googleapis.com/v1/",
    "service_networking": "servicenetworking.googleapis.com/v1/",
    "service_usage": "serviceusage.googleapis.com/v1/",
    "sql": "sqladmin.googleapis.com/sql/v1beta4/",
    # uploads go to /upload at the root, so the path has no host
    "storage": "storage/v1/",
    "workflows": "workflows.googleapis.com/v1/",
}
"""Path at the control plane of each provider argument `<name>_custom_endpoint`. They are set by
environment variables, which every provider block reads.
"""

SHORT_WAITS = {
    "batching": [{"send_after": "1s", "enable_batching": True}],
    "poll_interval": "0.2s",
}
"""The provider's defaults are 3 s for requests that it batches, and 10 s between polls of an
operation.
"""

PARALLELISM = "-parallelism=40"
"""After a grant the provider checks three times, a second apart, whether it persists."""


class TerraformFailed(YieldSparkError):
    """A Terraform command failed; the message has its output."""


def prepare_configuration(
    folder: Path,
    url: str,
    variables: Mapping[str, Any],
    say: Say,
    *,
    token: str,
    source: Path = ROOT,
) -> Terraform:
    """Copy the configuration and direct its provider to the control plane.

    Args:
        folder: Receives the copy.
        url: Address of the control plane.
        variables: Values of the configuration's variables.
        say: Receives progress lines.
        token: Access token of the provider.
        source: The checkout.

    Raises:
        EnvironmentNotReady: The provider cannot be built.
    """
    terraform = copy_configuration(folder, say, source=source)
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
    """Apply the configuration.

    Raises:
        TerraformFailed: The apply fails.
    """
    _run(terraform, "apply", "-input=false", "-no-color", "-auto-approve", PARALLELISM, *options)


def changes(terraform: Terraform, *options: str) -> list[str]:
    """Return the changes of a new plan, as `actions address`.

    Raises:
        TerraformFailed: The plan fails.
    """
    _run(terraform, "plan", "-input=false", "-no-color", "-out=plan.tfplan", PARALLELISM, *options)
    plan = json.loads(_run(terraform, "show", "-json", "plan.tfplan"))
    planned = [
        ("/".join(change["change"]["actions"]), change["address"])
        for change in plan.get("resource_changes", [])
    ]
    return [f"{action} {address}" for action, address in planned if action not in ("no-op", "read")]


def destroy_error(terraform: Terraform) -> str:
    """Try to destroy everything; return the error, empty if it succeeded."""
    result = terraform.run("destroy", "-input=false", "-no-color", "-auto-approve", PARALLELISM)
    return result.text if result.exit_code else ""


def addresses(terraform: Terraform) -> list[str]:
    """Return the addresses of the resources in the state.

    Raises:
        TerraformFailed: The command fails.
    """
    return _run(terraform, "state", "list").split()


def outputs(terraform: Terraform) -> dict[str, Any]:
    """Return the outputs by name.

    Raises:
        TerraformFailed: The command fails.
    """
    values = json.loads(_run(terraform, "output", "-json"))
    return {name: output["value"] for name, output in values.items()}


def _run(terraform: Terraform, *arguments: str) -> str:
    result = terraform.run(*arguments)
    if result.exit_code:
        raise TerraformFailed(
            f"terraform {arguments[0]} ended with {result.exit_code}:\n{result.text}"
        )
    return result.text
