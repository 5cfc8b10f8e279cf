"""The Typer application of `python -m workflows`; the `*_commands.py` put the commands on it."""

from __future__ import annotations

from typing import Any

import typer

from common.errors import summarize_error

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "YieldSpark on Google Cloud: releases, batches, the nightly workflow, and a cloud on this"
        " machine."
    ),
    epilog=(
        "Settings come from the environment and .env: docs/reference/settings.md. Exit codes:"
        " 0 good, 1"
        " failed, 2 wrong use, 130 interrupted."
    ),
)


def failed_command(error: BaseException, words: list[str]) -> dict[str, Any]:
    """The `--json` document of a command that failed, with what its error knows of it."""
    return {
        "command": words[0] if words else None,
        "status": "failed",
        "error": summarize_error(error),
    } | getattr(error, "document", {})
