"""`python -m workflows operator -- db migrate`: runs a command of a release in a container inside
the private network and prints its output.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from cli.options import AsJson, load_command_settings
from cli.terminal import print_json
from workflows.commands.allowed_commands import require_allowed_command
from workflows.commands.app import app
from workflows.commands.options import DryRunRequest, Version
from workflows.inside_network.container_log import Line
from workflows.inside_network.container_runs import (
    ContainerFailed,
    container_arguments,
    run_container,
)
from workflows.inside_network.job_executions import job_name, run_request
from workflows.spec.release_paths import OPERATOR_JOB


@app.command()
def operator(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND",
            help=(
                "db migrate, db grant, status, runs, undo, validate, models, quarantine, evaluate "
                "or ingest, with their options, or workflows cost."
            ),
            show_default=False,
        ),
    ],
    version: Version = None,
    dry_run: DryRunRequest = False,
    as_json: AsJson = False,
) -> None:
    """Run a command inside the private network, as a Cloud Run job, and show its output.

    The exit code is that of the command.

    Example: python -m workflows operator -- db migrate
    """
    require_allowed_command(command)
    settings = load_command_settings()
    arguments = container_arguments(command, version)
    if dry_run:
        job = job_name(settings, OPERATOR_JOB)
        print_json({"job": job, "request": run_request(arguments)})
        return
    output: list[str] = []

    def handle_line(line: Line) -> None:
        if as_json and line.is_output:
            output.append(line.text)
        else:
            print_line(line)

    try:
        summary = run_container(settings, OPERATOR_JOB, arguments, handle_line)
    except ContainerFailed as error:
        # `--json` prints the document of the error in place of a summary
        error.document["output"] = output
        raise
    if as_json:
        print_json(asdict(summary) | {"output": output})


def print_line(line: Line) -> None:
    """Write a line to the stream it came from: output stays pipeable."""
    stream = sys.stdout if line.is_output else sys.stderr
    stream.write(f"{line.text}\n")
    stream.flush()
