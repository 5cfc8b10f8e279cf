"""Whether the models of a run learn from the transfer panel, and why.

Imports neither Spark nor pandas, nor the panel where it takes no part.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from config_spark import Settings

SMALL_PANEL_POOLS = 30
"""Pools below which own rows are few: the panel made models of 10 and 20 pools better, and no
larger panel was measured (docs/accuracy.md, Small panels).
"""


@dataclass(frozen=True)
class TransferChoice:
    """Whether the transfer panel takes part in the fits of a run.

    Attributes:
        rows: pool-days of the panel up to the newest origin; 0 if it takes no part.
        reason: why.
    """

    rows: int
    reason: str

    @property
    def takes_part(self) -> bool:
        """Whether fits learn from the panel."""
        return self.rows > 0

    def summary(self) -> dict[str, Any]:
        """Returns the entries of a plan's summary."""
        return {"transfer_rows": self.rows, "transfer_reason": self.reason}


def transfer_choice(settings: Settings, pools: int, end: dt.date) -> TransferChoice:
    """Decides on the transfer panel of a run that fits models.

    Args:
        pools: pools with an observed value in the days that are read.
        end: the day after the newest as-of day that is trained on.
    """
    if settings.transfer_panel == "off":
        return TransferChoice(0, "TRANSFER_PANEL=off")
    if pools >= SMALL_PANEL_POOLS:
        return TransferChoice(0, f"own rows suffice from {SMALL_PANEL_POOLS} pools on")
    if settings.market_features:
        return TransferChoice(0, "the panel has no features of prices (MARKET_FEATURES)")
    # reads a file by pyarrow, which the plan of many pools does without
    from forecasting.features.transfer_panel import pool_days_before

    rows = pool_days_before(end)
    if not rows:
        return TransferChoice(0, f"the panel has no day before {end}")
    return TransferChoice(rows, f"fewer than {SMALL_PANEL_POOLS} pools")
