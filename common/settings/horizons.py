"""The setting HORIZONS: days from the as-of day to the target days that are forecast."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer
from pydantic_settings import NoDecode

from common.horizons import LONGEST_HORIZON_DAYS, NEXT_DAY

_ALLOWED = (
    f"write whole numbers of days from 1 to {LONGEST_HORIZON_DAYS}, separated by commas, such as"
    " 1,7"
)


def parse_horizons(value: object) -> tuple[int, ...]:
    """Returns the horizons in ascending order.

    Args:
        value: `1,7`, or the numbers themselves.

    Raises:
        ValueError: a part is no whole number of 1 to LONGEST_HORIZON_DAYS, occurs twice, or 1 is
            missing.
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError(_ALLOWED)
    horizons = sorted(_days(part) for part in parts)
    if len(set(horizons)) < len(horizons):
        raise ValueError("a horizon occurs twice; write each once, such as 1,7")
    if NEXT_DAY not in horizons:
        raise ValueError(
            "1 is missing: the forecast columns of the metrics table are those of the next day;"
            " write it too, such as 1,7"
        )
    return tuple(horizons)


def _days(part: object) -> int:
    text = str(part).strip()
    # int() also reads signs, underscores and other alphabets' digits
    is_number = text.isascii() and text.isdigit() and len(text) <= 2
    if not is_number or not 1 <= int(text) <= LONGEST_HORIZON_DAYS:
        raise ValueError(_ALLOWED)
    return int(text)


def format_horizons(horizons: tuple[int, ...]) -> str:
    """Returns the horizons as the variable has them, such as `1,7`."""
    return ",".join(map(str, horizons))


# NoDecode: the variable is no JSON list
Horizons = Annotated[
    tuple[int, ...], NoDecode, BeforeValidator(parse_horizons), PlainSerializer(format_horizons)
]
