"""The commands that run inside the network: which there are, whether words are one of them, and
their start in the container.

In: words as `run_spark_local.py` takes them, behind `workflows` those of `python -m workflows`.
Out: nothing for words that can be run, an error for others. The laptop asks before it starts a
container, the container before it begins.
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

ALLOWED = ("db migrate", "status", "models", "quarantine", "evaluate", "ingest", "workflows cost")
"""A group stands for all of its commands."""

WORKFLOWS = "workflows"
"""First of the words for `python -m workflows`; `status` alone is `run_spark_local.py`'s."""


def check_words(words: Sequence[str]) -> None:
    """See whether the words are an allowed command, with options that it has. With --help they
    print that, and end as --help does.

    Raises: ConfigurationError naming what is allowed; Typer's own error for wrong options.
    """
    _require_allowed(words)
    app: typer.Typer = workflows_app if words[0] == WORKFLOWS else command_line_app
    command: Any = typer.main.get_command(app)
    rest = list(words[1:] if words[0] == WORKFLOWS else words)
    path: list[str] = []
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        if name not in command.commands:
            raise ConfigurationError(
                f"`{' '.join([*path, name]).strip()}` is no command; there are"
                f" {', '.join(' '.join([*path, known]) for known in command.commands)}"
            )
        path.append(name)
        command = command.commands[name]
    command.make_context(" ".join(path), rest)


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    words = sys.argv[1:]
    try:
        _require_allowed(words)
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    if words[0] == WORKFLOWS:
        del sys.argv[1]
        run_application(workflows_app, failed_command, prog_name="python -m workflows")
    entry.main()


def _require_allowed(words: Sequence[str]) -> None:
    if not any(list(words[: len(known.split())]) == known.split() for known in ALLOWED):
        raise ConfigurationError(
            f"{' '.join(words) or 'no command'!r} does not run inside the network; allowed:"
            f" {', '.join(ALLOWED)}. Words follow `--`, such as -- db migrate"
        )
