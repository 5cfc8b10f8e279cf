"""Published rows day by day: no day uses a later one; gate, intervals, reasons and limits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forecasting.engines.engine import FittedModel
from forecasting.engines.folds import DaySpan
from forecasting.evaluation.scores import score, score_table
from forecasting.features.targets import Target, targets
from forecasting.models.stacked_model import OutOfSample, StackedModel
from forecasting.publishing.history_window import MIN_DAYS
from forecasting.publishing.past_forecasts import PAST_COLUMNS, empty_history
from forecasting.publishing.publish import (
    NO_CHAMPION,
    PUBLISHED_COLUMNS,
    evaluation_rows,
    publish_days,
)

FIRST = dt.date(2024, 1, 1)
DAYS = 101
APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)
WHAT_IS_SHOWN = ["forecast", "low", "high", "gate_weight"]


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def days(first: int = 0, end: int = DAYS) -> list[dt.date]:
    return DaySpan(day(first), day(end)).days


def out_of_sample(
    skill: float, *, pools: int = 20, horizon: int = 1, shake: float = 1.0, length: int = DAYS
) -> pd.DataFrame:
    """Returns `OutOfSample.rows` around 50 % and 2 M USD.

    Args:
        shake: standard deviation of the levels, in scales.
        correlation: correlation of the model's moves with the actual ones. Its quantiles are half a
            scale to both sides, much too close.
    """
    random = np.random.default_rng(2)
    shape = (pools, length + horizon)
    sizes = {"apy": np.exp(random.uniform(-3, 1, (pools, 1))), "tvl": np.full((pools, 1), 0.01)}
    levels = {"apy": 50.0 + shake * sizes["apy"] * random.standard_normal(shape)}
    levels["tvl"] = np.expm1(np.log1p(2e6) + 0.01 * shake * random.standard_normal(shape))
    columns: dict[str, Any] = {
        "pool_id": np.repeat([f"p{number:02d}" for number in range(pools)], length),
        "date": np.tile(pd.date_range(FIRST, periods=length), pools),
        "apy_lowest_30": 0.0,
    }
    for target in (APY, TVL):
        values, name, scale = levels[target.name], target.name, sizes[target.name]
        moves = (target.level(values[:, horizon:]) - target.level(values[:, :-horizon])) / scale
        move = skill * moves + np.sqrt(1 - skill**2) * random.standard_normal(moves.shape)
        come_true = np.where(np.arange(length) + horizon < length, values[:, horizon:], np.nan)
        forecast_moves = {
            "": values[:, :-horizon],
            "_next": come_true,
            "_scale": np.broadcast_to(scale, moves.shape),
            "_move": move,
        }
        columns |= {f"{name}{ending}": of.ravel() for ending, of in forecast_moves.items()}
        columns |= {
            f"{name}_observed": True,
            f"{name}_move_low": columns[f"{name}_move"] - 0.5,
            f"{name}_move_high": columns[f"{name}_move"] + 0.5,
        }
        baselines = {
            "median_7": 0.0,
            "reverted": 1.0,
            "naive_low": -2.0,
            "naive_high": 2.0,
            "mean_abs_change": 3.0,
        }
        columns |= {
            f"{name}_{baseline}": columns[name] + gap for baseline, gap in baselines.items()
        }
    return pd.DataFrame(columns)


def published(
    sample: pd.DataFrame,
    target: Target = APY,
    forecast_days: Sequence[dt.date] | None = None,
    *,
    horizon: int = 1,
    level: float = 0.8,
    history: pd.DataFrame | None = None,
    is_shadow: bool = False,
) -> pd.DataFrame:
    past = empty_history() if history is None else history
    return publish_days(
        sample,
        target,
        days() if forecast_days is None else forecast_days,
        horizon=horizon,
        level=level,
        history=past,
        is_shadow=is_shadow,
    )


def evaluated(
    rows: pd.DataFrame, target: Target, models: Sequence[StackedModel] = (), *, horizon: int = 1
) -> pd.DataFrame:
    sample = OutOfSample(pd.DataFrame(), tuple(models))
    return evaluation_rows(
        rows,
        sample,
        target,
        horizon=horizon,
        engine="lightgbm",
        level=0.8,
        source="backtest",
        run_id="run",
    )


def after_warm_up(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["date"] > pd.Timestamp(day(MIN_DAYS))) & rows["next"].notna()]


def assert_same_bits(first: pd.DataFrame, second: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        first.reset_index(drop=True), second.reset_index(drop=True), check_exact=True
    )


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_later_actual_values_do_not_change_a_day(target: Target, horizon: int) -> None:
    sample = out_of_sample(0.7, horizon=horizon)
    cut = pd.Timestamp(day(80))
    unknown = sample["date"] + pd.Timedelta(days=horizon) > cut
    later = sample["date"] > cut
    changed_sample = sample.copy()
    changed_sample.loc[unknown, f"{target.name}_next"] = 7.0
    changed_sample.loc[later, [f"{target.name}_move", f"{target.name}_scale"]] = 4.0
    before, after = (
        published(sample, target, horizon=horizon),
        published(changed_sample, target, horizon=horizon),
    )
    until = before["date"] <= cut
    assert (
        before.loc[until & (before["date"] > pd.Timestamp(day(70))), WHAT_IS_SHOWN]
        .notna()
        .all()
        .all()
    )
    assert_same_bits(before.loc[until, WHAT_IS_SHOWN], after.loc[until, WHAT_IS_SHOWN])
    assert not before.loc[~until, ["low"]].equals(after.loc[~until, ["low"]])


@pytest.mark.parametrize("horizon", [1, 3])
def test_actual_values_of_a_day_are_used_on_that_day(horizon: int) -> None:
    sample = out_of_sample(0.7, horizon=horizon)
    cut = pd.Timestamp(day(80))
    newest = sample["date"] + pd.Timedelta(days=horizon) == cut
    changed_sample = sample.assign(apy_next=sample["apy_next"].where(~newest, 90.0))
    before, after = published(sample, horizon=horizon), published(changed_sample, horizon=horizon)
    differ = (before[WHAT_IS_SHOWN] != after[WHAT_IS_SHOWN]).any(axis=1) & before["low"].notna()
    assert before.loc[differ, "date"].min() == cut


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_the_gate_opens_after_forty_target_days_with_actual_values(horizon: int) -> None:
    rows = published(out_of_sample(1.0, horizon=horizon), horizon=horizon)
    opened = pd.Timestamp(day(MIN_DAYS - 1 + horizon))
    assert rows.loc[rows["gate_weight"] > 0.0, "date"].min() == opened
    closed = rows[rows["date"] < opened]
    assert (closed["forecast"] == closed["now"]).all()


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_a_model_with_skill_beats_persistence(target: Target) -> None:
    rows = after_warm_up(published(out_of_sample(0.9), target))
    table = score_table(evaluated(rows, target), 0.8)[target.name]["restricted"]
    assert table.rows == 20 * (DAYS - MIN_DAYS - 2)
    assert table.ratio.mae is not None
    assert table.ratio.mae < 0.6


@pytest.mark.parametrize("gate", ["closed", "open"])
@pytest.mark.parametrize(
    ("target", "level"), [(APY, 0.8), (TVL, 0.8), (APY, 0.5), (APY, 0.95)], ids=str
)
def test_interval_coverage_does_not_depend_on_the_gate(
    target: Target, level: float, gate: str
) -> None:
    """With at least 1,600 rows, the tolerance is three standard errors."""
    rows = published(out_of_sample(0.9, pools=80), target, level=level)
    is_open = rows["date"] > pd.Timestamp(day(MIN_DAYS))
    rows = rows[
        rows["next"].notna()
        & (is_open if gate == "open" else ~is_open & (rows["date"] >= pd.Timestamp(day(20))))
    ]
    assert (rows["gate_weight"] > 0.0).all() == (gate == "open")
    assert rows["next"].between(rows["low"], rows["high"]).mean() == pytest.approx(level, abs=0.04)


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_a_model_without_skill_becomes_persistence_to_the_bit(target: Target) -> None:
    """The model's moves are ten times the actual ones and unrelated to them."""
    rows = after_warm_up(published(out_of_sample(0.0, shake=0.1), target))
    assert (rows["gate_weight"] == 0.0).all()
    assert (rows["forecast"] == rows["now"]).all()
    scores = score(evaluated(rows, target), 0.8)
    assert scores.ratio.mae == 1.0
    assert scores.interval.coverage == pytest.approx(0.8, abs=0.03)


