"""The numbers of report and `status` equal those of the tables, for an empty database too."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, astuple

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Connection, Engine, insert, text

from common.errors import DatabaseUnreachable
from config_spark import Settings
from database.connections.engine import make_engine
from database.schema.own_tables import quarantine, run_ledger
from database.schema.owner_tables import raw_pool_history
from forecasting.evaluation.daily_scores import daily_scores
from forecasting.evaluation.scores import score_table
from forecasting.publishing.forecast_history import SCORING_COLUMNS, scored_rows
from reporting.figures.accuracy import (
    ClassAccuracy,
    accuracy,
    newest_by_day,
    newest_evaluated,
)
from reporting.figures.data_quality import RawEnd, ValueShares, data_quality, raw_end
from reporting.figures.forecasts import forecast_table, pool_series, recent_runs, status
from reporting.figures.model_health import model_health
from tests.support.report_store import (
    AS_OF,
    DAYS,
    EMPTY_STATUS,
    EXPLANATION,
    SCORED_DAYS,
    TOMORROW,
    fill,
    ledger_row,
)


def _copy_forecasts(connection: Connection, *, target_date: str, as_of: str, horizon: int) -> None:
    """Add the same pools' forecasts of another day or horizon; all values are nine."""
    copy = (
        "INSERT INTO yieldspark.forecasts (pool_id, target_date, horizon_days, as_of, apy, apy_low,"
        " apy_high, tvl, tvl_low, tvl_high, interval_level, engine, model_version, run_id) SELECT"
        " pool_id, CAST(:target AS date), :horizon, CAST(:as_of AS date), 9, 9, 9, 9, 9, 9,"
        " interval_level, engine, model_version, run_id FROM yieldspark.forecasts"
    )
    connection.execute(text(copy), {"target": target_date, "as_of": as_of, "horizon": horizon})


def _copy_evaluation(connection: Connection, *, engine: str, days_earlier: int) -> None:
    """Adds the same scored rows of another engine or of earlier days, with large errors."""
    copy = (
        "INSERT INTO yieldspark.forecast_evaluation (pool_id, target_date, horizon_days, target,"
        " engine, as_of, actual, forecast, low, high, persistence, median_7d, tvl_usd, apy_percent,"
        " interval_level, model_version, run_id) SELECT pool_id, target_date - :days,"
        " horizon_days, target, :engine, as_of, 1e6, 0, low, high, persistence, median_7d, tvl_usd,"
        " apy_percent, interval_level, model_version, run_id FROM yieldspark.forecast_evaluation"
        " WHERE engine = 'lightgbm'"
    )
    connection.execute(text(copy), {"days": days_earlier, "engine": engine})


def _scores(engine: Engine) -> list[ClassAccuracy]:
    return accuracy(newest_evaluated(engine, days=SCORED_DAYS))


def test_status_of_an_empty_database_has_every_key(engine: Engine) -> None:
    assert status(engine) == EMPTY_STATUS


def test_everything_works_on_an_empty_database(engine: Engine) -> None:
    assert forecast_table(engine) == []
    assert pool_series(engine, []) == []
    assert _scores(engine) == []
    assert recent_runs(engine) == []
    assert data_quality(engine).shares == {}


def test_status_counts_the_rows(engine: Engine) -> None:
    fill(engine, pool_count=3)
    with engine.begin() as connection:
        newest = dt.datetime.now(dt.UTC) - dt.timedelta(hours=5)
        raw = {"pool_id": "p0", "raw_json_data": {"apy": 1}}
        connection.execute(
            insert(raw_pool_history),
            [raw | {"timestamp": newest}, raw | {"timestamp": newest - dt.timedelta(days=9)}],
        )
        later = {"started_at": dt.datetime.now(dt.UTC) + dt.timedelta(seconds=9)}
        bad = {
            "run_id": "r",
            "source_table": "raw_defillama_pool_history",
            "reason": "apy_infinite",
            "resolution": None,
        }
        connection.execute(
            insert(quarantine),
            [bad | {"source_id": "7"}, bad | {"source_id": "8", "resolution": "dropped"}],
        )
        connection.execute(
            insert(run_ledger),
            ledger_row("forecast_pools_2", "forecast_pools", "failed", error="no room", **later),
        )
    summary = status(engine)
    assert summary["jobs"]["forecast_pools"]["run_id"] == "forecast_pools_2"
    assert summary["data"].pop("raw_age_seconds") == pytest.approx(5 * 3600, abs=600)
    first_day = (AS_OF - dt.timedelta(days=DAYS - 1)).isoformat()
    assert summary["data"] == {
        "pools": 3,
        "pool_days": 3 * DAYS,
        "first_day": first_day,
        "last_day": AS_OF.isoformat(),
        "forecasts_next_day": 3,
        "quarantine_open": 1,
    }


