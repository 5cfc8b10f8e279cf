"""Escape sequences, line ends and bidirectional controls of text from outside reach neither the
terminal nor the log.
"""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.text import Text

from cli.terminal import PlainConsole
from common.errors import InputError, full_message, summarize_error
from common.logging_setup import LineFormatter
from common.plain_text import REPLACEMENT, on_one_line, without_controls, without_credentials
from tests.support.hostile_values import INVISIBLE, TERMINAL, UNSTORABLE

HOSTILE = [*TERMINAL, *INVISIBLE, *UNSTORABLE, "one\u2028two"]


@pytest.mark.parametrize("text", HOSTILE)
def test_replaces_control_characters_one_by_one(text: str) -> None:
    printed = without_controls(text)
    assert len(printed) == len(text)
    assert REPLACEMENT in printed
    assert all(character.isprintable() for character in printed)


def test_keeps_other_text() -> None:
    text = "pool-é 日本 🦄 a\u0301 עברית\tx\ny"
    assert without_controls(text) == text
    assert on_one_line("a\r\nb\nc") == "a\\r\\nb\\nc"


@pytest.mark.parametrize("text", HOSTILE)
def test_console_prints_only_its_own_escape_sequences(text: str) -> None:
    hostile, plain = io.StringIO(), io.StringIO()
    for stream, printed in ((hostile, text), (plain, REPLACEMENT * len(text))):
        console = PlainConsole(file=stream, force_terminal=True, highlight=False, width=60)
        console.print(Text(f"[bold]{printed}", style="red"))
        console.print(f"  {printed}", style="dim", markup=False, soft_wrap=True)
    own = {"\x1b", "\n"}
    assert "\x1b[31m" in hostile.getvalue(), "the console's own style"
    assert hostile.getvalue().count("\x1b") == plain.getvalue().count("\x1b")
    assert all(sign.isprintable() or sign in own for sign in hostile.getvalue())


def test_the_traceback_of_another_handlers_formatter_is_not_taken_over() -> None:
    """Python's formatters keep their text in the record, for formatters of later handlers."""
    try:
        raise ValueError("http://me:hunter2@a.example \x1b[31m")
    except ValueError as error:
        record = logging.makeLogRecord({"exc_info": (ValueError, error, error.__traceback__)})
    by_others = logging.Formatter().format(record)
    ours = LineFormatter().format(record)
    assert "http://(hidden)@a.example" in ours
    assert "\x1b" not in ours
    assert logging.Formatter().format(record) == by_others


def test_record_is_one_line_and_its_traceback_has_no_escape_sequences() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = logging.LogRecord(
            "x", logging.INFO, "", 0, "pool %s", ("a\n2026-01-01 INFO forged\x1b",), sys.exc_info()
        )
    first, *others = LineFormatter().format(record).split("\n")
    assert first.endswith(f"INFO x: pool a\\n2026-01-01 INFO forged{REPLACEMENT}")
    assert others[0].startswith("Traceback")
    assert "\x1b" not in "".join(others)


@pytest.mark.parametrize("error", [InputError("pool \x1b[2J\nb"), RuntimeError("pool \x9b\nb")])
def test_error_summary_has_no_escape_sequences(error: Exception) -> None:
    assert summarize_error(error).isprintable()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("at https://u:p%40w@h:8080/x?", "at https://(hidden)@h:8080/x?"),
        ("'postgresql://u:p@w@h/db'", "'postgresql://(hidden)@h/db'"),
        ("http://:pw@h and http://u:pw@h", "http://(hidden)@h and http://(hidden)@h"),
        ("http://h:80/a@b, me@h:1", "http://h:80/a@b, me@h:1"),
    ],
)
def test_hides_passwords_of_urls(text: str, printed: str) -> None:
    assert without_credentials(text) == printed
    error = InputError(text)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", (text,), None)
    for line in (summarize_error(error), full_message(error), LineFormatter().format(record)):
        assert printed in line