def test_a_step_that_is_noise_becomes_persistence_to_the_bit() -> None:
    sample = out_of_sample(1.0)
    last = sample["date"] == pd.Timestamp(day(DAYS - 1))
    sample.loc[last, "apy_move"] = np.where(np.arange(20) < 10, 0.03, 0.5)
    rows = published(sample).set_index("date").loc[pd.Timestamp(day(DAYS - 1))]
    assert (rows["gate_weight"] >= 0.9).all()
    assert (rows["forecast"] == rows["now"]).tolist() == [True] * 10 + [False] * 10


def hard_sample() -> pd.DataFrame:
    """Returns values at and near the limits of publishing, with large moves and quantiles that
    cross.
    """
    sample = out_of_sample(0.7)
    random = np.random.default_rng(8)
    number = sample["pool_id"].str[1:].astype(int).to_numpy()
    apy = np.choose(number % 5, [0.0, 0.001, 0.5, 355_083.0, 1e6])
    tvl = np.choose(number % 5, [0.0, 5.0, 1e6, 1e12, 3e12])
    shift = {
        "apy_move_low": random.normal(0, 2, number.size),
        "apy_move_high": random.normal(0, 2, number.size),
    }
    shift |= {
        "tvl_move_low": random.normal(0, 2, number.size),
        "tvl_move_high": random.normal(0, 2, number.size),
    }
    wild = {name: sample[name] + by for name, by in shift.items()}
    return sample.assign(
        apy=apy, tvl=tvl, apy_scale=1.0 + apy, tvl_scale=np.where(number % 2, 5.0, 0.001), **wild
    )


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_intervals_contain_their_forecast_and_values_stay_in_their_limits(
    target: Target,
) -> None:
    rows = published(hard_sample(), target)
    assert (rows["gate_weight"] > 0.0).any()
    assert np.isfinite(rows["forecast"]).all()
    with_interval = rows[rows["low"].notna()]
    assert len(with_interval) > 0.7 * len(rows)
    assert (with_interval["low"] <= with_interval["forecast"]).all()
    assert (with_interval["forecast"] <= with_interval["high"]).all()
    assert (with_interval["low"] >= 0.0).all()
    assert (
        with_interval["high"] <= np.maximum(target.limit, with_interval["now"]) * (1 + 1e-9)
    ).all()


