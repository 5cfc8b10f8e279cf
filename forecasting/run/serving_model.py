"""The model of a night: the champion, or a version that is fitted tonight, judged on the days it
has not seen, and on its way to the registry.

In: dataset feature rows and the plan. Out: `ServingModel`, out-of-sample rows with the moves of the version
that serves, or would. It publishes nothing and moves no alias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from config_spark import Settings
from database.ledger.runs import Run
from forecasting.engines.engine import KEY, Engine, FeatureRows, Features
from forecasting.engines.folds import ONE_DAY, DaySpan
from forecasting.engines.model_parameters import model_parameters
from forecasting.evaluation.promotion_policy import (
    CHALLENGER,
    CHAMPION,
    KEPT,
    PROMOTED,
    PromotionDecision,
    evaluate_challenger,
)
from forecasting.features.feature_frame import feature_names
from forecasting.features.targets import targets_of
from forecasting.models.feature_importance import gain_by_feature, gain_by_group
from forecasting.models.stacked_model import (
    TVL_FORECAST,
    OutOfSample,
    StackedModel,
    fit_stacked,
    forecast_by,
)
from forecasting.monitoring.drift import Reference, reference_distribution
from forecasting.registry.model_archive import ModelArchive, ModelCard
from forecasting.run.dataset import DatasetSummary
from forecasting.run.plan import ForecastPlan

MONITORED_COLUMNS = ("apy", "apy_observed", "apy_scale")
REFERENCE_ROWS = 200_000
"""Of more training rows a part says the same of their distribution."""


@dataclass(frozen=True)
class Refit:
    """A version fitted tonight: its forecasts of the judged days and the as-of day, itself (None
    where rows were too few) and its promotion.
    """

    sample: OutOfSample
    archive: ModelArchive | None
    promotion: PromotionDecision | None


@dataclass(frozen=True)
class ServingModel:
    """`model` forecast the as-of day in `sample`; while `serves` is False its moves are for the
    ledger alone, and persistence is published.

    `rows` (KEY and MONITORED_COLUMNS) and `features` are of the as-of day, as the model saw them but for
    TVL's forecast.
    """

    sample: OutOfSample
    model: ModelArchive | None
    serves: bool
    rows: pd.DataFrame
    features: Features
    refit: Refit | None = None


def select_or_fit_model(
    dataset: FeatureRows,
    facts: DatasetSummary,
    plan: ForecastPlan,
    engine: Engine,
    settings: Settings,
    run: Run,
) -> ServingModel:
    """Raises: as the engine does."""
    serving = plan.serving
    assert serving is not None, "a night's plan says what serves"
    tonight = DaySpan(plan.as_of, plan.as_of + ONE_DAY)
    seen = dataset.feature_matrix(tonight, MONITORED_COLUMNS)
    if plan.folds.apy:
        return _after_refit(dataset, facts, plan, engine, settings, run, seen)
    model = serving.champion or serving.newest
    assert model is not None, "without any version one is fitted"
    with run.stage("predict"):
        sample = forecast_by(dataset, load_stacked_model(engine, model, tonight))
    return ServingModel(sample, model, serving.champion is not None, *seen)


def _after_refit(
    dataset: FeatureRows,
    facts: DatasetSummary,
    plan: ForecastPlan,
    engine: Engine,
    settings: Settings,
    run: Run,
    seen: tuple[pd.DataFrame, Features],
) -> ServingModel:
    champion = plan.serving.champion if plan.serving else None
    fitted = fit_stacked(dataset, plan.folds, settings.interval_level, run.stage)
    of_champion = None
    if champion:
        # neither may be judged on days that it was fitted on
        days = DaySpan(
            max(plan.folds.forecast.start, champion.card.origin), plan.folds.forecast.end
        )
        with run.stage("predict"):
            of_champion = forecast_by(dataset, load_stacked_model(engine, champion, days))
    if not fitted.models[0].apy:
        return ServingModel(
            of_champion or fitted, champion, champion is not None, *seen, Refit(fitted, None, None)
        )
    with run.stage("judge"):
        promotion = decide_promotion(fitted, of_champion, settings)
        archive = _archive(
            fitted.models[0],
            facts,
            plan,
            settings,
            promotion,
            engine.name,
            reference(dataset, plan.folds.apy[0].train),
        )
    refit = Refit(fitted, archive, promotion)
    if promotion.decision == KEPT and of_champion:
        return ServingModel(of_champion, champion, True, *seen, refit)
    return ServingModel(fitted, archive, promotion.decision == PROMOTED, *seen, refit)


def decide_promotion(
    fitted: OutOfSample, of_champion: OutOfSample | None, settings: Settings
) -> PromotionDecision:
    rows, moves = fitted.rows, {CHALLENGER: fitted.rows["apy_move"].to_numpy(float)}
    if of_champion:
        other = of_champion.rows.set_index(list(KEY))["apy_move"]
        moves[CHAMPION] = other.reindex(pd.MultiIndex.from_frame(rows[list(KEY)])).to_numpy(float)
    return evaluate_challenger(
        targets_of(settings)[0], rows, moves, settings.max_segment_regression
    )


def reference(dataset: FeatureRows, days: DaySpan) -> Reference:
    """The training features' distribution, of rows as `watched` chooses them."""
    rows, matrix = dataset.feature_matrix(days, MONITORED_COLUMNS, at_most=REFERENCE_ROWS)
    chosen = modelled_rows(rows)
    return reference_distribution(matrix[chosen], dataset.features, rows["date"].to_numpy()[chosen])


