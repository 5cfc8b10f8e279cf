"""Tests that messages are cut at one length in output, tables and JSON, and that the log file has
them whole.
"""

from __future__ import annotations

import pytest

from common.errors import (
    MAX_MESSAGE_CHARACTERS,
    InputError,
    SchemaMismatch,
    full_message,
    shorten_message,
    summarize_error,
)
from tests.support.processes import CommandLine

LONG = "the begin " + "x" * 5000 + " and the next step"


@pytest.mark.parametrize("error", [InputError(LONG), SchemaMismatch(LONG), ValueError(LONG)])
def test_an_error_keeps_its_begin_and_its_next_step(error: Exception) -> None:
    sentence = summarize_error(error)
    assert len(sentence) <= MAX_MESSAGE_CHARACTERS
    assert "the begin xxx" in sentence
    assert sentence.endswith("xxx and the next step")
    assert " ... " in sentence
    assert full_message(error) == LONG


def test_short_messages_are_not_cut() -> None:
    assert shorten_message("x" * MAX_MESSAGE_CHARACTERS) == "x" * MAX_MESSAGE_CHARACTERS
    assert str(InputError("short")) == summarize_error(InputError("short")) == "short"


def test_the_command_line_prints_no_longer_line(run_here: CommandLine) -> None:
    name = f"no_such_{'x' * 200}/" * 4
    finished = run_here("load", f"{name}.csv", "--json")
    assert finished.returncode == 2
    assert max(map(len, finished.stderr.splitlines())) <= MAX_MESSAGE_CHARACTERS + len("error: ")
    assert "the whole message is in" in finished.stderr
    finished = run_here("load", "a.csv", "--kind", "x" * 5000)
    assert finished.returncode == 2
    assert finished.stderr.count("x") < 2 * MAX_MESSAGE_CHARACTERS
