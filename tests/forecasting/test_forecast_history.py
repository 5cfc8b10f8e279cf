"""The forecast history: actual values are added once observed, and corrected for ninety days."""

from __future__ import annotations

import datetime as dt
from itertools import product
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, insert, text

from database.schema.own_tables import forecast_evaluation, pool_coverage, value_staleness
from database.schema.owner_tables import pool_daily_metrics, pools
from forecasting.publishing.actuals import update_actuals
from forecasting.publishing.forecast_history import (
    describe_pools,
    history_by_target,
    scored_rows,
    to_past_rows,
)
from forecasting.publishing.history_days import history_days
from forecasting.publishing.history_window import PAST_DAYS
from forecasting.publishing.past_forecasts import PAST_COLUMNS

DAY = dt.timedelta(days=1)
NEWEST = dt.date(2024, 6, 30)


def row(pool_id: str = "a", target_date: dt.date = NEWEST, **other: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "pool_id": pool_id,
        "target_date": target_date,
        "horizon_days": 1,
        "target": "apy",
        "engine": "lightgbm",
        "source": "production",
    }
    values |= {
        "as_of": target_date - DAY,
        "forecast": 5.0,
        "persistence": 4.0,
        "volatility_scale": 0.5,
        "model_change": 2.0,
        "model_version": "m",
        "run_id": "r",
    }
    return values | other


def put(engine: Engine, *rows: dict[str, Any]) -> None:
    with engine.begin() as connection:
        for row_of_evaluation in rows:
            connection.execute(insert(forecast_evaluation), row_of_evaluation)


def observe(
    engine: Engine,
    pool_id: str,
    day: dt.date,
    apy: float | None,
    tvl: float | None = None,
    *,
    age: int = 0,
) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(pool_daily_metrics),
            {"pool_id": pool_id, "date": day, "actual_apy": apy, "actual_tvl": tvl},
        )
        if age:
            connection.execute(
                insert(value_staleness),
                {
                    "pool_id": pool_id,
                    "date": day,
                    "apy_staleness_days": age,
                    "tvl_staleness_days": age,
                },
            )


def take_in(engine: Engine) -> int:
    with engine.begin() as connection:
        return update_actuals(connection)


def actuals(engine: Engine) -> dict[tuple[str, str], float | None]:
    with engine.connect() as connection:
        return {
            (scored.pool_id, scored.target): scored.actual
            for scored in connection.execute(text("SELECT * FROM yieldspark.forecast_evaluation"))
        }


def test_only_observed_values_become_actual_values(engine: Engine) -> None:
    put(
        engine,
        row("seen"),
        row("seen", target="tvl"),
        row("carried"),
        row("unknown"),
        row("missing"),
    )
    observe(engine, "seen", NEWEST, 6.5, 2e6)
    observe(engine, "carried", NEWEST, 6.5, age=1)
    observe(engine, "unknown", NEWEST, None, 1.0)
    assert take_in(engine) == 2
    assert actuals(engine) == {
        ("seen", "apy"): 6.5,
        ("seen", "tvl"): 2e6,
        ("carried", "apy"): None,
        ("unknown", "apy"): None,
        ("missing", "apy"): None,
    }
    assert take_in(engine) == 0


def test_a_correction_is_used_while_the_day_is_updated(engine: Engine) -> None:
    old = NEWEST - PAST_DAYS * DAY
    put(engine, row("new", actual=1.0), row("old", old, actual=1.0), row("late", old))
    for pool_id, day in (("new", NEWEST), ("old", old), ("late", old)):
        observe(engine, pool_id, day, 2.0)
    assert take_in(engine) == 2
    assert actuals(engine) == {("new", "apy"): 2.0, ("old", "apy"): 1.0, ("late", "apy"): 2.0}


def test_a_longer_horizon_does_not_shorten_the_days_of_corrections(engine: Engine) -> None:
    """Its newest target day is days after that of the next-day forecasts."""
    oldest = NEWEST - (PAST_DAYS - 1) * DAY
    put(
        engine,
        row("new"),
        row("corrected", oldest, actual=1.0),
        row("far", NEWEST + 6 * DAY, horizon_days=7, as_of=NEWEST - DAY),
        row("far and corrected", oldest, horizon_days=7, as_of=oldest - 7 * DAY, actual=1.0),
        row("far and too old", oldest - DAY, horizon_days=7, as_of=oldest - 8 * DAY, actual=1.0),
    )
    for pool_id in ("corrected", "far and corrected"):
        observe(engine, pool_id, oldest, 2.0)
    observe(engine, "far and too old", oldest - DAY, 2.0)
    assert take_in(engine) == 2
    assert actuals(engine)["corrected", "apy"] == 2.0
    assert actuals(engine)["far and corrected", "apy"] == 2.0
    assert actuals(engine)["far and too old", "apy"] == 1.0


