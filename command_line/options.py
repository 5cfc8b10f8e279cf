"""Options that several commands share, and the settings they are built from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from command_line.terminal import configure_logging
from command_line.workplace import Workplace
from config_spark import Settings, load_settings
from product_errors import Interrupted

Result = TypeVar("Result")


class EngineName(StrEnum):
    synapseml = "synapseml"
    lightgbm = "lightgbm"


class FileKind(StrEnum):
    history = "history"
    prices = "prices"
    gas = "gas"
    pools = "pools"


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; change nothing, start no JVM.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD")]
Engine = Annotated[EngineName | None, typer.Option(help="LightGBM on Spark (SynapseML), or native in one process.")]


def day(value: datetime | None) -> date | None:
    return value.date() if value else None


def edge_settings(**overrides: Any) -> Settings:
    """The settings with the options that were given, and logging set up beside them."""
    settings = load_settings(**{name: value for name, value in overrides.items() if value is not None})
    configure_logging(settings.yieldspark_home / "logs" / "yieldspark.log")
    return settings


def in_workplace(work: Callable[[Workplace], Result], **overrides: Any) -> Result:
    """Run `work` in a workplace with the settings of this moment, and close its session whatever happens."""
    place = Workplace(edge_settings(**overrides))
    try:
        return work(place)
    except KeyboardInterrupt as error:
        # Typer would end the process on its own, without the JSON document
        raise Interrupted("interrupted: what was not committed is undone, and the next run goes on") from error
    finally:
        place.close()
