"""Points of a forecast run with several horizons: one time series for each."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import Engine, insert, text

from database.ledger.run_records import read_run
from database.schema.own_tables import promotion, run_ledger
from monitoring.run_points import SCORE_CHECK, points_of_run
from monitoring.series import (
    FORECASTS_WRITTEN,
    INTERVAL_COVERAGE,
    MAE_RATIO,
    MODEL_AGE,
    PERSISTENCE_SHARE,
    Point,
    Series,
)
from monitoring.table_points import points_of_tables
from tests.support.report_store import AS_OF, add_horizon, decision, fill, ledger_row

NOW = dt.datetime(2025, 10, 6, 1, tzinfo=dt.UTC)


def score_check(name: str, ratio: float) -> dict[str, Any]:
    scores = {"restricted": {"rows": 5, "ratio": {"mae": ratio}}, "all": {"rows": 9}}
    return {"name": name, "passed": True, "scores": {"apy": scores}}


def test_each_horizon_has_its_own_series(engine: Engine) -> None:
    fill(engine)
    add_horizon(engine, 7)
    with engine.begin() as connection:
        # other coverage, age and shares than those of the next day
        for statement in (
            "UPDATE yieldspark.forecast_evaluation SET source = 'production'",
            "UPDATE yieldspark.forecast_evaluation SET low = actual, high = actual"
            " WHERE horizon_days = 7",
            "UPDATE yieldspark.forecasts SET apy_fallback_reason = 'gate' WHERE horizon_days = 7",
        ):
            connection.execute(text(statement))
        fitted = AS_OF - dt.timedelta(days=3)
        of_far = decision(challenger="far", horizon_days=7, as_of=fitted)
        connection.execute(insert(promotion), of_far)
        checks = [score_check(SCORE_CHECK, 0.9), score_check(f"{SCORE_CHECK}_7d", 0.8)]
        plan = {"further_horizons": [{"horizon_days": 7}]}
        values = ledger_row("f", "forecast_pools", "succeeded", checks=checks, plan=plan)
        connection.execute(insert(run_ledger), values)
    record = read_run(engine, "f")
    with engine.connect() as connection:
        points = [*points_of_run(record), *points_of_tables(connection, record, NOW)]
    assert values_of(points, FORECASTS_WRITTEN) == {("lightgbm", "1"): 8, ("lightgbm", "7"): 8}
    assert values_of(points, MODEL_AGE) == {("lightgbm", "7"): 3}
    shares = values_of(points, PERSISTENCE_SHARE)
    assert shares["lightgbm", "apy", "1"] == 1 / 8
    assert shares["lightgbm", "apy", "7"] == 1.0
    coverage = values_of(points, INTERVAL_COVERAGE)
    assert coverage["lightgbm", "apy", "7"] == 1.0
    assert coverage["lightgbm", "apy", "1"] < 0.9
    ratios = {("lightgbm", "apy", "1"): 0.9, ("lightgbm", "apy", "7"): 0.8}
    assert values_of(points, MAE_RATIO) == ratios


def values_of(points: list[Point], series: Series) -> dict[tuple[str, ...], float]:
    return {tuple(point.labels): point.value for point in points if point.series == series}
