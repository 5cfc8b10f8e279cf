"""The command line as data: its commands, and a command's line as the parser understands it.
Nothing is executed.
"""

from __future__ import annotations

import shlex
from typing import Any

import typer

import cli.main  # noqa: F401 - puts the commands on the application
from cli.app import app

PROGRAM = "python run_spark_local.py"


def parsed(line: str) -> dict[str, Any]:
    """The values of a shell's line that begins with PROGRAM; without a command it is the demo.

    Raises: KeyError for an unknown command, and the parser's own errors.
    """
    words = shlex.split(line.removeprefix(PROGRAM), comments=True) or ["demo"]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    values: dict[str, Any] = command.make_context(command.name, words).params
    return values
