"""`python -m workflows check`: checks pipeline.yaml before it is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson
from cli.terminal import print_json, say
from common.errors import ConfigurationError
from workflows.commands.app import app
from workflows.pipeline_lint.rules import check_source

PIPELINE = Path(__file__).resolve().parents[1] / "pipeline.yaml"

Source = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Source file of a workflow; default: workflows/pipeline.yaml.",
        exists=True,
        dir_okay=False,
    ),
]


@app.command()
def check(source: Source = PIPELINE, as_json: AsJson = False) -> None:
    """Check the source of the workflow by Google's deployment rules and our own.

    Example: python -m workflows check
    """
    faults = check_source(source.read_text(encoding="utf-8"))
    if as_json:
        print_json({"source": source, "faults": faults})
    if faults:
        raise ConfigurationError(f"{source}: {'; '.join(faults)}")
    say(f"{source.name}: no faults")
