"""Commands that run inside the private network, and their entry point in the container. The laptop
checks a command before it starts a container, and the container before it runs the command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

from cli import main as entry
from cli.app import app as command_line_app
from cli.run_application import run_application
from common.errors import ConfigurationError
from workflows.commands import cost_commands  # noqa: F401
from workflows.commands.app import app as workflows_app
from workflows.commands.app import failed_command

ALLOWED = (
    "db migrate",
    "db grant",
    "status",
    "runs",
    "undo",
    "validate",
    "models",
    "quarantine",
    "evaluate",
    "ingest",
    "workflows cost",
)
"""A group of commands allows each of its commands."""

WORKFLOWS = "workflows"
"""Precedes a command of `python -m workflows`. Without it, `status` is run_spark_local.py's."""


def require_allowed_command(arguments: Sequence[str]) -> None:
    """Check that the arguments are an allowed command with options that it has.

    Args:
        arguments: Command line as run_spark_local.py takes it, or behind `workflows` as `python -m
            workflows` does.

    Raises:
        ConfigurationError: The command is not allowed; the message lists those that are.
        click.UsageError: An option is wrong.
    """
    _require_allowed(arguments)
    app: typer.Typer = workflows_app if arguments[0] == WORKFLOWS else command_line_app
    command: Any = typer.main.get_command(app)
    rest = list(arguments[1:] if arguments[0] == WORKFLOWS else arguments)
    path: list[str] = []
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        if name not in command.commands:
            names = [" ".join([*path, subcommand]) for subcommand in command.commands]
            raise ConfigurationError(
                f"`{' '.join([*path, name]).strip()}` is no command; allowed: {', '.join(names)}"
            )
        path.append(name)
        command = command.commands[name]
    # parses the options and runs nothing
    command.make_context(" ".join(path), rest)


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    arguments = sys.argv[1:]
    try:
        _require_allowed(arguments)
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    if arguments[0] == WORKFLOWS:
        # the application reads the arguments behind its own name
        del sys.argv[1]
        run_application(workflows_app, failed_command, prog_name="python -m workflows")
    entry.main()


def _require_allowed(arguments: Sequence[str]) -> None:
    if not any(list(arguments[: len(command.split())]) == command.split() for command in ALLOWED):
        raise ConfigurationError(
            f"{' '.join(arguments) or 'no command'!r} does not run inside the network; allowed:"
            f" {', '.join(ALLOWED)}. Write the command behind `--`, such as -- db migrate"
        )