def test_gate_and_interval_learn_from_earlier_days_only(engine: Engine) -> None:
    put(
        engine,
        row("b", actual=4.5),
        row("a", NEWEST - DAY, actual=4.5, model_change_low=-1.0, model_change_high=3.0),
        row("a", actual=4.5, target="tvl"),
        row("open"),
        row("a", NEWEST + DAY, actual=9.0),
        row("too old", NEWEST - PAST_DAYS * DAY, actual=9.0),
        row("other engine", actual=9.0, engine="synapseml"),
        row("other horizon", actual=9.0, horizon_days=2),
    )
    past = history_by_target(engine, "lightgbm", horizon=1, as_of=NEWEST)
    assert past["apy"]["pool_id"].tolist() == ["a", "b"]
    assert past["tvl"]["pool_id"].tolist() == ["a"]
    first = past["apy"].iloc[0]
    assert list(past["apy"].columns) == ["target", *PAST_COLUMNS]
    assert first[
        ["now", "next", "volatility_scale", "model_change", "model_change_low", "model_change_high"]
    ].tolist() == [
        4.0,
        4.5,
        0.5,
        2.0,
        -1.0,
        3.0,
    ]
    assert first["target_day"] == pd.Timestamp(NEWEST - DAY)


def test_rows_of_a_backtest_equal_those_of_the_history(engine: Engine) -> None:
    rows_of_backtest = pd.DataFrame(
        [row("a", actual=4.5, model_change_low=-1.0, model_change_high=3.0)]
    )
    put(engine, row("a", actual=4.5, model_change_low=-1.0, model_change_high=3.0))
    history = history_by_target(engine, "lightgbm", horizon=1, as_of=NEWEST)["apy"]
    pd.testing.assert_frame_equal(to_past_rows(rows_of_backtest), history, check_dtype=False)


def test_history_days_are_those_of_the_target_that_has_fewer(engine: Engine) -> None:
    assert history_days(engine, "lightgbm", horizon=1, as_of=NEWEST) == 0
    days = [NEWEST - back * DAY for back in range(5)]
    put(engine, *(row(pool, day, actual=1.0) for pool, day in product("ab", days)))
    assert history_days(engine, "lightgbm", horizon=1, as_of=NEWEST) == 0
    put(engine, *(row("a", NEWEST - back * DAY, actual=1.0, target="tvl") for back in range(3)))
    put(engine, row("a", NEWEST - 9 * DAY, actual=1.0, target="tvl", model_change=None))
    assert history_days(engine, "lightgbm", horizon=1, as_of=NEWEST) == 3
    assert history_days(engine, "lightgbm", horizon=1, as_of=NEWEST - DAY) == 2


def test_scored_rows_are_of_the_requested_days_with_actual_values(engine: Engine) -> None:
    put(
        engine,
        row("a", actual=1.0),
        row("a", NEWEST - 2 * DAY, actual=1.0),
        row("open"),
        row("rule", actual=1.0, model_change=None, volatility_scale=None),
    )
    scored = scored_rows(engine, "lightgbm", horizon=1, last=NEWEST, days=2)
    assert scored["pool_id"].tolist() == ["a", "rule"]


@pytest.mark.parametrize("is_listed", [True, False])
def test_pools_are_described_with_unknown_values_as_null(engine: Engine, is_listed: bool) -> None:
    with engine.begin() as connection:
        if is_listed:
            connection.execute(
                insert(pools), {"pool_id": "a", "chain": "Base", "protocol": "aerodrome"}
            )
        connection.execute(
            insert(pool_coverage),
            {"pool_id": "a", "first_day": NEWEST - 10 * DAY, "last_day": NEWEST},
        )
    described = describe_pools(engine, pd.DataFrame([row("a"), row("b")])).set_index("pool_id")
    assert described.loc["a", "age_days"] == 10
    assert described.loc["a", "project"] == ("aerodrome" if is_listed else None)
    assert pd.isna(described.loc["b", "age_days"])
    assert pd.isna(described.loc["b", "chain"])
