"""Context of a deployment step: the checkout, the variables of its container, and the files of
earlier steps.
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
"""Longest part of a program's output in an error; the log has all of it."""


def say(line: str) -> None:
    """Write a line to the build's log."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Context:
    """Context of one step.

    Attributes:
        root: The checkout.
        variables: Environment of the step's container.
    """

    root: Path
    variables: Mapping[str, str]

    def required(self, name: str, meaning: str) -> str:
        """Return a variable's value.

        Args:
            name: Name of the variable.
            meaning: Who sets it, for the error.

        Raises:
            DeploymentFailed: It is unset or empty.
        """
        value = self.variables.get(name, "").strip()
        if not value:
            raise DeploymentFailed(f"{name} is empty: {meaning}")
        return value

    @property
    def folder(self) -> Path:
        """Return the folder for the files of steps.

        Raises:
            DeploymentFailed: It is inside the checkout.
        """
        folder = Path(self.required("DEPLOYMENT_FOLDER", "cloudbuild.yaml sets it to its volume"))
        if folder.resolve().is_relative_to(self.root.resolve()):
            raise DeploymentFailed(
                f"DEPLOYMENT_FOLDER={folder} is in the checkout {self.root}, and a new file there"
                " makes the checkout differ from its commit; set it to a folder outside"
            )
        return folder

    def save_output(self, name: str, payload: Any) -> None:
        """Write a payload for later steps."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")

    def load_output(self, name: str, step: str) -> Any:
        """Read the payload of an earlier step.

        Raises:
            DeploymentFailed: It is missing or damaged.
        """
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DeploymentFailed(
                f"{self.folder / name} can't be read ({error}): the step `{step}` writes it; run"
                " the build again from the start"
            ) from None

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program in the checkout and capture its output.

        Raises:
            DeploymentFailed: The program is not installed.
        """
        try:
            return subprocess.run(
                list(command),
                cwd=self.root,
                env=dict(self.variables),
                # a prompt of gcloud or docker would wait for ever
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
        """Return a program's standard output.

        Raises:
            DeploymentFailed: The program fails; the message has its error.
        """
        process = self.run(command)
        if process.returncode:
            raise DeploymentFailed(f"`{' '.join(command)}` failed: {last_error_line(process)}")
        return process.stdout


def last_error_line(process: subprocess.CompletedProcess[str]) -> str:
    """Log a program's output; return its ERROR line, as gcloud writes it, else its last line."""
    output = (process.stderr.strip() or process.stdout.strip()) or f"exit code {process.returncode}"
    say(output)
    lines = [line.strip() for line in output.splitlines()]
    line = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    return line[:SHOWN_LETTERS]
