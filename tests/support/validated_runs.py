"""The tables after a daily run that the validation accepts."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from config_spark import Settings
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import World
from tests.support.metrics_store import execute, put, run_world

DAYS = 45
LAST = START + timedelta(days=DAYS - 1)


def put_daily_run(database: Settings, engine: Engine) -> World:
    """Write a run's metrics up to LAST, and forecasts of all pools for the day after it."""
    generated = world(8, pools=12, days=DAYS)
    put(engine, generated)
    run_world(database, generated)
    execute(
        engine,
        "INSERT INTO yieldspark.forecasts (pool_id, target_date, horizon_days, as_of, apy,"
        " interval_level, engine, model_version, run_id) SELECT DISTINCT pool_id, :target, 1,"
        " :as_of, 5.0, 0.8, 'lightgbm', 'v1', 'run' FROM pool_daily_metrics",
        target=LAST + timedelta(days=1),
        as_of=LAST,
    )
    return generated
