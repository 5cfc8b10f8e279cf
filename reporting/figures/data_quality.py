"""The state of the data behind the forecasts: how much there is, how much of it was observed, what
was set aside, how old the newest row is.

In: `yieldspark.pool_coverage` and `yieldspark.value_staleness` of the metrics job, `pools`, the
quarantine and the newest raw row.
Out: plain numbers; days are UTC, ages in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection

EXTENT = """
SELECT count(*) AS pools,
    coalesce(sum(last_day - first_day + 1), 0)::bigint AS pool_days,
    min(first_day) AS first_day,
    max(last_day) AS last_day
FROM yieldspark.pool_coverage
"""
NOT_OBSERVED = """
SELECT count(*) FILTER (WHERE apy_staleness_days > 0) AS apy_carried,
    count(*) FILTER (WHERE apy_staleness_days IS NULL) AS apy_unknown,
    count(*) FILTER (WHERE tvl_staleness_days > 0) AS tvl_carried,
    count(*) FILTER (WHERE tvl_staleness_days IS NULL) AS tvl_unknown
FROM yieldspark.value_staleness
"""
ACTIVE_POOLS = """
SELECT count(*) AS active_pools,
    count(*) FILTER (
        WHERE last_observed_day
            IS DISTINCT FROM (SELECT max(last_day) FROM yieldspark.pool_coverage)
    ) AS active_pools_not_observed
FROM yieldspark.pool_coverage c
LEFT JOIN pools p ON p.pool_id = c.pool_id
WHERE p.is_active IS NOT FALSE
"""
RAW_AGE = """
SELECT newest AS newest_raw, extract(epoch FROM now() - newest)::float8 AS raw_age_seconds
FROM (
    SELECT max(timestamp) FILTER (WHERE timestamp <= now()) AS newest
    FROM raw_defillama_pool_history
) AS raw
"""
QUARANTINED = """
SELECT source_table, reason, count(*) AS rows
FROM yieldspark.quarantine
WHERE resolution IS NULL
GROUP BY source_table, reason
ORDER BY rows DESC, 1, 2
"""

NOT_OBSERVED_AGES = ("carried", "unknown")


def data_health(engine: Engine) -> dict[str, Any]:
    """pools, pool_days, first_day, last_day, shares {apy|tvl: {observed, carried, unknown}} of the
    pool days (0..1, empty without any), active_pools and how many of them have no row observed on
    the newest day, newest_raw (datetime), raw_age_seconds, and quarantine: [{source_table, reason,
    rows}] of the open rows, the most first. Raises: DatabaseError.
    """
    with checked_connection(engine) as connection:
        facts = dict(connection.execute(text(EXTENT)).mappings().one())
        missing = connection.execute(text(NOT_OBSERVED)).mappings().one()
        facts |= connection.execute(text(ACTIVE_POOLS)).mappings().one()
        facts |= connection.execute(text(RAW_AGE)).mappings().one()
        quarantined = [dict(row) for row in connection.execute(text(QUARANTINED)).mappings()]
    return facts | {"shares": _shares(facts["pool_days"], missing), "quarantine": quarantined}


def _shares(days: int, missing: Mapping[Any, int]) -> dict[str, dict[str, float]]:
    if not days:
        return {}
    shares = {
        target: {age: missing[f"{target}_{age}"] / days for age in NOT_OBSERVED_AGES}
        for target in ("apy", "tvl")
    }
    return {target: {"observed": 1 - sum(ages.values()), **ages} for target, ages in shares.items()}
