"""Options that several commands share, and the settings they are built from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from command_line.terminal import show_logs
from command_line.workplace import Workplace
from common.errors import Interrupted, one_sentence
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
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan; change nothing, start no JVM.")
]
Engine = Annotated[
    EngineName | None, typer.Option(help="LightGBM on Spark (SynapseML), or native in one process.")
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar=". or ,",
        help="Decimal sign of a file's numbers, where the file itself leaves it open.",
    ),
]
Pools = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ID,ID",
        help="These pools only: a file with one id a line, or ids with commas.",
    ),
]


def _day(words: str) -> Any:
    return typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help=words)


Start = Annotated[datetime | None, _day("First day to recompute, UTC; needs --end.")]
End = Annotated[datetime | None, _day("The day after the last one, UTC.")]
FirstDay = Annotated[datetime | None, _day("First day to look at, UTC; default: the first.")]
DayAfter = Annotated[datetime | None, _day("The day after the last one to look at, UTC.")]
AsOf = Annotated[
    datetime | None,
    _day("Last day whose values may be used, UTC; default: the newest day with data that is over."),
]
LastDay = Annotated[
    datetime | None, _day("The last day that is scored, UTC; default: the newest there is.")
]
Since = Annotated[
    datetime | None, _day("History and prices from this day on, UTC; default: all there is.")
]
QuarantinedSince = Annotated[
    datetime | None, _day("Rows put into quarantine on this day or later, UTC.")
]


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
        add_log_file(settings)
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
        raise Interrupted(one_sentence(error)) from error
    finally:
        place.close()