def modelled_rows(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows of observed pools with a scale: those that a model forecasts."""
    return (rows["apy_observed"] & rows["apy_scale"].notna()).to_numpy(bool)


def _archive(
    model: StackedModel,
    facts: DatasetSummary,
    plan: ForecastPlan,
    settings: Settings,
    promotion: PromotionDecision,
    engine: str,
    known: Reference,
) -> ModelArchive:
    features = feature_names(market=settings.market_features)
    texts = {
        "apy": tuple(one.text for one in model.apy),
        "tvl": tuple(one.text for one in model.tvl),
    }
    card = ModelCard(
        version=model.version,
        engine=engine,
        horizon_days=plan.folds.horizon,
        interval_level=settings.interval_level,
        origin=plan.folds.apy[0].origin,
        known=plan.as_of,
        data_first_day=facts.first_day,
        data_rows=facts.rows,
        data_hash=facts.hash,
        features=features,
        settings=_settings(settings),
        code_version=settings.code_version,
        passed=promotion.passed,
        scores=promotion.numbers,
        gain={
            "apy": _gain(texts["apy"], (*features, TVL_FORECAST)),
            "tvl": _gain(texts["tvl"], features),
        },
        reference=known,
    )
    return ModelArchive(card, texts)


def _gain(texts: Sequence[str], features: Sequence[str]) -> dict[str, Any]:
    shares = gain_by_feature(texts, features) if texts else {}
    return {"groups": gain_by_group(shares), "features": shares}


def _settings(settings: Settings) -> dict[str, Any]:
    """What a version depends on beside its data."""
    chosen = {
        name: getattr(settings, name)
        for name in ("train_days", "validation_days", "min_history_days", "market_features")
    }
    return asdict(model_parameters(settings)) | chosen


def load_stacked_model(engine: Engine, archive: ModelArchive, days: DaySpan) -> StackedModel:
    """The version's models in the engine, to forecast these as-of days."""
    features = archive.card.features
    apy = tuple(engine.load(text, (*features, TVL_FORECAST)) for text in archive.texts["apy"])
    return StackedModel(
        archive.card.origin,
        days,
        apy,
        tuple(engine.load(text, features) for text in archive.texts["tvl"]),
    )
