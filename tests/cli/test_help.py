"""Tests that the parser understands the command lines of help texts and documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.exceptions import TyperException

from cli.app import app
from common.version import PRODUCT_VERSION
from data_processing import calculate_pool_metrics_spark
from docs.generate.cli_page import leaf_commands
from forecasting import forecast_pools_spark
from sample_data import SAMPLE_FILES
from tests.support.command_tree import PROGRAM, parsed
from tests.support.processes import PROJECT

PAGES = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    *sorted(set((PROJECT / "docs").rglob("*.md")) - set((PROJECT / "docs/reference").iterdir())),
]
TEXTS = [page.read_text(encoding="utf-8").splitlines() for page in PAGES]
LINES = [line for line in chain.from_iterable(TEXTS) if line.startswith(PROGRAM)]
LEAVES = {" ".join(path): command for path, command in leaf_commands(app)}


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_a_valid_example_and_every_option_a_help_text(
    name: str,
) -> None:
    command = LEAVES[name]
    (example,) = re.findall(rf"Example: .*?({PROGRAM} [^|\n]*)", command.help)
    assert example.removeprefix(PROGRAM).strip().startswith(name)
    parsed(example)
    assert [parameter.name for parameter in command.params if not parameter.help] == []


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_pages_is_understood(line: str) -> None:
    parsed(line)


def test_an_invalid_line_is_rejected() -> None:
    with pytest.raises(KeyError, match="calculate_metric"):
        parsed(f"{PROGRAM} calculate_metric")
    for line in ("calculate_metrics --everything", "quarantine show seven"):
        with pytest.raises(TyperException):
            parsed(f"{PROGRAM} {line}")


def test_pools_of_the_pages_are_whole_ids_of_the_sample() -> None:
    pools_of_files = [
        pq.read_table(path)["pool"].to_pylist() for path in SAMPLE_FILES if path.stem == "pools"
    ]
    pools_of_pages: list[str] = []
    for values in (parsed(line) for line in LINES if "--pool" in line):
        pools_of_pages += (values.get("pool") or "").split(",")
        pools_of_pages += (values.get("pools") or "").split(",")
    pools = set(filter(None, pools_of_pages))
    assert pools
    assert pools <= set(chain.from_iterable(pools_of_files))


@pytest.mark.parametrize(
    "main",
    [calculate_pool_metrics_spark.main, forecast_pools_spark.main],
    ids=["metrics", "forecast"],
)
def test_the_jobs_own_help_has_an_example_too(
    main: Callable[[Sequence[str]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert re.search(r"Example: python \w+/\w+_spark\.py --", capsys.readouterr().out)


def test_the_first_line_of_help_is_one_sentence_that_fits_a_terminal() -> None:
    summaries = {name: command.help.partition("\n\n")[0] for name, command in LEAVES.items()}
    assert {
        name: text for name, text in summaries.items() if len(" ".join(text.split())) > 100
    } == {}
    assert {name: text for name, text in summaries.items() if ". " in text} == {}


def test_every_command_has_a_group_in_help() -> None:
    group: Any = typer.main.get_command(app)
    assert [name for name, command in group.commands.items() if not command.rich_help_panel] == []


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["--version"], standalone_mode=False) == 0
    assert capsys.readouterr().out == f"YieldSpark {PRODUCT_VERSION}\n"
