"""Horizons of forecasts: days from the as-of day to the target day."""

from __future__ import annotations

NEXT_DAY = 1
"""The horizon whose forecasts are also written to the forecast columns of the metrics table."""

LONGEST_HORIZON_DAYS = 30


def at_horizon(name: str, horizon: int) -> str:
    """Returns a name with the horizon behind it; that of the next day as it is.

    Args:
        name: name of a check.
        horizon: days from the as-of day to the target day.
    """
    return name if horizon == NEXT_DAY else f"{name}_{horizon}d"
