"""Forecasts, runs and amounts of data for the report and `status`.

Reads a migrated database by SQL. APY is in percent, TVL in USD, days are UTC, unknown values are
None. Scores are in `accuracy`, the state of the data in
`data_quality`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from database.ledger.run_records import RunRecord, last_runs
from database.schema.metrics_table import metrics_name
from forecasting.features.observed_values import is_observed, staleness_join

LARGEST_POOLS = 6
SERIES_DAYS = 90
RECENT_RUNS = 10

_SHORTEST = """
    SELECT as_of, target_date, horizon_days, engine
    FROM yieldspark.forecasts
    ORDER BY as_of DESC, horizon_days, run_id DESC
    LIMIT 1
"""
# the newest as-of day's forecasts at their shortest horizon: one row, or none
NEWEST_FORECASTS = f"""
newest AS ({_SHORTEST})"""
# the same run's forecasts at another horizon
NEWEST_AT_HORIZON = f"""
shortest AS ({_SHORTEST}),
newest AS (
    SELECT as_of, as_of + :horizon AS target_date, CAST(:horizon AS integer) AS horizon_days, engine
    FROM shortest
)"""

FURTHER_HORIZONS = f"""
WITH {NEWEST_FORECASTS}
SELECT DISTINCT f.horizon_days
FROM yieldspark.forecasts f
JOIN newest n ON n.as_of = f.as_of AND n.engine = f.engine
WHERE f.target_date > n.target_date
    AND f.horizon_days > n.horizon_days
ORDER BY 1
"""

FORECAST_ROWS = """
WITH {newest}
SELECT f.pool_id, p.name, p.symbol, p.protocol, p.chain, f.as_of, f.target_date, f.horizon_days,
    m.actual_apy::float8 AS apy_today,
    f.apy::float8 AS apy,
    f.apy_low::float8 AS apy_low,
    f.apy_high::float8 AS apy_high,
    m.actual_tvl::float8 AS tvl_today,
    f.tvl::float8 AS tvl,
    f.tvl_low::float8 AS tvl_low,
    f.tvl_high::float8 AS tvl_high,
    f.interval_level, f.engine, f.model_version, f.apy_fallback_reason,
    f.explanation
FROM yieldspark.forecasts f
JOIN newest n ON n.as_of = f.as_of AND n.horizon_days = f.horizon_days
LEFT JOIN pools p ON p.pool_id = f.pool_id
LEFT JOIN {metrics} m ON m.pool_id = f.pool_id AND m.date = f.as_of
ORDER BY m.actual_tvl DESC NULLS LAST, f.tvl DESC NULLS LAST, f.pool_id
"""

SERIES_ROWS = f"""
WITH {NEWEST_FORECASTS},
observed AS (
    SELECT m.pool_id, m.date, m.actual_apy::float8 AS actual
    FROM newest n
    JOIN {{metrics}} m ON m.date > n.as_of - :days
        AND m.date <= n.as_of
        AND m.pool_id = ANY(:pools)
    {staleness_join()}
    WHERE {is_observed("apy")}
),
evaluated AS (
    SELECT e.pool_id, e.target_date AS date, e.forecast, e.low, e.high
    FROM newest n
    JOIN yieldspark.forecast_evaluation e ON e.target_date > n.as_of - :days
        AND e.target_date <= n.as_of
        AND e.engine = n.engine
        AND e.horizon_days = n.horizon_days
        AND e.target = 'apy'
        AND e.pool_id = ANY(:pools)
)
SELECT pool_id, date, actual, forecast, low, high
FROM observed
FULL JOIN evaluated USING (pool_id, date)
ORDER BY pool_id, date
"""

DATA_FACTS = f"""
WITH {NEWEST_FORECASTS}
SELECT count(*) AS pools,
    coalesce(sum(last_day - first_day + 1), 0)::bigint AS pool_days,
    min(first_day) AS first_day,
    max(last_day) AS last_day,
    (
        SELECT count(*)
        FROM yieldspark.forecasts f
        JOIN newest n ON n.as_of = f.as_of AND n.horizon_days = f.horizon_days
    ) AS forecasts_next_day,
    (
        SELECT extract(
            epoch FROM now() - max(timestamp) FILTER (WHERE timestamp <= now())
        )::float8
        FROM raw_defillama_pool_history
    ) AS raw_age_seconds,
    (
        SELECT count(*)
        FROM yieldspark.quarantine
        WHERE resolution IS NULL
    ) AS quarantine_open
