"""One pool: its metrics by day, its past forecasts beside persistence, and its raw snapshots.

Reads the metrics table, staleness, forecast history and raw history. APY is in percent, TVL in USD,
days are UTC, unknown values are None or NaN.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from database.schema.metrics_table import metrics_name
from forecasting.features.observed_values import is_observed, staleness_join
from reporting.figures.forecast_search import like_pattern
from reporting.figures.forecasts import NEWEST_FORECASTS

# a source may send a document of megabytes, or a snapshot a minute
SHOWN_CHARACTERS = 10_000
MOST_SNAPSHOTS = 200

# a pool may be in `pools` before its first metrics, and have metrics without being in `pools`
FACTS = """
SELECT coalesce(p.pool_id, c.pool_id) AS pool_id, p.name, p.symbol, p.protocol, p.chain,
    p.is_active, c.first_day, c.last_day, c.last_observed_day
FROM (SELECT CAST(:pool AS text) AS pool_id) AS wanted
LEFT JOIN pools p ON p.pool_id = wanted.pool_id
LEFT JOIN yieldspark.pool_coverage c ON c.pool_id = wanted.pool_id
WHERE p.pool_id IS NOT NULL OR c.pool_id IS NOT NULL
"""

SEARCH = """
SELECT p.pool_id, coalesce(p.symbol, p.name, p.pool_id) AS label, p.protocol, p.chain
FROM pools p
JOIN yieldspark.pool_coverage c ON c.pool_id = p.pool_id
WHERE concat_ws(' ', p.symbol, p.name, p.protocol, p.chain, p.pool_id) ILIKE :search ESCAPE '!'
ORDER BY p.tvl DESC NULLS LAST, p.pool_id COLLATE "C"
LIMIT :limit
"""

# rows after the coverage are those of another job
HISTORY = f"""
SELECT m.date,
    m.actual_apy::float8 AS apy,
    m.rolling_apy_7d::float8 AS mean_7d,
    m.rolling_apy_30d::float8 AS mean_30d,
    m.stddev_apy_7d::float8 AS stddev_7d,
    m.stddev_apy_30d::float8 AS stddev_30d,
    m.actual_tvl::float8 AS tvl,
    ({is_observed("apy")}) AS apy_is_observed,
    ({is_observed("tvl")}) AS tvl_is_observed
FROM {{metrics}} m
JOIN yieldspark.pool_coverage c ON c.pool_id = m.pool_id AND m.date <= c.last_day
{staleness_join()}
WHERE m.pool_id = :pool
    AND m.date > c.last_day - :days
ORDER BY m.date
"""

PAST_FORECASTS = f"""
WITH {NEWEST_FORECASTS}
SELECT e.target_date AS date, e.actual, e.forecast, e.low, e.high, e.persistence,
    e.gate_weight, e.interval_level, e.source, e.model_version,
    abs(e.actual - e.forecast) AS error,
    abs(e.actual - e.persistence) AS persistence_error
FROM yieldspark.forecast_evaluation e
JOIN newest n ON n.engine = e.engine AND n.horizon_days = e.horizon_days
WHERE e.pool_id = :pool
    AND e.target = :target
    AND e.target_date > n.as_of - :days
    AND e.target_date <= n.target_date
ORDER BY e.target_date
"""

# an id is text: JavaScript loses digits of large integers
SNAPSHOTS = """
SELECT timestamp, insertion_timestamp, left(raw_json_data::text, :characters) AS raw_json_data,
    id::text AS id
FROM raw_defillama_pool_history
WHERE pool_id = :pool
    AND timestamp >= CAST(:day AS timestamp) AT TIME ZONE 'UTC'
    AND timestamp < CAST(:next_day AS timestamp) AT TIME ZONE 'UTC'
ORDER BY timestamp, id
LIMIT :limit
"""


@dataclass(frozen=True)
class PoolFacts:
    """Labels and coverage of a pool; None where `pools` or the metrics lack it."""

    pool_id: str
    name: str | None
    symbol: str | None
    protocol: str | None
    chain: str | None
    is_active: bool | None
    first_day: dt.date | None
    last_day: dt.date | None
    last_observed_day: dt.date | None


@dataclass(frozen=True)
class FoundPool:
    """A pool that a search found."""

    pool_id: str
    label: str
    protocol: str | None
    chain: str | None


def pool_facts(engine: Engine, pool_id: str) -> PoolFacts | None:
    """Reads the labels of a pool; None for an unknown id.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        row = connection.execute(text(FACTS), {"pool": pool_id}).mappings().first()
    return PoolFacts(**row) if row else None


def find_pools(engine: Engine, search: str, *, limit: int) -> list[FoundPool]:
    """Lists pools with metrics whose symbol, name, protocol, chain or id contains a text, the
    largest TVL first.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    parameters = {"search": f"%{like_pattern(search)}%", "limit": limit}
    with checked_connection(engine) as connection:
        return [FoundPool(**row) for row in connection.execute(text(SEARCH), parameters).mappings()]


def metrics_history(engine: Engine, pool_id: str, *, days: int) -> pd.DataFrame:
    """Reads a pool's metrics of the days up to its last.

    Returns:
        date, apy, mean_7d, mean_30d, stddev_7d, stddev_30d, tvl, apy_is_observed, tvl_is_observed.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    query = HISTORY.format(metrics=metrics_name(engine))
    return _frame(engine, query, {"pool": pool_id, "days": days})


def past_forecasts(engine: Engine, pool_id: str, target: str, *, days: int) -> pd.DataFrame:
    """Reads a pool's past forecasts of the newest forecasts' engine and horizon.

    Args:
        target: `apy` or `tvl`.
        days: target days up to the newest as-of day.

    Returns:
        date (target day), actual, forecast, low, high, persistence, gate_weight, interval_level,
        source, model_version, and the absolute errors error and persistence_error.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    return _frame(engine, PAST_FORECASTS, {"pool": pool_id, "target": target, "days": days})


def raw_snapshots(engine: Engine, pool_id: str, day: dt.date) -> pd.DataFrame:
    """Reads up to MOST_SNAPSHOTS raw snapshots of one UTC day.

    Returns:
        timestamp, insertion_timestamp, raw_json_data (text of at most SHOWN_CHARACTERS), id (text).

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    parameters = {
        "pool": pool_id,
        "day": day,
        "next_day": day + dt.timedelta(days=1),
        "limit": MOST_SNAPSHOTS,
        "characters": SHOWN_CHARACTERS,
    }
    return _frame(engine, SNAPSHOTS, parameters)


def _frame(engine: Engine, query: str, parameters: dict[str, Any]) -> pd.DataFrame:
    with checked_connection(engine) as connection:
        result = connection.execute(text(query), parameters)
        return pd.DataFrame(result.mappings().all(), columns=list(result.keys()))
