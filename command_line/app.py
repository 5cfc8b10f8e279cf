"""The Typer application; `commands.py` and the `*_commands.py` put the commands on it."""

from __future__ import annotations

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Rolling metrics and next-day forecasts for DeFi yield pools, in Spark.",
    epilog=(
        "Settings come from the environment and .env: docs/reference/settings.md. Exit codes:"
        " 0 good, 1"
        " the job failed, 2 wrong use, 130 interrupted."
    ),
)