def test_forecast_table_is_the_newest_day_largest_first_and_unknown_last(engine: Engine) -> None:
    fill(engine, pool_count=3)
    with engine.begin() as connection:
        _copy_forecasts(connection, target_date="2025-10-05", as_of="2025-10-04", horizon=1)
        connection.execute(
            text("UPDATE pool_daily_metrics SET actual_tvl = NULL WHERE pool_id = 'p2'")
        )
        connection.execute(
            text(
                "UPDATE yieldspark.forecasts SET tvl = NULL, tvl_low = NULL, tvl_high = NULL WHERE"
                " pool_id = 'p2'"
            )
        )
    rows = forecast_table(engine)
    assert [row.pool_id for row in rows] == ["p1", "p0", "p2"]
    assert {row.target_date for row in rows} == {TOMORROW}
    assert rows[0].tvl_today == 400_000.0
    assert isinstance(rows[0].apy_today, float)
    assert rows[0].apy == pytest.approx(rows[0].apy_today * 1.01, abs=1e-4)
    assert [row.apy_fallback_reason for row in rows] == [None, "stale", None]
    assert [row.explanation for row in rows] == [EXPLANATION, None, EXPLANATION]
    assert isinstance(rows[0].apy, float)


def test_a_longer_horizon_does_not_hide_tomorrow(engine: Engine) -> None:
    fill(engine, pool_count=2)
    with engine.begin() as connection:
        _copy_forecasts(connection, target_date="2025-10-12", as_of="2025-10-05", horizon=7)
    assert {(row.target_date, row.horizon_days) for row in forecast_table(engine)} == {
        (TOMORROW, 1)
    }
    assert status(engine)["data"]["forecasts_next_day"] == 2


def test_series_are_of_the_largest_pools_and_leave_out_carried_values(engine: Engine) -> None:
    fill(engine, pool_count=8)
    series = pool_series(engine, forecast_table(engine), days=40)
    assert [entry.pool.pool_id for entry in series] == ["p7", "p6", "p5", "p4", "p3", "p2"]
    days = series[0].days
    assert [day.date for day in days] == [
        AS_OF - dt.timedelta(days=back) for back in range(39, -1, -1)
    ]
    assert sum(day.forecast is not None for day in days) == SCORED_DAYS
    for day in days:
        if day.forecast is not None:
            assert day.low is not None
            assert day.high is not None
            assert day.low < day.forecast < day.high
    smallest = pool_series(engine, forecast_table(engine), pools=8)[-1]
    assert smallest.pool.pool_id == "p0"
    assert smallest.days[-1].actual is None, "the last day of p0 is carried, not observed"


def test_scores_are_those_of_the_forecast_job(engine: Engine) -> None:
    fill(engine)
    with engine.connect() as connection:
        stored = pd.DataFrame(
            connection.execute(text("SELECT * FROM yieldspark.forecast_evaluation"))
            .mappings()
            .all()
        )
    oracle = score_table(stored, 0.8)
    scores = _scores(engine)
    assert [(score.target, score.pool_class) for score in scores] == [
        ("apy", "restricted"),
        ("apy", "all"),
        ("tvl", "restricted"),
        ("tvl", "all"),
    ]
    for score in scores:
        expected = oracle[score.target][score.pool_class]
        assert (score.rows, score.pools) == (expected.rows, expected.pools)
        assert score.coverage == pytest.approx(expected.interval.coverage)
        assert score.mean_width == pytest.approx(expected.interval.mean_width)
        for forecaster, name in zip(
            score.forecasters, ("model", "persistence", "median7"), strict=True
        ):
            errors = expected.errors[name]
            assert (forecaster.mae, forecaster.median_ae, forecaster.rmse) == pytest.approx(
                (errors.mae, errors.median_ae, errors.rmse)
            )
        assert score.forecasters[0].ratio == pytest.approx(expected.ratio.mae)
        assert asdict(score.ratio) == pytest.approx(asdict(expected.ratio))


def test_scores_are_of_the_last_days_of_the_newest_engine(engine: Engine) -> None:
    fill(engine, pool_count=4)
    with engine.begin() as connection:
        _copy_evaluation(connection, engine="synapseml", days_earlier=0)
        _copy_evaluation(connection, engine="lightgbm", days_earlier=60)
    score = _scores(engine)[1]
    assert (score.engine, score.rows, score.last_day) == (
        "lightgbm",
        4 * SCORED_DAYS,
        AS_OF,
    )
    mae = score.forecasters[0].mae
    assert mae is not None
    assert mae < 10


