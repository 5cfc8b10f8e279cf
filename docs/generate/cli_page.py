"""docs/reference/cli.md, from the two Typer applications."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from operator import itemgetter
from pathlib import Path
from typing import Any

import typer

from cli import main as local_entry
from cli.app import app as local_app
from docs.generate.marked_table import markdown_table
from workflows.commands import main as cloud_entry
from workflows.commands.app import app as cloud_app

PROGRAMS = {
    "python run_spark_local.py": local_app,
    "python -m workflows": cloud_app,
}
ENTRIES = (local_entry, cloud_entry)
"""Importing them registers the commands."""

INTRODUCTION = """# Commands

`python run_spark_local.py` runs everything on this machine; `python -m workflows` works with Google
Cloud. Every command has `--help`. With `--json`, a command prints one JSON document on standard
output and nothing else there; logs go to standard error.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | the job or command failed |
| 2 | wrong use or configuration |
| 130 | interrupted |
"""

VALUES = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
"""Placeholder of a value by its type; any other type is a text."""

EXAMPLE = re.compile(r"^Examples?: (.+)$", re.MULTILINE)


def cli_page() -> str:
    """The page, one heading for each command."""
    parts = [INTRODUCTION]
    for program, app in PROGRAMS.items():
        parts.append(f"## {program}\n")
        parts += [
            _command(f"{program} {' '.join(path)}", " ".join(path), command)
            for path, command in leaf_commands(app)
        ]
    return "\n".join(parts)


def leaf_commands(app: typer.Typer) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its path of names, in alphabetical order."""
    yield from sorted(_leaves(typer.main.get_command(app), ()), key=itemgetter(0))


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, (*path, name))


def _command(line: str, name: str, command: Any) -> str:
    context = command.context_class(command, info_name=line, terminal_width=100)
    description = " ".join(EXAMPLE.sub("", command.help).split())
    examples = EXAMPLE.findall(command.help)
    rows = [
        (_flags(parameter), str(parameter.help))
        for parameter in command.params
        if not parameter.hidden
    ]
    usage = command.get_usage(context)
    parts = [f"### {name}", description, f"```text\n{usage}\n```"]
    if rows:
        parts.append(markdown_table(("option", "meaning"), rows))
    if examples:
        parts.append("\n".join(["```bash", *examples, "```"]))
    return "\n\n".join(parts) + "\n"


def _flags(parameter: Any) -> str:
    """The names of an option or argument, and what its value is."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    return f"`{names}`" if parameter.is_flag else f"`{names} {_value(parameter)}`"


def _value(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    if parameter.metavar:
        return str(parameter.metavar)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation)
    return VALUES.get(annotation, "TEXT")