def test_apy_goes_below_zero_only_for_a_pool_that_has_been_there() -> None:
    sample = out_of_sample(0.9)
    number = sample["pool_id"].str[1:].astype(int)
    near_zero = sample.assign(
        apy=0.01,
        apy_next=0.01 + sample["apy_next"] - sample["apy"],
        apy_lowest_30=np.where(number < 10, 0.0, -0.25),
    )
    rows = published(near_zero)
    rows = rows[rows["low"].notna()]
    has_been = rows["pool_id"].str[1:].astype(int) >= 10
    assert rows.loc[~has_been, "low"].min() == 0.0
    assert rows.loc[has_been, "low"].min() == -0.25
    assert rows.loc[has_been, "forecast"].min() < 0.0
    assert (rows.loc[~has_been, "forecast"] >= 0.0).all()


def test_an_interval_contains_a_forecast_that_is_clipped_at_zero() -> None:
    """The model forecasts a fall of 0.5 % by three scales, and by two at its upper quantile."""
    sample = out_of_sample(0.7)
    is_zero_pool = (sample["date"] == pd.Timestamp(day(DAYS - 1))) & (sample["pool_id"] == "p00")
    sample.loc[is_zero_pool, ["apy", "apy_scale", "apy_move", "apy_move_low", "apy_move_high"]] = [
        0.5,
        1.0,
        -3.0,
        -4.0,
        -2.9,
    ]
    last = published(sample).query("pool_id == 'p00'").iloc[-1]
    assert last[["low", "forecast", "high"]].tolist() == [0.0, 0.0, 0.0]


