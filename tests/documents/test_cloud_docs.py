"""Tests that docs/cloud.md and docs/guides/cloud-operations.md agree with the code: commands,
options, settings, files and messages exist.
"""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer

from config_spark import Settings
from docs.generate.cli_page import leaf_commands
from emulator.local.local_cloud import token_variables
from tests.support.processes import PROJECT
from workflows.commands import main as entry  # noqa: F401
from workflows.commands.app import app

PROGRAM = "python -m workflows"
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (
        PROJECT / "docs" / "cloud.md",
        PROJECT / "docs" / "guides" / "cloud-operations.md",
        PROJECT / "docs" / "guides" / "cloud-monitoring.md",
        *sorted((PROJECT / "docs" / "runbooks").glob("*.md")),
    )
}
TEXT = "\n".join(PAGES.values())
BUILD = (PROJECT / "cloudbuild.yaml").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
# a block inside a list is indented
LINES = [line.strip() for line in chain.from_iterable(map(str.splitlines, BLOCKS))]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith(PROGRAM)])
def test_a_command_of_the_pages_is_understood(line: str) -> None:
    arguments = shlex.split(line.removeprefix(PROGRAM))
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    assert command.make_context(command.name, arguments).args == []


def test_every_command_is_on_a_page() -> None:
    documented = {shlex.split(line)[3] for line in LINES if line.startswith(PROGRAM)}
    assert documented == {path[0] for path, _ in leaf_commands(app)}


def test_settings_and_files_of_the_pages_exist() -> None:
    settings = {
        word for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", TEXT) if not word.endswith("_")
    } - {"NOT_CREATED", "RUN_ID", *re.findall(r"[A-Z_]+(?==)", BUILD), *token_variables("", Path())}
    assert {name.lower() for name in settings} <= set(Settings.model_fields)
    names = re.findall(r"`((?:workflows|container|docs)/[\w./]*)`", TEXT)
    paths = {PROJECT / name for name in names}
    for page, text in PAGES.items():
        links = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)
        paths |= {page.parent / link for link in links}
    assert [path for path in sorted(paths) if not path.exists()] == []


def test_the_messages_of_the_workflow_are_on_a_page() -> None:
    source = (PROJECT / "workflows" / "pipeline.yaml").read_text(encoding="utf-8")
    events = re.findall(
        r"`([a-z]+_[a-z]+)`", TEXT.partition("one line for each event")[2].partition(")")[0]
    )
    assert events
    assert [event for event in events if f"event: {event}" not in source] == []
    for message in (
        "was asked to end",
        "did not end",
        "was not created",
        "is running since",
        "can not be read",
        '" ended "',
    ):
        assert message in source
        assert message.strip('" ').removesuffix(" since") in TEXT
