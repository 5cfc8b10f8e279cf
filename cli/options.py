"""Options that several commands share, and the settings they are built from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from cli.context import Workplace
from cli.terminal import show_logs
from common.errors import Interrupted, summarize_error
from common.logging_setup import add_log_file
from config_spark import Settings, load_settings

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
Engine = Annotated[
    EngineName | None,
    typer.Option(help="SynapseML (LightGBM on Spark), or native LightGBM in one process."),
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


def _day(words: str) -> Any:
    return typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help=words)


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
    return value.date() if value else None


def edge_settings(**overrides: Any) -> Settings:
    """The settings with the options that were given, and logging set up beside them. In production
    no file is written: what is on standard error is kept by the platform.
    """
    settings = load_settings(
        **{name: value for name, value in overrides.items() if value is not None}
    )
    show_logs()
    if settings.environment == "local":
        add_log_file(settings.yieldspark_home)
    return settings


def in_workplace(
    work: Callable[[Workplace], Result], *, changes: bool = True, **overrides: Any
) -> Result:
    """Run `work` in a workplace with the settings of this moment, and close its session whatever
    happens.

    Args: changes is False for a command that only looks: it leaves the user's own database without
    tables if it has none.
    """
    place = Workplace(edge_settings(**overrides), changes=changes)
    try:
        return work(place)
    except KeyboardInterrupt as error:
        # Typer would end the process on its own, without the JSON document
        raise Interrupted(summarize_error(error)) from error
    finally:
        place.close()