def test_days_without_a_model_show_persistence_and_the_panels_interval() -> None:
    sample = out_of_sample(0.9)
    blind = sample["date"] == pd.Timestamp(day(90))
    sample.loc[blind, ["apy_move", "apy_move_low", "apy_move_high"]] = np.nan
    rows = published(sample)
    without = rows["date"] == pd.Timestamp(day(90))
    assert (rows.loc[without, "forecast"] == rows.loc[without, "now"]).all()
    assert rows.loc[without, "gate_weight"].isna().all()
    assert set(rows.loc[without, "fallback_reason"]) == {"no_model"}
    past = rows[rows["target_day"] <= pd.Timestamp(day(90))]
    changes = (past["next"] - past["now"]) / (past["now"].abs() + 0.1)
    low, high = (float(np.quantile(changes, level)) for level in (0.1, 0.9))
    sizes = rows.loc[without, "now"] + 0.1
    assert rows.loc[without, "low"].to_numpy() == pytest.approx(
        (rows.loc[without, "now"] + low * sizes).to_numpy()
    )
    assert rows.loc[without, "high"].to_numpy() == pytest.approx(
        (rows.loc[without, "now"] + high * sizes).to_numpy()
    )
    later = rows["date"] > pd.Timestamp(day(90))
    assert rows.loc[later, WHAT_IS_SHOWN].notna().all().all()
    assert (rows.loc[later, "gate_weight"] > 0.8).all()


def test_without_any_model_every_day_shows_persistence() -> None:
    sample = out_of_sample(0.9).assign(apy_move=np.nan, apy_move_low=np.nan, apy_move_high=np.nan)
    rows = published(sample)
    assert (rows["forecast"] == rows["now"]).all()
    assert rows["gate_weight"].isna().all()
    assert (after_warm_up(rows)["low"] < after_warm_up(rows)["high"]).all()


def test_a_pool_without_a_scale_is_new_and_shows_persistence() -> None:
    sample = out_of_sample(0.9)
    sample.loc[sample["pool_id"] == "p03", "apy_scale"] = np.nan
    rows = published(sample)
    new = rows[rows["pool_id"] == "p03"]
    assert (new["forecast"] == new["now"]).all()
    assert new["gate_weight"].isna().all()
    assert set(new["fallback_reason"]) == {"cold_start"}


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_pools_without_a_scale_learn_from_earlier_ones_and_do_not_change_others(
    target: Target,
) -> None:
    """Ten of eighty pools move ten times as far: the panel's changes are too narrow for them."""
    sample = out_of_sample(0.9, pools=80)
    is_new = sample["pool_id"].isin([f"p{number:02d}" for number in range(0, 80, 8)])
    name, now = target.name, sample[target.name]
    far = now * np.exp(10 * (np.log(sample[f"{name}_next"]) - np.log(now)))
    new = sample.assign(
        **{
            f"{name}_next": sample[f"{name}_next"].where(~is_new, far),
            f"{name}_scale": sample[f"{name}_scale"].where(~is_new),
        }
    )
    rows, without = published(new, target), published(sample[~is_new], target)
    is_cold = rows["volatility_scale"].isna()
    assert set(rows.loc[is_cold, "fallback_reason"]) == {"cold_start"}
    scored = after_warm_up(rows[is_cold])
    assert scored["next"].between(scored["low"], scored["high"]).mean() == pytest.approx(
        0.8, abs=0.06
    )
    modelled = rows["model_change"].notna() & (rows["date"] > pd.Timestamp(day(MIN_DAYS)))
    assert_same_bits(
        rows.loc[modelled, WHAT_IS_SHOWN],
        without.loc[without["date"] > pd.Timestamp(day(MIN_DAYS)), WHAT_IS_SHOWN],
    )


