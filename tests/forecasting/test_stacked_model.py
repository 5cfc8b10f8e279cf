"""The stacked model on generated rows, with native LightGBM: folds, objectives and versions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forecasting.engines.engine import (
    KEY,
    FeatureRows,
    Features,
    FittedModel,
    ModelSpan,
    Objective,
)
from forecasting.engines.folds import DaySpan, FoldPlan, backtest_folds
from forecasting.engines.lightgbm_engine import LightgbmEngine, LightgbmRows
from forecasting.engines.model_parameters import ModelParameters
from forecasting.features.targets import Values, mean_of_spaces
from forecasting.models.stacked_model import (
    MIN_TRAINING_ROWS,
    NO_VERSION,
    READ_COLUMNS,
    TVL_FORECAST,
    OutOfSample,
    StackedModel,
    apy_objectives,
    fit_stacked,
    forecast_by,
    tvl_objectives,
)

AS_OF = dt.date(2024, 6, 30)
FEATURES = ("signal", "noise")
LABELS = ("apy_label", "apy_asinh_label", "tvl_label")
QUICK = ModelParameters(seed=7, threads=1, rounds=40, learning_rate=0.15, min_data_in_leaf=20)


def folds(horizon: int = 1, *, train_days: int = 60) -> FoldPlan:
    """Returns folds with origins 12 and 6 days before the as-of day, and on that day."""
    last_target = AS_OF + dt.timedelta(days=horizon)
    return backtest_folds(
        last_target, days=12 + horizon, horizon=horizon, train_days=train_days, refit_days=6
    )


def generated(pools: int = 40, days: int = 115, *, horizon: int = 1) -> pd.DataFrame:
    """Returns rows up to the as-of day: APY rises with `signal`, TVL falls with it."""
    random = np.random.default_rng(5)
    rows = pools * days
    date = pd.date_range(end=AS_OF, periods=days)
    frame = pd.DataFrame(
        {
            "pool_id": np.repeat([f"p{number:02d}" for number in range(pools)], days),
            "date": np.tile(date, pools),
        }
    )
    frame = frame.assign(
        **{name: random.standard_normal(rows) for name in FEATURES},
        **dict.fromkeys(READ_COLUMNS, 1.0),
    )
    frame = frame.assign(apy=4.0, apy_scale=0.5, apy_observed=True, tvl_observed=True)
    mask = np.where(frame["date"] + pd.Timedelta(days=horizon) <= pd.Timestamp(AS_OF), 1.0, np.nan)
    move = mask * (frame["signal"] + 0.3 * random.standard_normal(rows))
    labels = {
        "apy_label": move,
        "apy_asinh_label": np.arcsinh((4.0 + 0.5 * move) / 0.1) - np.arcsinh(4.0 / 0.1),
        "tvl_label": -2.0 * mask * (frame["signal"] + 0.3 * random.standard_normal(rows)),
    }
    return frame.assign(**labels)


def prepared(frame: pd.DataFrame) -> LightgbmRows:
    """Returns the rows as `LightgbmEngine.prepare` makes them of a Spark frame."""
    by_day = frame.groupby("date")[list(LABELS)].count()
    counts: dict[str, dict[dt.date, int]] = {}
    for label in LABELS:
        days = by_day[label].items()
        counts[label] = {day.date(): int(rows) for day, rows in days}  # type: ignore[attr-defined]
    return LightgbmRows(
        frame.drop(columns=list(FEATURES)),
        frame[list(FEATURES)].to_numpy(np.float32),
        FEATURES,
        counts,
        QUICK,
    )


def stacked(rows: FeatureRows, plan: FoldPlan | None = None, level: float = 0.8) -> OutOfSample:
    return fit_stacked(rows, plan or folds(), level, lambda _: nullcontext())


@dataclass(frozen=True)
class Recorded:
    """Rows that record their calls; forecasts are the engine's, or `answers` by objective."""

    rows: FeatureRows
    answers: dict[Objective, float] | None = None
    fits: list[tuple[FittedModel, Objective, DaySpan]] = field(default_factory=list)
    stacks: list[tuple[str, list[ModelSpan]]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    name: str = "recorded"

    def labelled_rows(self, label: str, days: DaySpan) -> int:
        return self.rows.labelled_rows(label, days)

    def fit(self, objectives: Sequence[Objective], days: DaySpan) -> list[FittedModel]:
        models = (
            self.rows.fit(objectives, days)
            if self.answers is None
            else [
                FittedModel(repr(objective_of_model), FEATURES, objective_of_model)
                for objective_of_model in objectives
            ]
        )
        self.fits.extend(
            (model, objective, days) for model, objective in zip(models, objectives, strict=True)
        )
        return models

    def with_feature(self, name: str, parts: Sequence[ModelSpan]) -> Recorded:
        self.stacks.append((name, list(parts)))
        rows = self.rows.with_feature(name, parts) if self.answers is None else self.rows
        return Recorded(rows, self.answers, self.fits, self.stacks, self.released, "stacked")

    def forecast(
        self, days: DaySpan, models: Sequence[FittedModel], columns: Sequence[str]
    ) -> pd.DataFrame:
        if self.answers is None:
            return self.rows.forecast(days, models, columns)
        return self.rows.forecast(days, [], columns).assign(
            **{str(place): self.answers[model.native] for place, model in enumerate(models)}
        )

    def feature_matrix(
        self, days: DaySpan, columns: Sequence[str], *, at_most: int | None = None
    ) -> tuple[pd.DataFrame, Features]:
        return self.rows.feature_matrix(days, columns, at_most=at_most)

    @property
    def features(self) -> tuple[str, ...]:
        return self.rows.features

    def release(self) -> None:
        self.released.append(self.name)


def moves(sample: OutOfSample, target: str) -> pd.DataFrame:
    return sample.rows[[*KEY, f"{target}_move", f"{target}_move_low", f"{target}_move_high"]]


@pytest.mark.parametrize("level", [0.8, 0.5])
def test_each_fit_is_read_by_its_objective(level: float) -> None:
    means = [objective for objective in apy_objectives(level) if objective.alpha is None]
    scaled = [objective for objective in means if objective.label == LABELS[0]]
    asinh = [objective for objective in means if objective.label == LABELS[1]]
    low, high = sorted(
        (outer for outer in apy_objectives(level) if outer.alpha is not None),
        key=lambda outer: outer.alpha or 0.0,
    )
    median, tvl_low, tvl_high = tvl_objectives(level)
    answers = (
        dict(zip(scaled, (1.0, 2.0, 3.0, 3.0, 6.0), strict=True))
        | dict(zip(asinh, (0.1, 0.3, 0.5), strict=True))
        | {low: -5.0, high: 7.0}
    )
    sample = stacked(
        Recorded(prepared(generated()), answers | {median: 0.5, tvl_low: -1.5, tvl_high: 2.5}),
        level=level,
    ).rows
    by_asinh = (0.1 * np.sinh(np.arcsinh(4.0 / 0.1) + 0.3) - 4.0) / 0.5
    assert sample["apy_move"].to_numpy() == pytest.approx(
        np.full(len(sample), (3.0 + by_asinh) / 2.0)
    )
    for name, value in {
        "apy_move_low": -5.0,
        "apy_move_high": 7.0,
        "tvl_move": 0.5,
        "tvl_move_low": -1.5,
        "tvl_move_high": 2.5,
    }.items():
        assert set(sample[name]) == {value}


@pytest.mark.parametrize(("level", "tail"), [(0.8, 0.1), (0.5, 0.25), (0.95, 0.025)])
def test_outer_quantiles_leave_the_same_share_outside_on_both_sides(
    level: float, tail: float
) -> None:
    for objectives, label in (
        (apy_objectives(level), "apy_label"),
        (tvl_objectives(level), "tvl_label"),
    ):
        outer = [objective for objective in objectives if objective.alpha is not None]
        assert {objective.label for objective in outer} == {label}
        assert [objective.alpha for objective in outer] == pytest.approx([tail, 1.0 - tail])


def test_apys_median_is_drawn_five_times_in_scales_and_three_times_in_asinh_space() -> None:
    medians = [
        (objective.label, objective.seed_offset)
        for objective in apy_objectives(0.8)
        if objective.alpha is None
    ]
    assert [label for label, _ in medians] == ["apy_label"] * 5 + ["apy_asinh_label"] * 3
    assert len({draw for _, draw in medians}) == 8


def test_the_mean_of_both_spaces_by_hand() -> None:
    apy, scale = 0.1 * np.sinh(np.array([0.0, 1.0, 1.0])), np.array([0.2, 0.5, np.nan])
    mean: Values = mean_of_spaces(apy, scale, np.array([0.3, 0.4, 0.4]), np.array([1.0, 1.0, 1.0]))
    by_hand = [
        (0.3 + 0.1 * np.sinh(1.0) / 0.2) / 2.0,
        (0.4 + 0.1 * (np.sinh(2.0) - np.sinh(1.0)) / 0.5) / 2.0,
    ]
    assert mean[:2] == pytest.approx(by_hand)
    assert np.isnan(mean[2])


def test_the_mean_of_equal_forecasts_is_that_forecast() -> None:
    apy, scale, move = (
        np.array([-2.0, 0.0, 5.0, 355_083.0]),
        np.array([0.1, 0.01, 2.0, 5e4]),
        np.array([1.0, -1.0, -2.0, 0.5]),
    )
    asinh_move = np.arcsinh((apy + move * scale) / 0.1) - np.arcsinh(apy / 0.1)
    assert mean_of_spaces(apy, scale, move, asinh_move) == pytest.approx(move)


@pytest.mark.parametrize(("target", "slope"), [("apy", 1.0), ("tvl", -2.0)])
def test_moves_are_learned_and_quantiles_lie_around_them(target: str, slope: float) -> None:
    frame = generated()
    sample = stacked(prepared(frame))
    rows = moves(sample, target).merge(frame[[*KEY, "signal", f"{target}_label"]], on=list(KEY))
    assert (rows[f"{target}_move"] - slope * rows["signal"]).abs().mean() < 0.2 * abs(slope)
    inside = rows[f"{target}_label"].between(
        rows[f"{target}_move_low"], rows[f"{target}_move_high"]
    )[rows[f"{target}_label"].notna()]
    assert 0.6 < inside.mean() < 0.95
    assert (rows[f"{target}_move_low"] < rows[f"{target}_move_high"]).mean() > 0.95


def test_out_of_sample_rows_are_all_rows_of_the_forecast_days() -> None:
    frame, plan = generated(), folds()
    sample = stacked(prepared(frame), plan)
    expected = frame[frame["date"] >= pd.Timestamp(plan.forecast.start)].reset_index(drop=True)
    names = [
        f"{target}_move{ending}"
        for target, ending in product(("apy", "tvl"), ("", "_low", "_high"))
    ]
    assert list(sample.rows.columns) == [*KEY, *READ_COLUMNS, *names]
    pd.testing.assert_frame_equal(
        sample.rows[[*KEY, *READ_COLUMNS]], expected[[*KEY, *READ_COLUMNS]]
    )
    assert sample.rows[names].notna().all().all()


@pytest.mark.parametrize("horizon", [1, 3])
def test_tvls_forecast_is_out_of_fold_wherever_it_is_a_feature(horizon: int) -> None:
    plan = folds(horizon, train_days=100)
    rows = Recorded(prepared(generated(horizon=horizon)))
    stacked(rows, plan)
    ((name, parts),) = rows.stacks
    trained = {id(model): (objective, days) for model, objective, days in rows.fits}
    assert name == TVL_FORECAST
    assert [days for _, days in parts] == [fold.forecast for fold in plan.tvl]
    assert len(parts) == 4
    assert all(earlier.end == later.start for (_, earlier), (_, later) in pairwise(parts))
    for model, days in parts:
        objective, training = trained[id(model)]
        assert objective == Objective("tvl_label")
        assert training.end - dt.timedelta(days=1) + dt.timedelta(days=horizon) <= days.start


def test_apy_learns_from_tvls_forecast_and_tvl_does_not() -> None:
    sample = stacked(prepared(generated()))
    for target, features in (("tvl", FEATURES), ("apy", (*FEATURES, TVL_FORECAST))):
        fits = chain.from_iterable(getattr(models, target) for models in sample.models)
        assert {model.features for model in fits} == {features}


@pytest.mark.parametrize("horizon", [1, 3])
def test_later_labels_do_not_change_a_fold(horizon: int) -> None:
    frame, plan = generated(horizon=horizon), folds(horizon)
    second = plan.apy[1]
    later = frame["date"] + pd.Timedelta(days=horizon) > pd.Timestamp(second.origin)
    changed_frame = frame.assign(
        **{label: frame[label].where(~later, -3.0 * frame[label]) for label in LABELS}
    )
    before, after = stacked(prepared(frame), plan), stacked(prepared(changed_frame), plan)
    until = before.rows["date"] < pd.Timestamp(second.forecast.end)
    for target in ("apy", "tvl"):
        moves_before, moves_after = moves(before, target), moves(after, target)
        pd.testing.assert_frame_equal(moves_before[until], moves_after[until], check_exact=True)
        # labels that the last fold knows and the second does not have changed
        assert (moves_before[~until].iloc[:, 2] != moves_after[~until].iloc[:, 2]).mean() > 0.2
    assert before.version(second.origin) == after.version(second.origin)
    assert before.version(AS_OF) != after.version(AS_OF)


def test_a_fold_is_trained_on_its_own_days() -> None:
    plan, rows = folds(train_days=100), Recorded(prepared(generated()))
    stacked(rows, plan)
    coarse = [(1, plan.tvl[0].train)]
    assert [(len(tvl_objectives(0.8)), fold.train) for fold in plan.tvl[1:]] == _models_by_span(
        rows, "tvl_label"
    )[1:]
    assert _models_by_span(rows, "tvl_label")[:1] == coarse
    assert [(len(apy_objectives(0.8)), fold.train) for fold in plan.apy] == _models_by_span(
        rows, "apy"
    )


def _models_by_span(rows: Recorded, label: str) -> list[tuple[int, DaySpan]]:
    """Returns the number of models that were fitted on each span of days."""
    spans = [days for _, objective, days in rows.fits if objective.label.startswith(label)]
    return [(spans.count(days), days) for days in dict.fromkeys(spans)]


def test_with_too_few_rows_there_is_no_move_and_no_version() -> None:
    sample = stacked(prepared(generated(pools=4)))
    assert [(models.apy, models.tvl, models.version) for models in sample.models] == [
        ((), (), NO_VERSION)
    ] * 3
    assert len(sample.rows) == 4 * 13
    for target in ("apy", "tvl"):
        assert moves(sample, target).iloc[:, 2:].astype(float).isna().all().all()
    assert {sample.version(day) for day in folds().forecast.days} == {NO_VERSION} == {"none"}


def test_a_fold_with_too_few_rows_forecasts_nothing_and_the_next_one_does() -> None:
    """Six pools over 55 days: 252 labelled rows at the first origin, 288 at the second, 324 at the
    last.
    """
    sample = stacked(prepared(generated(pools=6, days=55)))
    assert 288 < MIN_TRAINING_ROWS <= 324
    for target in ("apy", "tvl"):
        is_forecast = moves(sample, target).set_index("date").iloc[:, 1:].notna().all(axis=1)
        assert is_forecast.groupby(level=0).mean().tolist() == [0.0] * 12 + [1.0]
    assert sample.version(AS_OF - dt.timedelta(days=1)) == NO_VERSION
    assert sample.version(AS_OF).startswith("20240630-")


def test_a_coarse_fold_with_too_few_rows_leaves_the_feature_unknown() -> None:
    plan = folds(train_days=100)
    rows = Recorded(prepared(generated(pools=20)))
    stacked(rows, plan)
    ((_, parts),) = rows.stacks
    assert [days for _, days in parts] == [fold.forecast for fold in plan.tvl[1:]]


def test_a_version_names_its_origin_and_changes_with_the_data() -> None:
    frame = generated()
    first, again, other = (
        stacked(prepared(rows))
        for rows in (frame, frame, frame.assign(noise=frame["noise"] + 1.0, signal=0.0))
    )
    assert first.version(AS_OF) == again.version(AS_OF) != other.version(AS_OF)
    versions = [first.version(day) for day in folds().forecast.days]
    assert [version[:9] for version in versions] == ["20240618-"] * 6 + ["20240624-"] * 6 + [
        "20240630-"
    ]
    assert len(set(versions)) == 3
    assert first.version(AS_OF + dt.timedelta(days=1)) == NO_VERSION


def test_a_version_depends_on_its_origin_and_on_every_model_of_it() -> None:
    models = tuple(FittedModel(text, FEATURES, None) for text in ("a", "b", "c", "d"))
    days = DaySpan(AS_OF, AS_OF + dt.timedelta(days=1))
    parts = [
        (models[:2], models[2:]),
        (models[:2], ()),
        (models[:1], models[2:]),
        (models[:2], models[2:3]),
        (models[1::-1], models[2:]),
    ]
    origins = (AS_OF, AS_OF - dt.timedelta(days=1))
    versions = {
        StackedModel(origin, days, *part).version for part, origin in product(parts, origins)
    }
    assert len(versions) == 10


def test_a_loaded_model_repeats_its_forecasts() -> None:
    """Loads the texts alone, and forecasts rows without the training data."""
    engine, plan = LightgbmEngine(QUICK), folds()
    sample = stacked(prepared(generated()), plan)
    fitted = sample.models[1]
    apy = tuple(engine.load(model.text, model.features) for model in fitted.apy)
    tvl = tuple(engine.load(model.text, model.features) for model in fitted.tvl)
    loaded = replace(fitted, apy=apy, tvl=tvl)
    frame = generated()
    rows = Recorded(
        prepared(frame[frame["date"] >= pd.Timestamp(fitted.days.start)].reset_index(drop=True))
    )
    forecasts = forecast_by(rows, loaded)
    within = sample.rows["date"].between(
        pd.Timestamp(fitted.days.start), pd.Timestamp(fitted.days.end), inclusive="left"
    )
    pd.testing.assert_frame_equal(
        forecasts.rows, sample.rows[within].reset_index(drop=True), check_exact=True
    )
    assert (forecasts.version(fitted.days.start), rows.released, rows.fits) == (
        fitted.version,
        ["stacked"],
        [],
    )
    assert rows.stacks == [(TVL_FORECAST, [(loaded.tvl[0], fitted.days)])]


def test_the_stages_are_named_and_the_stacked_rows_given_back() -> None:
    entered: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[Any]:
        entered.append(name)
        yield

    rows = Recorded(prepared(generated(pools=4)))
    fit_stacked(rows, folds(), 0.8, stage)
    assert entered == ["fit_tvl", "fit_apy", "predict"]
    assert rows.released == ["stacked"]
