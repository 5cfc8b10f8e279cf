"""The state of the data behind the forecasts: how much there is, how much of it was observed, what was set aside, how old the newest row is.

In: the metrics job's `yieldspark.observation_age`, `pools`, the quarantine and the newest raw row. Out: plain numbers; days are UTC, ages in seconds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

from database.connection import checked_connection

EXTENT = """
SELECT count(DISTINCT pool_id) AS pools, count(*) AS pool_days, min(date) AS first_day, max(date) AS last_day,
       count(*) FILTER (WHERE apy_age_days = 0) AS apy_observed, count(*) FILTER (WHERE apy_age_days > 0) AS apy_carried,
       count(*) FILTER (WHERE apy_age_days IS NULL) AS apy_unknown, count(*) FILTER (WHERE tvl_age_days = 0) AS tvl_observed,
       count(*) FILTER (WHERE tvl_age_days > 0) AS tvl_carried, count(*) FILTER (WHERE tvl_age_days IS NULL) AS tvl_unknown
FROM yieldspark.observation_age
"""
ACTIVE_POOLS = """
WITH known AS (
    SELECT pool_id, max(date) FILTER (WHERE apy_age_days = 0 OR tvl_age_days = 0) AS observed FROM yieldspark.observation_age GROUP BY pool_id
)
SELECT count(*) AS active_pools,
       count(*) FILTER (WHERE observed IS DISTINCT FROM (SELECT max(date) FROM yieldspark.observation_age)) AS active_pools_not_observed
FROM known LEFT JOIN pools p ON p.pool_id = known.pool_id WHERE p.is_active IS NOT FALSE
"""
RAW_AGE = """
SELECT newest AS newest_raw, extract(epoch FROM now() - newest)::float8 AS raw_age_seconds
FROM (SELECT max(timestamp) FILTER (WHERE timestamp <= now()) AS newest FROM raw_defillama_pool_history) AS raw
"""
QUARANTINED = "SELECT source_table, reason, count(*) AS rows FROM yieldspark.quarantine GROUP BY source_table, reason ORDER BY rows DESC, 1, 2"

AGES = ("observed", "carried", "unknown")


def data_health(engine: Engine) -> dict[str, Any]:
    """pools, pool_days, first_day, last_day, shares {apy|tvl: {observed, carried, unknown}} of the pool days (0..1, empty without any),
    active_pools and how many of them have no row observed on the newest day, newest_raw (datetime), raw_age_seconds, and
    quarantine: [{source_table, reason, rows}], the most first. Raises: DatabaseError.
    """
    with checked_connection(engine) as connection:
        facts = dict(connection.execute(text(EXTENT)).mappings().one())
        facts |= connection.execute(text(ACTIVE_POOLS)).mappings().one()
        facts |= connection.execute(text(RAW_AGE)).mappings().one()
        quarantined = [dict(row) for row in connection.execute(text(QUARANTINED)).mappings()]
    counts = {target: {age: facts.pop(f"{target}_{age}") for age in AGES} for target in ("apy", "tvl")}
    days = facts["pool_days"]
    shares = {target: {age: count / days for age, count in ages.items()} for target, ages in counts.items()} if days else {}
    return facts | {"shares": shares, "quarantine": quarantined}
