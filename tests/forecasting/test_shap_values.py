"""Contributions to the published APY step: their sum, and the strongest ones."""

from __future__ import annotations

import json
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest

from forecasting.features.targets import ASINH_UNIT, Values, asinh_level, mean_of_spaces
from forecasting.models import shap_values as contributions
from forecasting.models.shap_values import explanations, move_contributions, secant_slope
from forecasting.models.stacked_model import ASINH_SEEDS, SCALED_SEEDS

FEATURES = ("signal", "weaker", "noise", "constant")
ROWS = 300


class Fitted(NamedTuple):
    matrix: npt.NDArray[np.float32]
    texts: tuple[str, ...]
    apy: Values
    scale: Values

    @property
    def boosters(self) -> list[lightgbm.Booster]:
        return [
            lightgbm.Booster(model_str=text) for text in self.texts[: SCALED_SEEDS + ASINH_SEEDS]
        ]

    @property
    def moves(self) -> Values:
        """Returns the model's own moves in APY points, as the stacked model computes them."""
        scaled = _mean_prediction(self.boosters[:SCALED_SEEDS], self.matrix)
        asinh = _mean_prediction(self.boosters[SCALED_SEEDS:], self.matrix)
        return self.scale * mean_of_spaces(self.apy, self.scale, scaled, asinh)


def _mean_prediction(boosters: list[lightgbm.Booster], matrix: npt.NDArray[Any]) -> Values:
    predictions = [booster.predict(matrix) for booster in boosters]
    mean: Values = np.mean(predictions, axis=0)
    return mean


@cache
def fitted() -> Fitted:
    """Returns ten models in the order of `apy_objectives`; APY from below zero to 355,083 %."""
    random = np.random.default_rng(3)
    matrix = random.standard_normal((ROWS, len(FEATURES))).astype(np.float32)
    matrix[:, 3] = 1.0
    matrix[::7, 1] = np.nan
    apy = np.concatenate([[0.0, -2.0, 355_083.0], np.exp(random.normal(1.0, 2.0, ROWS - 3))])
    scale = 0.01 + 0.05 * np.abs(apy)
    label = 0.4 + matrix[:, 0] + 0.3 * np.nan_to_num(matrix[:, 1])
    labels = (
        [label] * SCALED_SEEDS
        + [asinh_level(apy + scale * label) - asinh_level(apy)] * ASINH_SEEDS
        + [label - 50.0, label + 50.0]
    )
    parameters = {
        "objective": "regression_l1",
        "num_leaves": 7,
        "min_data_in_leaf": 5,
        "verbosity": -1,
        "num_threads": 1,
        "deterministic": True,
    }
    models = [
        lightgbm.train(
            parameters | {"seed": seed, "bagging_fraction": 0.7, "bagging_freq": 1},
            lightgbm.Dataset(matrix, values),
            30,
        )
        for seed, values in enumerate(labels)
    ]
    return Fitted(matrix, tuple(model.model_to_string() for model in models), apy, scale)


def forecast_explanations(rows: Fitted, steps: Values) -> list[contributions.Explanation | None]:
    return explanations(
        rows.matrix, FEATURES, rows.texts, apy=rows.apy, scale=rows.scale, steps=steps, threads=1
    )


def test_contributions_and_base_add_up_to_the_models_move() -> None:
    rows = fitted()
    points = move_contributions(rows.matrix, rows.boosters, rows.apy, rows.scale, 1)
    assert points.shape == (ROWS, len(FEATURES) + 1)
    assert points.sum(axis=1) == pytest.approx(rows.moves, rel=1e-9)
    assert (points[:, 3] == 0.0).all()


@pytest.mark.parametrize("weight", [0.1, 1.0, 1.2])
def test_contributions_and_base_add_up_to_the_published_step(weight: float) -> None:
    """Three features have contributions, so all are returned; gate and limits scale them alike."""
    rows = fitted()
    explanations = forecast_explanations(rows, weight * rows.moves)
    points = move_contributions(rows.matrix, rows.boosters, rows.apy, rows.scale, 1)
    for row, explanation in enumerate(explanations):
        assert explanation is not None
        by_name = {contribution["feature"]: contribution["points"] for contribution in explanation}
        assert by_name == pytest.approx(
            {name: weight * points[row, column] for column, name in enumerate(FEATURES[:3])},
            rel=5e-3,
        )
        assert [abs(contribution["points"]) for contribution in explanation] == sorted(
            (abs(contribution["points"]) for contribution in explanation), reverse=True
        )


def test_the_strongest_contribution_is_the_feature_that_made_the_labels() -> None:
    rows = fitted()
    first = [
        explanation[0] for explanation in forecast_explanations(rows, rows.moves) if explanation
    ]
    far = np.abs(rows.matrix[:, 0]) > 1.0
    assert all(
        contribution["feature"] == "signal"
        for contribution, is_far in zip(first, far, strict=True)
        if is_far
    )
    assert all(
        (contribution["points"] > 0) == (value > 0)
        for contribution, value, is_far in zip(first, rows.matrix[:, 0], far, strict=True)
        if is_far
    )


def test_fallbacks_have_no_contributions() -> None:
    rows = fitted()
    steps = rows.moves
    steps[[4, 9]] = 0.0, np.nan
    explanations = forecast_explanations(rows, steps)
    assert [row for row, explanation in enumerate(explanations) if explanation is None] == [4, 9]
    assert forecast_explanations(rows, np.zeros(ROWS)) == [None] * ROWS


def test_a_chunk_is_explained_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fitted()
    whole = forecast_explanations(rows, rows.moves)
    monkeypatch.setattr(contributions, "CHUNK_ROWS", 7)
    assert forecast_explanations(rows, rows.moves) == whole


def test_contributions_are_json_with_three_significant_digits() -> None:
    rows = fitted()
    explanations = forecast_explanations(rows, rows.moves)
    assert json.loads(json.dumps(explanations, allow_nan=False)) == explanations
    contributions_of_rows = chain.from_iterable(filter(None, explanations))
    points = [contribution["points"] for contribution in contributions_of_rows]
    assert all(
        len(f"{abs(value):.10e}".split("e")[0].rstrip("0").replace(".", "")) <= 3
        for value in points
    )


@pytest.mark.parametrize("apy", [-2.0, 0.0, 0.05, 7.0, 355_083.0])
@pytest.mark.parametrize("move", [-3.0, -1e-3, 0.5, 4.0])
def test_a_move_times_its_slope_is_the_change_of_apy(apy: float, move: float) -> None:
    after = ASINH_UNIT * np.sinh(np.arcsinh(apy / ASINH_UNIT) + move)
    assert secant_slope(np.array([apy]), np.array([move]))[0] * move == pytest.approx(
        after - apy, rel=1e-6
    )


@pytest.mark.parametrize("apy", [-2.0, 0.0, 7.0, 355_083.0])
@pytest.mark.parametrize("move", [0.0, 1e-300, -1e-12])
def test_where_nothing_moves_the_slope_is_the_derivative(apy: float, move: float) -> None:
    assert secant_slope(np.array([apy]), np.array([move]))[0] == pytest.approx(
        np.hypot(apy, ASINH_UNIT), rel=1e-9
    )
