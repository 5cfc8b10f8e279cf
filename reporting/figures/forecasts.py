"""Forecasts, runs and amounts of data for the report and `status`.

Reads a migrated database by SQL; returns dicts of floats, dates and text. APY is in percent, TVL in
USD, days are UTC, unknown values are None. Scores are in `accuracy`, the state of the data in
`data_quality`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from database.ledger.run_records import RunRecord, last_runs
from database.schema.metrics_table import metrics_name
from forecasting.features.observed_values import is_observed, staleness_join

LARGEST_POOLS = 6
SERIES_DAYS = 90
RECENT_RUNS = 10

# the newest as-of day's forecasts at their shortest horizon: one row, or none
NEWEST_FORECASTS = """
newest AS (
    SELECT as_of, target_date, horizon_days, engine
    FROM yieldspark.forecasts
    ORDER BY as_of DESC, horizon_days, run_id DESC
    LIMIT 1
)"""

FORECAST_ROWS = f"""
WITH {NEWEST_FORECASTS}
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
JOIN newest n ON n.target_date = f.target_date AND n.horizon_days = f.horizon_days
LEFT JOIN pools p ON p.pool_id = f.pool_id
LEFT JOIN {{metrics}} m ON m.pool_id = f.pool_id AND m.date = f.as_of
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
        JOIN newest n ON n.target_date = f.target_date AND n.horizon_days = f.horizon_days
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


def forecast_table(engine: Engine) -> list[dict[str, Any]]:
    """Reads the newest forecasts, one row for each pool.

    Args:
        engine: the database.

    Returns:
        Rows by TVL of the as-of day, the largest first and unknown TVL last. Keys: pool_id, name,
        symbol, protocol, chain, as_of, target_date, horizon_days, apy_today, apy, apy_low,
        apy_high, tvl_today, tvl, tvl_low, tvl_high, interval_level, engine, model_version,
        apy_fallback_reason, explanation. `*_today` are the as-of day's values; the reason is None
        for a model's forecast, and explanation, [{feature, points}] in points of APY, is None for a
        fallback.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    rows = text(FORECAST_ROWS.format(metrics=metrics_name(engine)))
    with checked_connection(engine) as connection:
        return [dict(row) for row in connection.execute(rows).mappings()]


def pool_series(
    engine: Engine,
    forecasts: list[dict[str, Any]],
    *,
    pools: int = LARGEST_POOLS,
    days: int = SERIES_DAYS,
) -> list[dict[str, Any]]:
    """Reads actual APY and past forecasts of the largest pools.

    Args:
        engine: the database.
        forecasts: rows of `forecast_table`.
        pools: number of pools, from the first row on.
        days: number of days up to the as-of day.

    Returns:
        The forecast row of each pool and `days`: [{date, actual, forecast, low, high}] by date.
            `actual` is an observed value; `forecast` is None on days that were not scored.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    largest = [row for row in forecasts if row["apy"] is not None][:pools]
    days_of_pool: dict[str, list[dict[str, Any]]] = {row["pool_id"]: [] for row in largest}
    series = text(SERIES_ROWS.format(metrics=metrics_name(engine)))
    parameters = {"days": days, "pools": list(days_of_pool)}
    with checked_connection(engine) as connection:
        for row in connection.execute(series, parameters).mappings():
            day = {key: value for key, value in row.items() if key != "pool_id"}
            days_of_pool[row["pool_id"]].append(day)
    return [row | {"days": days_of_pool[row["pool_id"]]} for row in largest]


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