@pytest.mark.parametrize(("pools", "after"), [(20, {"model", "gate"}), (9, {"few_pools"})])
def test_a_row_has_the_reason_why_it_equals_todays_value(pools: int, after: set[str]) -> None:
    rows = published(out_of_sample(1.0, pools=pools))
    reason = rows["fallback_reason"].where(rows["fallback_reason"].notna(), "model")
    assert set(reason[rows["date"] < pd.Timestamp(day(MIN_DAYS))]) == {"no_ledger"}
    assert set(reason[rows["date"] >= pd.Timestamp(day(MIN_DAYS))]) == after
    assert (rows["fallback_reason"].isna() == (rows["forecast"] != rows["now"])).all()


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_a_shadow_model_publishes_persistence_and_extends_the_history(
    target: Target,
) -> None:
    """Moves and scales are stored, so gate and interval have a history once a version serves."""
    sample = out_of_sample(0.9, pools=80)
    served, rows = published(sample, target), published(sample, target, is_shadow=True)
    assert (rows["forecast"] == rows["now"]).all()
    assert set(rows["gate_weight"]) == {0.0}
    opened = rows["date"] >= pd.Timestamp(day(MIN_DAYS))
    assert set(rows.loc[opened, "fallback_reason"]) == {NO_CHAMPION}
    assert set(rows.loc[~opened, "fallback_reason"]) == {"no_ledger"}
    assert_same_bits(rows[list(PAST_COLUMNS)], served[list(PAST_COLUMNS)])
    scored = after_warm_up(rows)
    assert scored["next"].between(scored["low"], scored["high"]).mean() == pytest.approx(
        0.8, abs=0.04
    )


def test_a_move_without_quantiles_is_published_without_an_interval() -> None:
    sample = out_of_sample(0.9)
    sample.loc[sample["pool_id"] == "p03", ["apy_move_low", "apy_move_high"]] = np.nan
    rows = after_warm_up(published(sample))
    has_none = rows["pool_id"] == "p03"
    assert rows.loc[has_none, ["low", "high"]].isna().all().all()
    assert (rows.loc[has_none, "gate_weight"] > 0.8).all()
    assert rows.loc[~has_none, ["low", "high"]].notna().all().all()


@pytest.mark.parametrize(("horizon", "days_of_history"), [(1, 20), (1, 45), (1, 100), (3, 45)])
def test_a_history_replaces_the_days_it_was_made_of(horizon: int, days_of_history: int) -> None:
    sample = out_of_sample(0.7, horizon=horizon)
    # a pool that begins later: the days have not all the same pools
    sample = sample[(sample["pool_id"] != "p02") | (sample["date"] > pd.Timestamp(day(7)))]
    at_once = published(sample, horizon=horizon)
    earlier = published(sample, forecast_days=days(0, days_of_history), horizon=horizon)
    history = earlier[list(PAST_COLUMNS)]
    later = published(sample, forecast_days=days(days_of_history), horizon=horizon, history=history)
    assert_same_bits(at_once, pd.concat([earlier, later]))


def test_a_history_of_forty_days_opens_the_gate_on_the_first_day() -> None:
    sample = out_of_sample(1.0)
    history = published(sample, forecast_days=days(0, 40))[list(PAST_COLUMNS)]
    first = published(sample, forecast_days=[day(40)], history=history)
    assert (first["gate_weight"] >= 0.9).all()
    assert (published(sample, forecast_days=[day(40)])["gate_weight"] == 0.0).all()


def test_only_pools_that_were_observed_are_published() -> None:
    sample = out_of_sample(0.5)
    unseen = (sample["pool_id"] == "p02") & (sample["date"] == pd.Timestamp(day(5)))
    rows = published(sample.assign(apy_observed=~unseen))
    assert len(rows) == 20 * DAYS - 1
    assert "p02" not in set(rows.loc[rows["date"] == pd.Timestamp(day(5)), "pool_id"])
    assert len(published(sample.assign(apy_observed=~unseen), TVL)) == 20 * DAYS


