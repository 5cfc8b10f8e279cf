"""The command line as data: its commands, and a command's line as the parser understands it.
Nothing is executed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import typer

import command_line.entry  # noqa: F401 - puts the commands on the application
from command_line.app import app

PROGRAM = "python run_spark_local.py"


def leaf_commands(
    command: Any = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of every command that does something."""
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from leaf_commands(inner, (*path, name))


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
