"""The Typer application of `python -m workflows`; the `*_commands.py` put the commands on it."""

from __future__ import annotations

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "YieldSpark on Google Cloud: releases, batches, the nightly workflow, and a cloud on this"
        " machine."
    ),
    epilog=(
        "Settings come from the environment and .env; README.md lists them. Exit codes: 0 good, 1"
        " failed, 2 wrong use, 130 interrupted."
    ),
)