def test_days_without_rows_are_left_out() -> None:
    rows = published(out_of_sample(0.5), forecast_days=[day(-3), day(4), day(DAYS + 3)])
    assert set(rows["date"]) == {pd.Timestamp(day(4))}
    assert tuple(rows.columns) == PUBLISHED_COLUMNS


@pytest.mark.parametrize(
    "sample", [out_of_sample(0.5), out_of_sample(0.5).iloc[:0]], ids=["other days", "no rows"]
)
def test_no_published_rows_give_no_evaluation_rows(sample: pd.DataFrame) -> None:
    rows = published(sample, forecast_days=[day(-3)])
    assert (len(rows), tuple(rows.columns)) == (0, PUBLISHED_COLUMNS)
    assert evaluated(rows, APY).empty
    assert list(evaluated(rows, APY).columns) == list(
        evaluated(published(out_of_sample(0.5), forecast_days=[day(1)]), APY).columns
    )


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_evaluation_rows_have_the_published_and_the_actual_values(target: Target) -> None:
    sample = out_of_sample(0.9, horizon=3)
    rows = published(sample, target, horizon=3)
    spans = (DaySpan(day(20), day(90)), DaySpan(day(90), day(DAYS)))
    first, second = (
        StackedModel(span.start, span, (FittedModel("text", (), None),), ()) for span in spans
    )
    rows_of_evaluation = evaluated(rows, target, [first, second], horizon=3)
    keys = ["pool_id", "target_date", "horizon_days", "target", "engine", "source", "as_of"]
    values = [
        "actual",
        "forecast",
        "low",
        "high",
        "persistence",
        "median_7d",
        "mean_reversion",
        "naive_low",
        "naive_high",
        "mean_abs_change",
    ]
    model = [
        "volatility_scale",
        "model_change",
        "model_change_low",
        "model_change_high",
        "gate_weight",
        "tvl_usd",
        "apy_percent",
        "interval_level",
        "model_version",
        "run_id",
    ]
    assert set(rows_of_evaluation.columns) == {*keys, *values, *model}
    assert set(rows_of_evaluation["target_date"] - rows_of_evaluation["as_of"]) == {
        dt.timedelta(days=3)
    }
    assert (
        rows_of_evaluation["actual"].isna().equals(rows_of_evaluation["target_date"] >= day(DAYS))
    )
    descriptions = rows_of_evaluation[
        ["horizon_days", "target", "engine", "source", "interval_level", "run_id"]
    ].drop_duplicates()
    assert descriptions.to_numpy().tolist() == [
        [3, target.name, "lightgbm", "backtest", 0.8, "run"]
    ]
    versions = dict(
        zip(rows_of_evaluation["as_of"], rows_of_evaluation["model_version"], strict=True)
    )
    assert [versions[day(number)] for number in (0, 19, 20, 89, 90, DAYS - 1)] == ["none"] * 2 + [
        first.version
    ] * 2 + [second.version] * 2


def test_evaluation_rows_have_each_column_of_the_sample() -> None:
    sample = out_of_sample(0.9)
    for target in (APY, TVL):
        rows_of_evaluation = evaluated(published(sample, target), target).sort_values(
            ["pool_id", "as_of"], ignore_index=True
        )
        name = target.name
        columns = {
            "actual": f"{name}_next",
            "persistence": name,
            "median_7d": f"{name}_median_7",
            "mean_reversion": f"{name}_reverted",
            "naive_low": f"{name}_naive_low",
            "naive_high": f"{name}_naive_high",
            "mean_abs_change": f"{name}_mean_abs_change",
            "volatility_scale": f"{name}_scale",
            "model_change": f"{name}_move",
            "model_change_low": f"{name}_move_low",
            "model_change_high": f"{name}_move_high",
            "tvl_usd": "tvl",
            "apy_percent": "apy",
        }
        for column, source in columns.items():
            assert np.array_equal(rows_of_evaluation[column], sample[source], equal_nan=True), (
                column
            )
