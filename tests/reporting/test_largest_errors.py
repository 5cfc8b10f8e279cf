"""The largest forecast errors and their reasons."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
from sqlalchemy import Engine, insert

from database.schema.owner_tables import pools
from reporting.figures.largest_errors import MAX_ERRORS, MAX_ERRORS_OF_A_POOL, largest_errors
from tests.forecasting.test_scores import DAY, evaluation

CALM = {"model_change": 0.2, "low": 9.0, "high": 12.0, "persistence": 10.5}


def missed(**columns: object) -> pd.DataFrame:
    return evaluation(**CALM | columns)


def test_a_miss_is_ranked_in_its_pools_own_steps(engine: Engine) -> None:
    rows = missed(
        pool_id=["wild", "calm", "exact"],
        actual=[1000.0, 11.0, 11.0],
        forecast=[0.0, 10.0, 11.0],
        volatility_scale=[500.0, 0.1, 0.1],
    )
    errors = largest_errors(engine, rows)["apy"]
    assert [(error.pool_id, error.error, round(error.scales, 9)) for error in errors] == [
        ("calm", 1.0, 10.0),
        ("wild", 1000.0, 2.0),
    ]


def test_one_pool_does_not_fill_the_table(engine: Engine) -> None:
    absurd = missed(
        pool_id="absurd", target_date=[DAY + dt.timedelta(days=n) for n in range(20)], actual=1e6
    )
    others = missed(
        pool_id=[f"p{n:02d}" for n in range(20)], actual=[11.5 + n / 100 for n in range(20)]
    )
    errors = [error.pool_id for error in largest_errors(engine, pd.concat([absurd, others]))["apy"]]
    assert errors == ["absurd"] * MAX_ERRORS_OF_A_POOL + [
        f"p{n}" for n in range(19, 19 - (MAX_ERRORS - MAX_ERRORS_OF_A_POOL), -1)
    ]


def test_each_target_has_its_own(engine: Engine) -> None:
    rows = pd.concat(
        [
            missed(),
            missed(
                target="tvl", actual=np.expm1(10.0), forecast=np.expm1(10.5), volatility_scale=0.1
            ),
        ]
    )
    errors = largest_errors(engine, rows)
    assert [error.scales for error in errors["apy"]] == [2.0]
    assert [round(error.scales, 9) for error in errors["tvl"]] == [5.0]


def test_only_true_reasons_are_named(engine: Engine) -> None:
    rows = missed(
        pool_id=["spike", "new", "gate", "no_model", "none"],
        actual=[14.0, 10.6, 10.6, 10.6, 10.6],
        forecast=[11.0, 11.0, 10.5, 10.5, 11.0],
        model_change=[0.2, 0.2, 0.2, np.nan, 0.2],
        age_days=[400, 29, 30, 400, 400],
    )
    reasons = {error.pool_id: error.reasons for error in largest_errors(engine, rows)["apy"]}
    assert reasons == {
        "spike": ("spike",),
        "new": ("new",),
        "gate": ("as_today",),
        "no_model": ("no_model",),
        "none": (),
    }


def test_a_pool_without_a_scale_is_not_ranked_and_half_an_interval_is_unknown(
    engine: Engine,
) -> None:
    rows = missed(pool_id=["unknown", "known"], volatility_scale=[np.nan, 0.5], low=[9.0, np.nan])
    (error,) = largest_errors(engine, rows)["apy"]
    assert (error.pool_id, error.low, error.high) == ("known", None, 12.0)


def test_an_error_has_the_pools_labels_if_there_are_any(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(pools).values(
                pool_id="a", symbol="USDC-WETH", protocol="curve-dex", chain="Base"
            )
        )
    labelled, unknown = largest_errors(engine, missed(pool_id=["a", "b"], actual=[20.0, 12.0]))[
        "apy"
    ]
    assert (labelled.symbol, labelled.protocol, labelled.chain, labelled.name) == (
        "USDC-WETH",
        "curve-dex",
        "Base",
        None,
    )
    assert (unknown.pool_id, unknown.symbol) == ("b", None)
