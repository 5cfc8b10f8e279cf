"""Runs Terraform on a copy of `terraform/`, with the provider built here and without network
access. The copy keeps its state in its folder; the checkout is unchanged.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.terraform.google_provider import Say, built_provider, write_mirror

ROOT = Path(__file__).resolve().parents[2]

OFFLINE_VARIABLES = {
    "GOOGLE_OAUTH_ACCESS_TOKEN": "fake",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}
"""Make a request to Google fail at once, instead of after five minutes of retries."""

LOCAL_STATE = 'terraform {\n  backend "local" {}\n}\n'


@dataclass(frozen=True)
class Finished:
    """Exit code and combined output of a Terraform command."""

    exit_code: int
    text: str


@dataclass(frozen=True)
class Terraform:
    """A copy of the configuration, ready for commands."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, input_text: str | None = None) -> Finished:
        """Run one command in the copy; a failure is not raised."""
        process = subprocess.run(
            ["terraform", *arguments],
            cwd=self.folder,
            env=dict(self.environment),
            input=input_text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Finished(process.returncode, process.stdout)

    def checked(self, *arguments: str) -> str:
        """Run a command that must succeed and return its output.

        Raises:
            AssertionError: It fails; has its output.
        """
        result = self.run(*arguments)
        assert result.exit_code == 0, f"terraform {' '.join(arguments)}:\n{result.text}"
        return result.text

    def plan(self, *arguments: str) -> dict[str, Any]:
        """Return the plan as JSON.

        Raises:
            AssertionError: The plan fails; has its output.
        """
        self.checked("plan", "-input=false", "-no-color", "-out=plan.tfplan", *arguments)
        plan: dict[str, Any] = json.loads(self.checked("show", "-json", "plan.tfplan"))
        return plan


def copy_configuration(folder: Path, say: Say, *, source: Path = ROOT) -> Terraform:
    """Copy `terraform/`, pipeline.yaml and the runbooks, and initialise the copy with the provider.

    Args:
        folder: Empty or missing.
        say: Receives progress lines.
        source: The checkout.

    Raises:
        EnvironmentNotReady: The provider cannot be built.
        AssertionError: `terraform init` fails.
    """
    copy = folder / "terraform"
    # not a user's own state and plans
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfplan")
    shutil.copytree(source / "terraform", copy, ignore=ignored)
    (folder / "workflows").mkdir()
    shutil.copy2(source / "workflows" / "pipeline.yaml", folder / "workflows")
    shutil.copytree(source / "docs" / "runbooks", folder / "docs" / "runbooks")
    (copy / "backend_override.tf").write_text(LOCAL_STATE, encoding="utf-8")
    configuration = write_mirror(folder, built_provider(say))
    terraform = Terraform(copy, _environment(configuration))
    terraform.checked("init", "-input=false", "-no-color")
    return terraform


def _environment(configuration: Path) -> dict[str, str]:
    """Return this process's variables without Google's and Terraform's."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GOOGLE_", "GCLOUD_", "CLOUDSDK_", "TF_"))
        and name.upper() not in OFFLINE_VARIABLES
    }
    # Go reads the proxy's variables in upper case first, other programs in lower case
    return {
        **variables,
        **OFFLINE_VARIABLES,
        **{
            name.lower(): value
            for name, value in OFFLINE_VARIABLES.items()
            if name.endswith("PROXY")
        },
        "TF_CLI_CONFIG_FILE": str(configuration),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
    }
