"""Tests that the generated pages and tables of the documentation are up to date."""

from __future__ import annotations

from itertools import chain

import pytest

from cli.app import app as local_app
from config_spark import SECTIONS, Settings
from docs.generate.__main__ import generated_pages, main, outdated_pages
from docs.generate.cli_page import cli_page, leaf_commands
from docs.generate.marked_table import markdown_table, replace_between
from docs.generate.settings_page import settings_page
from docs.generate.tables_page import tables_page
from workflows.commands.app import app as cloud_app


def test_the_pages_are_current() -> None:
    assert list(outdated_pages()) == [], "run `python -m docs.generate`"


def test_check_writes_nothing_and_names_the_outdated_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"]) == 0
    path = next(iter(generated_pages()))
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr("docs.generate.__main__.cli_page", lambda: "another page")
    assert main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/reference/cli.md\n"
    assert path.read_text(encoding="utf-8") == before


def test_every_setting_has_a_row_with_its_default_its_limits_and_a_meaning() -> None:
    fields = list(chain.from_iterable(section.model_fields for section in SECTIONS))
    assert sorted(fields) == sorted(Settings.model_fields)
    page = settings_page()
    assert [name for name in fields if page.count(f"| `{name.upper()}` |") != 1] == []
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    for row in (
        "| `DB_PORT` | `5432` | 1 to 65535 |",
        "| `MAX_TVL_USD` | `1000000000000` | more than 0 to 1e+17 |",
        "| `INTERVAL_LEVEL` | `0.8` | more than 0 to less than 1 |",
        "| `PLATFORM` | `dataproc` | `dataproc`, `cloud_run`, `auto` |",
        "| `INCLUDE_TODAY` | `false` | `true`, `false` |",
        "| `DB_PASSWORD` | unset |  |",
    ):
        assert row in page


def test_every_command_has_a_heading_and_every_option_a_row() -> None:
    page = cli_page()
    for app in (local_app, cloud_app):
        for path, command in leaf_commands(app):
            assert f"\n### {' '.join(path)}\n" in page
            options = list(chain.from_iterable(parameter.opts for parameter in command.params))
            assert [name for name in options if name.strip("-").lower() not in page.lower()] == []
    assert r"| `--kind history\|prices\|gas\|pools` |" in page


def test_every_column_has_a_row() -> None:
    page = tables_page()
    assert (
        "| `forecasted_apy` | numeric(20, 4) | percent, forecast made for this day | forecast"
        in (page)
    )
    assert "### run_ledger" in page


def test_a_cell_is_one_line_and_a_page_without_marks_is_an_error() -> None:
    table = markdown_table(("a", "b"), [("1|2", "two\nlines")])
    assert table == "| a | b |\n|---|---|\n| 1\\|2 | two lines |"
    page = "x\n<!-- t -->\nold\n<!-- end of t -->\ny\n"
    assert replace_between(page, "t", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="must have <!-- u --> and <!-- end of u -->, once each"):
        replace_between(page, "u", "new")