FROM yieldspark.pool_coverage
"""

RECENT_RUN_ROWS = "SELECT * FROM yieldspark.run_ledger ORDER BY started_at DESC, run_id LIMIT :runs"


@dataclass(frozen=True)
class PoolForecast:
    """The newest forecast of one pool.

    Attributes:
        name, symbol, protocol, chain: labels of the pool; None if `pools` lacks it.
        apy_today, tvl_today: values of the as-of day.
        apy, tvl: forecasts, with their intervals from `*_low` to `*_high`.
        interval_level: nominal coverage of the intervals, 0 to 1.
        apy_fallback_reason: why a fallback is published; None for a model's forecast.
        explanation: [{feature, points}], the strongest contributions in points of APY; None for a
            fallback.
    """

    pool_id: str
    name: str | None
    symbol: str | None
    protocol: str | None
    chain: str | None
    as_of: dt.date
    target_date: dt.date
    horizon_days: int
    apy_today: float | None
    apy: float | None
    apy_low: float | None
    apy_high: float | None
    tvl_today: float | None
    tvl: float | None
    tvl_low: float | None
    tvl_high: float | None
    interval_level: float
    engine: str
    model_version: str
    apy_fallback_reason: str | None
    explanation: list[dict[str, Any]] | None


@dataclass(frozen=True)
class PoolDay:
    """One day of a pool's plot.

    Attributes:
        actual: observed APY; None if it was carried or is unknown.
        forecast: past forecast with its interval; None on a day that was not scored.
    """

    date: dt.date
    actual: float | None
    forecast: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PoolSeries:
    """The newest APY forecast of a pool and its last days, in order."""

    pool: PoolForecast
    apy: float
    days: tuple[PoolDay, ...]


def further_horizons(engine: Engine) -> list[int]:
    """Returns the horizons of the newest forecasts but the shortest one, in days.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        return list(connection.execute(text(FURTHER_HORIZONS)).scalars())


def forecast_table(engine: Engine, horizon: int | None = None) -> list[PoolForecast]:
    """Reads the newest forecasts, one row for each pool.

    Args:
        engine: the database.
        horizon: days from the as-of day to the target day; default: the shortest.

    Returns:
        By TVL of the as-of day, the largest first and unknown TVL last.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    newest = NEWEST_AT_HORIZON if horizon else NEWEST_FORECASTS
    rows = text(FORECAST_ROWS.format(newest=newest, metrics=metrics_name(engine)))
    parameters = {"horizon": horizon} if horizon else {}
    with checked_connection(engine) as connection:
        return [PoolForecast(**row) for row in connection.execute(rows, parameters).mappings()]


def pool_series(
    engine: Engine,
    forecasts: Sequence[PoolForecast],
    *,
    pools: int = LARGEST_POOLS,
    days: int = SERIES_DAYS,
) -> list[PoolSeries]:
    """Reads actual APY and past forecasts of the largest pools.

    Args:
        engine: the database.
        forecasts: result of `forecast_table`.
        pools: number of pools, from the first on; those without an APY forecast are left out.
        days: number of days up to the as-of day.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    largest = [(row, row.apy) for row in forecasts if row.apy is not None][:pools]
    days_of_pool: dict[str, list[PoolDay]] = {row.pool_id: [] for row, _ in largest}
    series = text(SERIES_ROWS.format(metrics=metrics_name(engine)))
    parameters = {"days": days, "pools": list(days_of_pool)}
    with checked_connection(engine) as connection:
        for row in connection.execute(series, parameters).mappings():
            day = {key: value for key, value in row.items() if key != "pool_id"}
            days_of_pool[row["pool_id"]].append(PoolDay(**day))
    return [PoolSeries(row, apy, tuple(days_of_pool[row.pool_id])) for row, apy in largest]


def status(engine: Engine) -> dict[str, Any]:
    """Reads the payload of `status --json`.

    Args:
        engine: the database.

    Returns:
        {"jobs": {job: last ledger row}, "data": {pools, pool_days, first_day, last_day,
            forecasts_next_day, raw_age_seconds, quarantine_open}}. A pool-day is a row of the
            metrics job; quarantine_open counts rows without a resolution. Days are ISO text; an
            empty database has zeros and None.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        data = dict(connection.execute(text(DATA_FACTS)).mappings().one())
    for name in ("first_day", "last_day"):
        data[name] = data[name].isoformat() if data[name] else None
    jobs = {job: run.to_json() for job, run in last_runs(engine).items()}
    return {"jobs": jobs, "data": data}


def recent_runs(engine: Engine, *, runs: int = RECENT_RUNS) -> list[RunRecord]:
    """Reads the newest ledger rows of all jobs.

    Args:
        engine: the database.
        runs: number of rows.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        rows = connection.execute(text(RECENT_RUN_ROWS), {"runs": runs}).mappings().all()
    return [RunRecord.from_row(row) for row in rows]
