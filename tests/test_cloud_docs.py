"""docs/cloud.md is true: its commands exist with their options, its settings, files and words are
the code's; the picture is what the code draws.
"""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import typer

from config_spark import Settings
from docs import draw_architecture
from docs.draw_architecture import COMMANDS, PICTURE, PIPELINE, Box, draw
from tests.processes import PROJECT
from workflows.app import app
from workflows.local.local_cloud import token_variables

PROGRAM = "python -m workflows"
TEXT = (PROJECT / "docs" / "cloud.md").read_text(encoding="utf-8")
BUILD = (PROJECT / "cloudbuild.yaml").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith(PROGRAM)])
def test_a_command_of_the_page_is_understood(line: str) -> None:
    words = shlex.split(line.removeprefix(PROGRAM))
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert command.make_context(command.name, words).args == []


def test_every_command_is_on_the_page() -> None:
    named = {shlex.split(line)[3] for line in LINES if line.startswith(PROGRAM)}
    assert named == {name for names in COMMANDS.values() for name in names}


def test_settings_and_files_of_the_page_exist() -> None:
    settings = {
        word for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", TEXT) if not word.endswith("_")
    } - {"NOT_CREATED", *re.findall(r"[A-Z_]+(?==)", BUILD), *token_variables("", Path())}
    assert {name.lower() for name in settings} <= set(Settings.model_fields)
    paths = {
        *re.findall(r"`((?:workflows|container|docs)/[\w./]*)`", TEXT),
        *(f"docs/{link}" for link in re.findall(r"\]\((\w+\.\w+)\)", TEXT)),
    }
    assert [path for path in sorted(paths) if not (PROJECT / path).exists()] == []


def test_the_workflows_own_words_are_on_the_page() -> None:
    source = PIPELINE.read_text(encoding="utf-8")
    events = re.findall(
        r"`([a-z]+_[a-z]+)`", TEXT.partition("one line for each event")[2].partition(")")[0]
    )
    assert events
    assert [event for event in events if f"event: {event}" not in source] == []
    for words in (
        "was asked to end",
        "did not end",
        "was not created",
        "is running since",
        "can not be read",
        '" ended "',
    ):
        assert words in source
        assert words.strip('" ').removesuffix(" since") in TEXT


def test_the_picture_is_what_the_code_draws() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), (
        "run `python -m docs.draw_architecture` and look at the picture"
    )


def test_the_picture_shows_what_there_is() -> None:
    words = [element.text for element in ElementTree.fromstring(draw()).iter(f"{SVG}text")]
    for name in (
        "calculate_pool_metrics.py",
        "latest.json",
        "forecast_pools/synapseml",
        "run_cloud_run_job",
        "pool_daily_metrics",
        "CONTAINER_IMAGE, pinned",
    ):
        assert name in words


def test_a_changed_name_changes_the_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = draw()
    changed = tmp_path / "pipeline.yaml"
    changed.write_text(
        PIPELINE.read_text(encoding="utf-8").replace("resolve_release", "find_release")
    )
    monkeypatch.setattr(draw_architecture, "PIPELINE", changed)
    assert draw() == before.replace("resolve_release", "find_release")


def test_a_command_without_a_place_and_a_name_that_does_not_fit_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draw_architecture, "COMMANDS", COMMANDS | {"pipeline": ()})
    with pytest.raises(ValueError, match=r"of the commands \['run'\] are new or gone"):
        draw()
    with pytest.raises(ValueError, match=r"the box 'a title' is too small: .*long"):
        Box(0, 0, 100, 100, "a title", ["a very long line of text"])
    with pytest.raises(ValueError, match=r"the box 'a title' is too small: 5 lines"):
        Box(0, 0, 100, 100, "a title", ["line"] * 5)
