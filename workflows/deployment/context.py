"""What every step of a deployment works with: the checkout, the variables of its container, and the
files that earlier steps left.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DeploymentFailed

SHOWN_LETTERS = 300
"""Longest part of a program's line in an error; its whole output stands in the log before."""


def say(line: str) -> None:
    """A line for the build's log."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Context:
    """root is the checkout; variables are the environment of the step's container."""

    root: Path
    variables: Mapping[str, str]

    def required(self, name: str, meaning: str) -> str:
        """A variable's value. Raises: DeploymentFailed where it is unset or empty."""
        value = self.variables.get(name, "").strip()
        if not value:
            raise DeploymentFailed(f"{name} is empty: {meaning}")
        return value

    @property
    def folder(self) -> Path:
        """Where steps hand files on. Raises: DeploymentFailed for a folder in the checkout."""
        folder = Path(self.required("DEPLOYMENT_FOLDER", "cloudbuild.yaml sets it to its volume"))
        if folder.resolve().is_relative_to(self.root.resolve()):
            raise DeploymentFailed(
                f"DEPLOYMENT_FOLDER={folder} is in the checkout {self.root}, and a new file there"
                " makes the checkout differ from its commit; set it to a folder outside"
            )
        return folder

    def save_output(self, name: str, document: Any) -> None:
        """Leave a document for later steps."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def load_output(self, name: str, step: str) -> Any:
        """A document that an earlier step left. Raises: DeploymentFailed where it is missing."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DeploymentFailed(
                f"{self.folder / name} can't be read ({error}): it is what the step `{step}` hands"
                " on; run the build again from the start"
            ) from None

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program in the checkout, with both outputs kept. Raises: DeploymentFailed where the
        program is not installed.
        """
        try:
            return subprocess.run(
                list(command),
                cwd=self.root,
                env=dict(self.variables),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise DeploymentFailed(
                f"{command[0]} is not in this step's image; give the step in cloudbuild.yaml an"
                " image that has it"
            ) from None

    def output_of(self, *command: str) -> str:
        """A program's stdout. Raises: DeploymentFailed where it fails, with what it ended with."""
        done = self.run(command)
        if done.returncode:
            raise DeploymentFailed(f"`{' '.join(command)}` failed: {last_error_line(done)}")
        return done.stdout


def last_error_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a program ended with, after all that it said went to the log: its line with ERROR, as
    gcloud writes it, else its last line.
    """
    output = (done.stderr.strip() or done.stdout.strip()) or f"exit code {done.returncode}"
    say(output)
    lines = [line.strip() for line in output.splitlines()]
    line = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    return line[:SHOWN_LETTERS]
