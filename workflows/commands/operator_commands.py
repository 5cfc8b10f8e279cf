"""`python -m workflows operator -- db migrate`: a command of a release in a container inside the
network, followed from here.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.options import AsJson, edge_settings
from cli.terminal import print_json
from workflows.commands.allowed_commands import check_words
from workflows.commands.app import app
from workflows.commands.run_commands import Version
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
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND",
            help=(
                "db migrate, status, models, quarantine, evaluate or ingest, with their "
                "options, or workflows cost."
            ),
            show_default=False,
        ),
    ],
    version: Version = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the request as JSON without sending it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a command inside the private network, as a Cloud Run job, and show its output.

    The exit code is that of the command.

    Example: python -m workflows operator -- db migrate
    """
    check_words(words)
    settings = edge_settings()
    arguments = container_arguments(words, version)
    if dry_run:
        job = job_name(settings, OPERATOR_JOB)
        print_json({"job": job, "request": run_request(arguments)})
        return
    output: list[str] = []

    def show(line: Line) -> None:
        output.append(line.text) if as_json and line.is_output else pass_on(line)

    try:
        document = run_container(settings, OPERATOR_JOB, arguments, show)
    except ContainerFailed as error:
        error.document["output"] = output
        raise
    if as_json:
        print_json(document | {"output": output})


def pass_on(line: Line) -> None:
    """To standard output what was written there, so that it can be piped; the rest to standard
    error.
    """
    stream = sys.stdout if line.is_output else sys.stderr
    stream.write(f"{line.text}\n")
    stream.flush()