def test_a_ratio_to_a_perfect_persistence_is_not_defined(engine: Engine) -> None:
    fill(engine, pool_count=2)
    with engine.begin() as connection:
        connection.execute(text("UPDATE yieldspark.forecast_evaluation SET persistence = actual"))
    for score in _scores(engine):
        assert {forecaster.ratio for forecaster in score.forecasters} == {None}


def test_data_health_tells_observed_from_carried_and_counts_quarantine(engine: Engine) -> None:
    fill(engine, pool_count=4)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO yieldspark.value_staleness SELECT pool_id, date, 0, NULL FROM"
                " pool_daily_metrics WHERE pool_id = 'p1'"
            )
        )
        connection.execute(text("UPDATE pools SET is_active = false WHERE pool_id = 'p3'"))
        bad = {
            "run_id": "r",
            "source_table": "raw_defillama_pool_history",
            "reason": "negative_tvl",
        }
        connection.execute(
            insert(quarantine), [bad | {"source_id": str(number)} for number in range(3)]
        )
        connection.execute(insert(quarantine), bad | {"source_id": "9", "reason": "absurd_apy"})
    health = data_quality(engine)
    assert (health.pools, health.pool_days, health.last_day) == (4, 4 * DAYS, AS_OF)
    assert astuple(health.shares["apy"]) == pytest.approx(
        astuple(ValueShares(observed=1 - 1 / (4 * DAYS), carried=1 / (4 * DAYS), unknown=0.0))
    )
    assert health.shares["tvl"].unknown == pytest.approx(0.25)
    assert (health.active_pools, health.active_pools_not_observed) == (3, 1)
    assert [(rows.reason, rows.rows) for rows in health.quarantine] == [
        ("negative_tvl", 3),
        ("absurd_apy", 1),
    ]
    assert raw_end(engine) == RawEnd(None, None, None)


def test_recent_runs_are_newest_first_and_limited(engine: Engine) -> None:
    start = dt.datetime(2025, 10, 6, tzinfo=dt.UTC)
    with engine.begin() as connection:
        for hour in range(12):
            connection.execute(
                insert(run_ledger),
                ledger_row(
                    f"r{hour}",
                    "calculate_metrics",
                    "succeeded",
                    started_at=start + dt.timedelta(hours=hour),
                ),
            )
    runs = recent_runs(engine)
    assert [run.run_id for run in runs] == [f"r{hour}" for hour in range(11, 1, -1)]
    assert runs[0].started_at == start + dt.timedelta(hours=11)
    assert runs[0].as_of == AS_OF


@pytest.mark.parametrize(
    "read", [forecast_table, _scores, data_quality, recent_runs, status, model_health]
)
def test_a_database_that_is_gone_is_an_error_with_a_next_step(
    database: Settings, read: object
) -> None:
    assert callable(read)
    with pytest.raises(DatabaseUnreachable, match="DB_PORT"):
        read(make_engine(database.model_copy(update={"db_port": 1})))


def test_days_are_added_up_in_the_database_as_from_rows(engine: Engine) -> None:
    fill(engine)
    with engine.begin() as connection:
        for change in (
            "volatility_scale = 0 WHERE pool_id = 'p1'",
            "volatility_scale = NULL WHERE pool_id = 'p2'",
            "low = NULL WHERE pool_id = 'p3'",
            "forecast = 1000 * forecast WHERE pool_id = 'p4'",
            "persistence = actual, forecast = actual, volatility_scale = 0 WHERE pool_id = 'p5'",
        ):
            connection.execute(text(f"UPDATE yieldspark.forecast_evaluation SET {change}"))
    rows = scored_rows(engine, "lightgbm", horizon=1, last=AS_OF, days=SCORED_DAYS)
    summed = newest_by_day(engine, days=SCORED_DAYS)
    for target, of_target in rows.groupby("target"):
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = daily_scores(of_target)
        pd.testing.assert_frame_equal(summed[str(target)], expected, check_dtype=False)


def test_rows_to_score_are_those_of_the_history(engine: Engine) -> None:
    fill(engine)
    expected = scored_rows(engine, "lightgbm", horizon=1, last=AS_OF, days=10)
    copied = newest_evaluated(engine, days=10)
    assert list(copied) == list(SCORING_COLUMNS)
    pd.testing.assert_frame_equal(copied, expected[list(SCORING_COLUMNS)])
