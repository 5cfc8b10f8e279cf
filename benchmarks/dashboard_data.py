"""Tables of many pools for the dashboard's benchmark, as the jobs leave them, generated in SQL.

APY is in percent, TVL in USD, days are UTC. Values are pseudo-random and the same in every run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from sqlalchemy import Engine, text

AS_OF = dt.date(2025, 10, 5)
SCORED_DAYS = 90

# a value in [0, 1) of the pool n and the day d
NOISE = "abs(hashint8(n * 100003 + d)::bigint % 10007) / 10007.0"

STATEMENTS = {
    "pools": """
INSERT INTO pools (pool_id, name, symbol, protocol, chain, tvl, is_active)
SELECT 'pool-' || lpad(n::text, 6, '0'), 'Pool ' || n,
    (ARRAY['USDC', 'DAI', 'WETH', 'WBTC', 'ARB', 'OP'])[1 + n % 6] || '-'
        || (ARRAY['USDT', 'WETH', 'CRV', 'LINK'])[1 + n / 6 % 4],
    'protocol-' || n % 120, 'chain-' || n % 40, 1000 * (1 + n % 90000), true
FROM generate_series(1, :pools) AS n
""",
    "metrics": f"""
INSERT INTO pool_daily_metrics (pool_id, date, actual_apy, actual_tvl, rolling_apy_7d,
    rolling_apy_30d, stddev_apy_7d, stddev_apy_30d, apy_delta_today_yesterday)
SELECT 'pool-' || lpad(n::text, 6, '0'), CAST(:as_of AS date) - d, 5 + n % 20 + {NOISE},
    1000.0 * (1 + n % 90000), 5.5 + n % 20, 5.5 + n % 20, 0.29, 0.29, 0.1
FROM generate_series(1, :pools) AS n, generate_series(0, :days - 1) AS d
""",
    "coverage": """
INSERT INTO yieldspark.pool_coverage (pool_id, first_day, last_day, last_observed_day)
SELECT 'pool-' || lpad(n::text, 6, '0'), CAST(:as_of AS date) - (:days - 1), :as_of, :as_of
FROM generate_series(1, :pools) AS n
""",
    "staleness": f"""
INSERT INTO yieldspark.value_staleness (pool_id, date, apy_staleness_days, tvl_staleness_days)
SELECT 'pool-' || lpad(n::text, 6, '0'), CAST(:as_of AS date) - d,
    CASE WHEN d % 3 > 0 THEN d % 3 END, CASE WHEN d % 3 > 0 THEN d % 3 END
FROM generate_series(1, :pools) AS n, generate_series(0, :days - 1) AS d
WHERE {NOISE} < 0.05
""",
    "forecasts": f"""
INSERT INTO yieldspark.forecasts (pool_id, target_date, horizon_days, as_of, apy, apy_low, apy_high,
    tvl, tvl_low, tvl_high, interval_level, engine, model_version, apy_fallback_reason, explanation,
    run_id)
SELECT 'pool-' || lpad(n::text, 6, '0'), CAST(:as_of AS date) - d + 1, 1, CAST(:as_of AS date) - d,
    5 + n % 20 + {NOISE}, 4 + n % 20, 6 + n % 20 + 3 * {NOISE}, 1000.0 * (1 + n % 90000),
    900.0 * (1 + n % 90000), 1100.0 * (1 + n % 90000), 0.8, 'lightgbm', 'apy-m1.tvl-m1',
    CASE WHEN n % 4 = 0 THEN 'gate' END,
    CASE WHEN n % 4 > 0 THEN CAST('[{{"feature": "apy_mean_gap_7", "points": -0.12}},'
        '{{"feature": "apy_move_0", "points": 0.05}}]' AS jsonb) END, 'forecast_pools_1'
FROM generate_series(:scored_days, 0, -1) AS d, generate_series(1, :pools) AS n
""",
    "evaluation": f"""
INSERT INTO yieldspark.forecast_evaluation (pool_id, target_date, horizon_days, target, engine,
    source, as_of, actual, forecast, low, high, persistence, median_7d, tvl_usd, apy_percent,
    volatility_scale, model_change, gate_weight, interval_level, model_version, run_id)
SELECT pool_id, CAST(:as_of AS date) - d, 1, target, 'lightgbm', 'production',
    CAST(:as_of AS date) - d - 1, level * (1 + 0.02 * {NOISE}), level * 1.01, level * 1.001,
    level * 1.018, level * 1.012, level * 1.009, 1000.0 * (1 + n % 90000), 5 + n % 20,
    CASE target WHEN 'apy' THEN 0.05 * (1 + n % 9) ELSE 0.01 END, 0.1, 0.5, 0.8, 'm1',
    'forecast_pools_1'
FROM (
    SELECT n, d, target, 'pool-' || lpad(n::text, 6, '0') AS pool_id,
        CASE target WHEN 'apy' THEN 5.0 + n % 20 ELSE 1000.0 * (1 + n % 90000) END AS level
    FROM generate_series(1, :pools) AS n, generate_series(0, :scored_days - 1) AS d,
        unnest(ARRAY['apy', 'tvl']) AS target
) AS pool_days
""",
    "raw": f"""
INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
SELECT 'pool-' || lpad(n::text, 6, '0'), CAST(:as_of AS date) - d + time '12:00',
    jsonb_build_object('apy', 5 + n % 20 + {NOISE}, 'tvlUsd', 1000 * (1 + n % 90000))
FROM generate_series(1, :pools) AS n, generate_series(0, :days - 1) AS d
""",
    "counts": """
INSERT INTO yieldspark.raw_day_counts (date, snapshots)
SELECT CAST(:as_of AS date) - d, :pools
FROM generate_series(0, :days - 1) AS d
""",
    "quarantine": """
INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id, timestamp, reason,
    raw_json_data)
SELECT 'calculate_metrics_1', 'raw_defillama_pool_history', n::text,
    'pool-' || lpad((n % :pools + 1)::text, 6, '0'), now(),
    (ARRAY['apy_beyond_limit', 'tvl_negative', 'apy_missing'])[1 + n % 3], '{}'
FROM generate_series(1, 20000) AS n
""",
    "ledger": """
INSERT INTO yieldspark.run_ledger (run_id, job, status, mode, as_of, engine, code_version,
    started_at, finished_at, rows, stages, seconds, jvm_started, checks)
SELECT 'run_' || n, (ARRAY['calculate_metrics', 'forecast_pools'])[1 + n % 2], 'succeeded',
    'incremental', :as_of, 'lightgbm', '0.1.0', now() - n * interval '12 hours',
    now() - n * interval '12 hours' + interval '5 minutes',
    '{"read": 20000, "inserted": 20000, "updated": 0, "unchanged": 0}',
    '{"plan": 1.5, "load": 120, "merge": 30}', 300, true, '[]'
FROM generate_series(1, 730) AS n
""",
}


def fill_tables(
    engine: Engine, *, pools: int, days: int, say: Callable[[str], None]
) -> dict[str, int]:
    """Fill an empty migrated database.

    Args:
        pools: number of pools.
        days: days of metrics and raw history up to AS_OF; the last SCORED_DAYS of them were
            forecast and are scored.

    Returns:
        Rows by what they are.
    """
    parameters = {
        "pools": pools,
        "days": days,
        "as_of": AS_OF,
        "scored_days": min(days, SCORED_DAYS),
    }
    rows = {}
    for name, statement in STATEMENTS.items():
        say(f"generating {name}")
        query = text(statement)
        with engine.begin() as connection:
            used = {key: parameters[key] for key in query.compile().params}
            rows[name] = connection.execute(query, used).rowcount
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
    return rows
