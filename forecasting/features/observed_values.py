"""SQL fragments that tell observed values of the metrics table from carried ones.

The metrics job carries a value forward over a few missing days and records its staleness.
Forecasts learn from observed values only and are scored by them only.
"""

from __future__ import annotations

from database.schema.metrics_table import finite

STALENESS_TABLE = "yieldspark.value_staleness"


def staleness_join(metrics: str = "m", staleness: str = "a") -> str:
    """Returns the join of a row's staleness.

    Args:
        metrics: alias of the metrics table.
        staleness: alias of the joined table.
    """
    return (
        f"LEFT JOIN {STALENESS_TABLE} AS {staleness}"
        f" ON {staleness}.pool_id = {metrics}.pool_id AND {staleness}.date = {metrics}.date"
    )


def staleness_column(target: str) -> str:
    """Returns the column of days since the target's value was observed.

    Args:
        target: `apy` or `tvl`, or a placeholder of `str.format`.
    """
    return f"{target}_staleness_days"


def is_observed(target: str, metrics: str = "m", staleness: str = "a") -> str:
    """Returns the condition that a joined row has an observed, finite value of the target.

    Args:
        target: `apy` or `tvl`, or a placeholder of `str.format`.
        metrics: alias of the metrics table.
        staleness: alias of the table of `staleness_join`.
    """
    # another system may have written the row: without a staleness its value counts as observed
    return (
        f"{finite(f'{metrics}.actual_{target}')} IS NOT NULL"
        f" AND coalesce({staleness}.{staleness_column(target)}, 0) = 0"
    )
