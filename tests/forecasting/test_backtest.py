"""Published rows day by day: no day uses a later one; gate, intervals, reasons and limits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from forecasting.evaluation.scores import score, score_table
from forecasting.features.targets import Target
from forecasting.publishing.history_window import MIN_DAYS
from forecasting.publishing.past_forecasts import PAST_COLUMNS
from forecasting.publishing.publish import (
    NO_CHAMPION,
)
from tests.support.published_samples import (
    APY,
    DAYS,
    TVL,
    after_warm_up,
    assert_same_bits,
    day,
    evaluated,
    out_of_sample,
    published,
)

WHAT_IS_SHOWN = ["forecast", "low", "high", "gate_weight"]


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
