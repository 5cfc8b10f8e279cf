"""Options that several commands share, and the context in which a command runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.context import JobContext
from cli.output import OUTPUT
from common.errors import Interrupted, summarize_error
from common.horizons import LONGEST_HORIZON_DAYS
from common.jobs import JobSpec
from common.logging_setup import add_log_file

if TYPE_CHECKING:
    from config_spark import Settings

Result = TypeVar("Result")


class EngineName(StrEnum):
    synapseml = "synapseml"
    lightgbm = "lightgbm"


class FileKind(StrEnum):
    history = "history"
    prices = "prices"
    gas = "gas"
    pools = "pools"


AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output, and nothing else."),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan without changing anything or starting a JVM."),
]
BatchId = Annotated[
    str | None,
    typer.Option(
        "--batch", metavar="ID", help="Id of the batch that runs the job, for the run ledger."
    ),
]
Engine = Annotated[
    EngineName | None,
    typer.Option(help="SynapseML (LightGBM on Spark), or native LightGBM in one process."),
]
Horizon = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=LONGEST_HORIZON_DAYS,
        help="Only forecasts of this many days ahead; default: each of HORIZONS.",
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar=". or ,",
        help="Decimal sign, for a file whose numbers can be read in two ways.",
    ),
]
Pools = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ID,ID",
        help="Only these pools: a file with one id per line, or ids separated by commas.",
    ),
]


def _day(help_text: str) -> Any:
    return typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help=help_text)


Start = Annotated[datetime | None, _day("First day to recompute, UTC; requires --end.")]
End = Annotated[datetime | None, _day("Day after the last day to recompute, UTC.")]
FirstDay = Annotated[datetime | None, _day("First day to compare, UTC; default: the first one.")]
DayAfter = Annotated[datetime | None, _day("Day after the last day to compare, UTC.")]
AsOf = Annotated[
    datetime | None,
    _day("Last day of data to use, UTC; default: the newest complete day."),
]
LastDay = Annotated[datetime | None, _day("Last day to score, UTC; default: the newest one.")]
Since = Annotated[datetime | None, _day("First day of history and prices, UTC; default: all.")]
QuarantinedSince = Annotated[datetime | None, _day("Rows quarantined on or after this day, UTC.")]


def day(value: datetime | None) -> date | None:
    """Return the day of an option that Typer has parsed as midnight."""
    return value.date() if value else None


def load_command_settings(**overrides: Any) -> Settings:
    """Load the settings of a command, with its options, and set up logging.

    No log file is written in production: the platform keeps what is on standard error.

    Args:
        overrides: settings by name; None leaves a setting as the environment has it.

    Raises:
        ConfigurationError: a setting has a value that is not allowed.
        EnvironmentNotReady: the log file cannot be written.
    """
    # pydantic takes longer to load than everything else that `--help` needs
    from config_spark import load_settings

    settings = load_settings(
        **{name: value for name, value in overrides.items() if value is not None}
    )
    OUTPUT.get().show_logs(as_json=settings.environment == "production")
    if settings.environment == "local":
        add_log_file(settings.yieldspark_home)
    return settings


def run_in_context(
    work: Callable[[JobContext], Result],
    *,
    changes: bool = True,
    job: JobSpec | None = None,
    **overrides: Any,
) -> Result:
    """Run `work` in a new context and close its Spark session in any case.

    Args:
        work: takes the context and returns the command's result.
        changes: False for a command that only reads, as `JobContext` takes it.
        job: the batch job that the command runs.
        overrides: settings by name, as `load_command_settings` takes them.

    Raises:
        Interrupted: the user interrupted the command.
    """
    context = JobContext(load_command_settings(**overrides), changes=changes, job=job)
    try:
        return work(context)
    except KeyboardInterrupt as error:
        # Typer would end the process on its own, without the JSON document
        raise Interrupted(summarize_error(error)) from error
    finally:
        context.close()
