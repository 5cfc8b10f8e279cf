"""Holds the market series as arrays, for the tasks that compute metrics.

Prices in USD, gas in gwei, days as numbers since 1970-01-01. Every Python worker imports this
module, so it imports neither SQLAlchemy nor PySpark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from data_processing.metrics.daily_grid import Days, Floats

# that module imports SQLAlchemy
if TYPE_CHECKING:
    from data_processing.raw.market_series import MarketDay

MARKET = ("eth_open", "btc_open", "gas_price_gwei")

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class MarketColumns:
    """The market series as of each day.

    Attributes:
        first_day: day of the first element, counted from 1970-01-01.
        columns: one array for each name of MARKET, one element a day, NaN if unknown.
    """

    first_day: int
    columns: Mapping[str, Floats]

    def at(self, days: Days) -> dict[str, Floats]:
        """Return each column at `days`, NaN outside the series."""
        return {
            name: _values_at(days - self.first_day, values) for name, values in self.columns.items()
        }


def market_columns(series: Sequence[MarketDay]) -> MarketColumns:
    """Convert the consecutive days of `series` to arrays."""
    columns = {name: _floats(series, name) for name in MARKET}
    return MarketColumns((series[0].date - EPOCH).days if series else 0, columns)


def _floats(series: Sequence[MarketDay], name: str) -> Floats:
    values: list[Decimal | None] = [getattr(day, name) for day in series]
    return np.array([np.nan if value is None else float(value) for value in values])


def _values_at(positions: Days, values: Floats) -> Floats:
    inside = (positions >= 0) & (positions < values.size)
    # days outside of the series take the appended NaN
    padded = np.append(values, np.nan)
    at_days: Floats = padded[np.where(inside, positions, values.size)]
    return at_days
