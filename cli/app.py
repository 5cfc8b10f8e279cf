"""The Typer application of `run_spark_local.py`; other modules of `cli/` add the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from common.version import PRODUCT_VERSION

# Groups of the commands in `--help`
RUN, DATA, MODELS, DATABASE, MACHINE = "Run", "Data", "Models", "Database", "Machine"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Rolling metrics and next-day forecasts for DeFi yield pools, in Spark.",
    epilog=(
        "Settings come from the environment and .env: docs/reference/settings.md. Exit codes:"
        " 0 success, 1 the job failed, 2 wrong use, 130 interrupted."
    ),
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print(f"YieldSpark {PRODUCT_VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of the program itself."""
