"""Scores on frames small enough to compute by hand; segments add up to all rows."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forecasting.evaluation.error_measures import IntervalScores
from forecasting.evaluation.scores import ErrorRatios, score, score_table, summary_line, table_json
from forecasting.evaluation.segments import LARGEST, SegmentScore, segment_scores

DAY = dt.date(2024, 6, 1)
COLUMNS = {
    "pool_id": "a",
    "target": "apy",
    "as_of": DAY,
    "target_date": DAY + dt.timedelta(days=1),
    "actual": 10.0,
    "forecast": 11.0,
    "low": np.nan,
    "high": np.nan,
    "persistence": 12.0,
    "median_7d": 10.0,
    "mean_reversion": 13.0,
    "naive_low": np.nan,
    "naive_high": np.nan,
    "volatility_scale": 0.5,
    "mean_abs_change": 2.0,
    "tvl_usd": 2e6,
    "apy_percent": 12.0,
    "age_days": 400,
}


def evaluation(**columns: Any) -> pd.DataFrame:
    """Returns evaluation rows with the values above; the index has gaps, as of a selection."""
    rows = pd.DataFrame(
        COLUMNS | columns,
        index=None if any(isinstance(value, list) for value in columns.values()) else [0],
    )
    return rows.set_index(rows.index * 3 + 1)


def month(days: int = 30, pools: int = 4, seed: int = 1) -> pd.DataFrame:
    """Returns a month of random rows of both targets; persistence is worse than the model."""
    random = np.random.default_rng(seed)
    count = days * pools
    frames = []
    for target, size in (("apy", 10.0), ("tvl", 1e6)):
        actual = size * random.uniform(1, 2, count)
        frames.append(
            evaluation(
                pool_id=[f"p{number}" for number in range(pools)] * days,
                as_of=[DAY + dt.timedelta(days=number // pools) for number in range(count)],
                target=target,
                actual=actual,
                forecast=actual + size * random.normal(0, 0.1, count),
                persistence=actual + size * random.normal(0, 0.2, count),
                low=actual - size * random.uniform(-0.1, 0.4, count),
                high=actual + size * 0.3,
                naive_low=actual - size * 0.5,
                naive_high=actual + size * 0.5,
                tvl_usd=np.where(np.arange(count) % pools == 0, 5e5, 5e6),
            )
        )
    return pd.concat(frames, ignore_index=True)


def test_scores_by_hand() -> None:
    rows = evaluation(
        pool_id=["a", "a", "b", "c"],
        actual=[10.0, 12.0, 5.0, 200.0],
        forecast=[11.0, 12.0, 7.0, 100.0],
        low=[9.0, 12.5, 6.0, np.nan],
        high=[12.0, 13.0, 8.0, np.nan],
        persistence=[8.0, 10.0, 5.0, 150.0],
        median_7d=[10.0, 10.0, 5.0, 200.0],
        mean_reversion=[9.0, 9.0, 9.0, 200.0],
        mean_abs_change=[0.5, 1.5, 4.0, 1.0],
        apy_percent=[8.0, 10.0, 5.0, 150.0],
    )
    table = score_table(rows, 0.8)
    restricted = table["apy"]["restricted"]
    assert (restricted.rows, restricted.pools, restricted.days, restricted.mase_pools) == (
        3,
        2,
        1,
        2,
    )
    scores = restricted.to_json()
    # MASE: pool a errs by 0.5 where a step is 1, pool b by 2 where it is 4
    expected = {
        "mae": 1.0,
        "median_ae": 1.0,
        "rmse": np.sqrt(5 / 3),
        "mape": (1 / 10 + 0 + 2 / 5) / 3,
        "mase": (0.5 / 1 + 2 / 4) / 2,
    }
    assert scores["model"] == pytest.approx(expected)
    assert scores["persistence"] == pytest.approx(
        {
            "mae": 4 / 3,
            "median_ae": 2.0,
            "rmse": np.sqrt(8 / 3),
            "mape": (1 / 5 + 1 / 6) / 3,
            "mase": 1.0,
        }
    )
    assert scores["median7"]["mae"] == pytest.approx(2 / 3)
    assert scores["mean_reversion"]["mae"] == pytest.approx(8 / 3)
    bounds = dict.fromkeys(("mae_low", "mae_high", "median_ae_low", "median_ae_high"))
    assert scores["ratio"] == pytest.approx(
        {"mae": 0.75, "median_ae": 0.5, "rmse": np.sqrt(5 / 8), "mape": 15 / 11, "mase": 0.5}
        | bounds
    )
    interval = scores["interval"]
    assert (interval["level"], interval["rows"]) == (0.8, 3)
    assert interval["coverage"] == pytest.approx(1 / 3)
    assert interval["mean_width"] == pytest.approx(5.5 / 3)
    assert table["apy"]["all"].rows == 4
    assert table["apy"]["all"].interval.rows == 3


def test_pinball_losses_are_compared_where_both_intervals_are() -> None:
    rows = evaluation(
        actual=[10.0, 10.0, 10.0],
        forecast=[11.0, 10.0, 10.0],
        low=[9.0, 12.0, np.nan],
        high=[13.0, 14.0, np.nan],
        persistence=[12.0, 10.0, 10.0],
        naive_low=[8.0, np.nan, 8.0],
        naive_high=[9.0, np.nan, 12.0],
    )
    scores = score(rows, 0.8).interval
    first = (0.1 * 1.0 + 0.5 * 1.0 + 0.1 * 3.0) / 3
    second = (0.9 * 2.0 + 0.0 + 0.1 * 4.0) / 3
    naive_first = (0.1 * 2.0 + 0.5 * 2.0 + 0.9 * 1.0) / 3
    assert scores.pinball == pytest.approx((first + second) / 2)
    assert scores.pinball_ratio == pytest.approx(first / naive_first)
    assert (scores.naive_coverage, scores.naive_width) == (0.0, 1.0)


@pytest.mark.parametrize(("actual", "coverage"), [(8.9, 0.0), (9.0, 1.0), (11.0, 1.0), (11.1, 0.0)])
def test_an_interval_holds_its_own_ends(actual: float, coverage: float) -> None:
    assert score(evaluation(actual=actual, low=9.0, high=11.0), 0.8).interval.coverage == coverage


def test_outer_quantiles_of_the_pinball_loss_are_those_of_the_level() -> None:
    rows = evaluation(actual=10.0, forecast=10.0, low=8.0, high=14.0)
    assert score(rows, 0.5).interval.pinball == pytest.approx((0.25 * 2.0 + 0.25 * 4.0) / 3)


@pytest.mark.parametrize(
    "missing", [{"low": np.nan}, {"high": np.nan}, {"low": np.nan, "high": np.nan}]
)
def test_half_an_interval_is_none(missing: dict[str, float]) -> None:
    rows = evaluation(**{"low": 9.0, "high": 11.0, "naive_low": 9.0, "naive_high": 11.0} | missing)
    assert score(rows, 0.8).interval == IntervalScores(level=0.8)


@pytest.mark.parametrize(("target", "floor"), [("apy", 1.0), ("tvl", 1_000.0)])
def test_the_denominator_of_mape_has_a_floor(target: str, floor: float) -> None:
    rows = evaluation(target=target, actual=[0.0, -4 * floor], forecast=[0.5 * floor, -3 * floor])
    assert score(rows, 0.8).errors["model"].mape == pytest.approx((0.5 + 0.25) / 2)


def test_pools_that_never_moved_or_are_unknown_are_left_out_of_mase() -> None:
    rows = evaluation(
        pool_id=["still", "unknown", "half", "half"], mean_abs_change=[0.0, np.nan, np.nan, 0.5]
    )
    scores = score(rows, 0.8)
    assert (scores.pools, scores.mase_pools) == (3, 1)
    assert scores.errors["model"].mase == pytest.approx(1.0 / 0.5)
    assert score(rows.iloc[:2], 0.8).ratio.mase is None


def test_a_ratio_to_a_perfect_persistence_is_not_defined() -> None:
    rows = month(days=20).query("target == 'apy'")
    scores = score(rows.assign(persistence=rows["actual"]), 0.8)
    assert scores.ratio == ErrorRatios()
    assert scores.errors["persistence"].mae == 0.0


def test_no_rows_have_no_scores() -> None:
    none = evaluation().iloc[:0]
    assert score(none, 0.8).to_json() == {"rows": 0, "pools": 0, "days": 0}
    assert (score_table(none, 0.8), segment_scores(none, 0.8)) == ({}, [])
    assert summary_line({}) == "no day could be scored"


def test_a_forecast_unknown_on_one_row_has_no_errors_and_the_others_keep_theirs() -> None:
    rows = month().assign(mean_reversion=lambda rows: rows["mean_reversion"].mask(rows.index == 3))
    scores = score_table(rows, 0.8)["apy"]["all"].to_json()
    assert set(scores["mean_reversion"].values()) == {None}
    assert None not in scores["model"].values()
    json.dumps(table_json(score_table(rows, 0.8)), allow_nan=False)


def test_ratios_are_in_their_intervals_and_do_not_depend_on_row_order() -> None:
    rows = month()
    ratio = score_table(rows, 0.8)["apy"]["all"].to_json()["ratio"]
    assert ratio["mae_low"] < ratio["mae"] < ratio["mae_high"] < 0.8
    assert ratio["median_ae_low"] < ratio["median_ae"] < ratio["median_ae_high"]
    assert ratio["median_ae_low"] != ratio["mae_low"]
    shuffled = score_table(rows.sample(frac=1, random_state=1), 0.8)["apy"]["all"]
    assert shuffled.to_json()["ratio"] == pytest.approx(ratio, rel=1e-12)


def test_rows_as_stored_before_the_newer_columns_are_scored_without_them() -> None:
    newer = [
        "mean_reversion",
        "naive_low",
        "naive_high",
        "volatility_scale",
        "mean_abs_change",
        "age_days",
    ]
    rows = month()
    before, now = (
        score_table(rows.drop(columns=newer), 0.8)["apy"]["all"].to_json(),
        score_table(rows, 0.8)["apy"]["all"].to_json(),
    )
    assert {name: value for name, value in before["model"].items() if name != "mase"} | {
        "mase": now["model"]["mase"]
    } == now["model"]
    assert (
        before["model"]["mase"],
        before["mean_reversion"]["mae"],
        before["interval"]["pinball_ratio"],
    ) == (None, None, None)
    assert {segment.by for segment in segment_scores(rows.drop(columns=newer), 0.8)} == {
        "tvl_class"
    }


def test_the_summary_line_has_the_interval_of_the_ratio_if_there_is_one() -> None:
    table = score_table(month(days=30), 0.8)
    scores = table["apy"]["restricted"]
    ratio = scores.ratio
    assert summary_line(table).startswith(
        f"apy: MAE {ratio.mae:.3f} (90% interval {ratio.mae_low:.3f} to"
        f" {ratio.mae_high:.3f}), median error {ratio.median_ae:.3f} of persistence, coverage"
        f" {scores.interval.coverage:.3f} on 90 rows; tvl: MAE "
    )
    assert (
        summary_line(score_table(evaluation(), 0.8))
        == "apy: MAE 0.500, median error 0.500 of persistence, coverage not defined on 1 row"
    )


def groups(rows: pd.DataFrame, by: str) -> dict[str, int]:
    scores = segment_scores(rows, 0.8)
    return {segment.group: segment.rows for segment in scores if segment.by == by}


def test_a_group_has_the_scores_of_its_rows() -> None:
    rows = month()
    tvl_segment = next(
        segment
        for segment in segment_scores(rows, 0.8)
        if (segment.target, segment.by, segment.group) == ("tvl", "tvl_class", "1M-10M")
    )
    expected = score_table(rows, 0.8)["tvl"]["restricted"]
    assert tvl_segment == SegmentScore(
        target="tvl",
        by="tvl_class",
        group="1M-10M",
        rows=90,
        pools=3,
        mae=expected.errors["model"].mae,
        persistence_mae=expected.errors["persistence"].mae,
        mae_ratio=expected.ratio.mae,
        mae_ratio_low=expected.ratio.mae_low,
        mae_ratio_high=expected.ratio.mae_high,
        median_ae_ratio=expected.ratio.median_ae,
        coverage=expected.interval.coverage,
        pinball_ratio=expected.interval.pinball_ratio,
    )


def test_volatility_is_the_scale_relative_to_the_size_of_an_apy_and_the_scale_of_a_tvl() -> None:
    apy = evaluation(
        volatility_scale=[0.1, 0.11, 0.51, 0.51, 0.0005, np.nan],
        apy_percent=[9.9, -9.9, 9.9, 99.9, 0.0, 9.9],
    )
    assert groups(apy, "instability") == {"calm": 2, "medium": 2, "wild": 1, "unknown": 1}
    tvl = evaluation(target="tvl", volatility_scale=[0.004, 0.005, 0.019, 0.02])
    assert groups(tvl, "instability") == {"calm": 1, "medium": 2, "wild": 1}


def test_every_row_is_of_one_class_of_size_and_age() -> None:
    rows = evaluation(
        tvl_usd=[0.0, 99_999.0, 1e5, 1e6, 1e7, np.nan],
        age_days=[0.0, 29.0, 30.0, 90.0, 365.0, np.nan],
    )
    assert groups(rows, "tvl_class") == {
        "<100k": 2,
        "100k-1M": 1,
        "1M-10M": 1,
        "10M+": 1,
        "unknown": 1,
    }
    assert groups(rows, "age_class") == {"<30": 2, "30-90": 1, "90-365": 1, "365+": 1, "unknown": 1}


def test_small_chains_are_other_and_a_chain_without_a_name_is_unknown() -> None:
    names = [f"chain{number:02d}" for number in range(LARGEST + 2)]
    rows = evaluation(chain=[*names, *names[3:], None, None, None])
    rows_by_chain = groups(rows, "chain")
    assert list(rows_by_chain) == ["unknown", *names[3:], "other"]
    assert (rows_by_chain["unknown"], rows_by_chain["chain03"], rows_by_chain["other"]) == (3, 2, 3)
    assert "project" not in {segment.by for segment in segment_scores(rows, 0.8)}
    assert groups(rows.rename(columns={"chain": "project"}), "project") == rows_by_chain
