"""Runs Terraform on a copy of `terraform/`, with the provider that was built here and without a way
out of this machine.

In: a folder of one's own. Out: what Terraform printed, as text or as the JSON of its plan. The copy
keeps its state in the folder; the checkout stays as it is.
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

NO_WAY_OUT = {
    "GOOGLE_OAUTH_ACCESS_TOKEN": "fake",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}
"""A request to Google ends at once, in place of five minutes of tries."""

LOCAL_STATE = 'terraform {\n  backend "local" {}\n}\n'


@dataclass(frozen=True)
class Finished:
    """What a command of Terraform left: exit code and both outputs in one text."""

    exit_code: int
    text: str


@dataclass(frozen=True)
class Terraform:
    """A copy of the configuration, ready for Terraform's commands."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *words: str, input_text: str | None = None) -> Finished:
        """Run one command in the copy. The exit code is for the caller to judge."""
        done = subprocess.run(
            ["terraform", *words],
            cwd=self.folder,
            env=dict(self.environment),
            input=input_text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout)

    def checked(self, *words: str) -> str:
        """The same, for a command that must succeed. Raises: AssertionError with what it said."""
        finished = self.run(*words)
        assert finished.exit_code == 0, f"terraform {' '.join(words)}:\n{finished.text}"
        return finished.text

    def plan(self, *words: str) -> dict[str, Any]:
        """The plan as JSON. Raises: AssertionError with what Terraform said."""
        self.checked("plan", "-input=false", "-no-color", "-out=plan.tfplan", *words)
        document: dict[str, Any] = json.loads(self.checked("show", "-json", "plan.tfplan"))
        return document


def copied_configuration(folder: Path, say: Say, *, source: Path = ROOT) -> Terraform:
    """Copy `terraform/` and the workflow that it reads, and initialise it with the provider.

    Args: folder is empty or not there. source is the checkout. Raises: EnvironmentNotReady where
    the provider can't be built; AssertionError where `terraform init` fails.
    """
    copy = folder / "terraform"
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfplan")
    shutil.copytree(source / "terraform", copy, ignore=ignored)
    (folder / "workflows").mkdir()
    shutil.copy2(source / "workflows" / "pipeline.yaml", folder / "workflows")
    (copy / "backend_override.tf").write_text(LOCAL_STATE, encoding="utf-8")
    configuration = write_mirror(folder, built_provider(say))
    terraform = Terraform(copy, _environment(configuration))
    terraform.checked("init", "-input=false", "-no-color")
    return terraform


def _environment(configuration: Path) -> dict[str, str]:
    """This process's variables without Google's and Terraform's own, which would reach into the
    runs.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GOOGLE_", "GCLOUD_", "CLOUDSDK_", "TF_"))
        and name.upper() not in NO_WAY_OUT
    }
    return {
        **kept,
        **NO_WAY_OUT,
        **{name.lower(): value for name, value in NO_WAY_OUT.items() if name.endswith("PROXY")},
        "TF_CLI_CONFIG_FILE": str(configuration),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
    }
