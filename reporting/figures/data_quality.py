"""Data quality: amount of data, observed and carried values, quarantine, and age of the raw rows.

Reads tables of the metrics job, `pools`, the quarantine and the raw history. Days are UTC, ages in
seconds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
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
# a pool that is missing in `pools`, or has no is_active there, counts as active
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
# a row of the future, from a wrong clock, would hide that the source has stopped
RAW_END = """
SELECT last_id, newest, extract(epoch FROM now() - newest)::float8 AS age_seconds
FROM (
    SELECT coalesce(max(id), :last_id) AS last_id,
        greatest(
            max(timestamp) FILTER (WHERE timestamp <= now()), CAST(:newest AS timestamptz)
        ) AS newest
    FROM raw_defillama_pool_history
    WHERE CAST(:last_id AS bigint) IS NULL OR id > :last_id
) AS raw
"""
QUARANTINED = """
SELECT source_table, reason, count(*) AS rows
FROM yieldspark.quarantine
WHERE resolution IS NULL
GROUP BY source_table, reason
ORDER BY rows DESC, 1, 2
"""


@dataclass(frozen=True)
class ValueShares:
    """Shares of the pool-days whose value was observed, carried forward, or is unknown; 0 to 1."""

    observed: float
    carried: float
    unknown: float


@dataclass(frozen=True)
class QuarantinedRows:
    """Open rows of one source table and reason."""

    source_table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class DataQuality:
    """State of the data.

    Attributes:
        pool_days: rows of the metrics job.
        first_day, last_day: None without any.
        active_pools_not_observed: active pools without an observation on the newest day.
        shares: by target (apy, tvl); empty without pool-days.
        quarantine: the most rows first.
    """

    pools: int
    pool_days: int
    first_day: dt.date | None
    last_day: dt.date | None
    active_pools: int
    active_pools_not_observed: int
    shares: Mapping[str, ValueShares]
    quarantine: tuple[QuarantinedRows, ...]


@dataclass(frozen=True)
class RawEnd:
    """The newest snapshot of raw rows.

    Attributes:
        last_id: largest id of the rows; None without any.
        newest: time of the newest snapshot that is not in the future, UTC; None without any.
        age_seconds: its age by the server's clock.
    """

    last_id: int | None
    newest: dt.datetime | None
    age_seconds: float | None


def raw_end(engine: Engine, after: RawEnd | None = None) -> RawEnd:
    """Reads the newest snapshot of the raw history.

    Args:
        engine: the database.
        after: an earlier result: only rows of larger ids are read, by the primary key, instead of
            the whole history.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    earlier = after or RawEnd(None, None, None)
    parameters = {"last_id": earlier.last_id, "newest": earlier.newest}
    with checked_connection(engine) as connection:
        return RawEnd(**connection.execute(text(RAW_END), parameters).mappings().one())


def data_quality(engine: Engine) -> DataQuality:
    """Reads the state of the data.

    Args:
        engine: the database.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        extent = connection.execute(text(EXTENT)).mappings().one()
        missing = connection.execute(text(NOT_OBSERVED)).mappings().one()
        active = connection.execute(text(ACTIVE_POOLS)).mappings().one()
        quarantined = connection.execute(text(QUARANTINED)).mappings().all()
    return DataQuality(
        **extent,
        **active,
        shares=_shares(extent["pool_days"], missing),
        quarantine=tuple(QuarantinedRows(**row) for row in quarantined),
    )


def _shares(days: int, missing: Mapping[Any, int]) -> dict[str, ValueShares]:
    if not days:
        return {}
    shares = {}
    for target in ("apy", "tvl"):
        carried, unknown = (missing[f"{target}_{state}"] for state in ("carried", "unknown"))
        # the table of staleness has only the days that were not observed
        observed = 1 - (carried + unknown) / days
        shares[target] = ValueShares(observed, carried / days, unknown / days)
    return shares
