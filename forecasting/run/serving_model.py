"""The model of a forecast run: the champion, or a version that the run fits and validates.

Reads the dataset and the plan; returns a `ServingModel` with out-of-sample rows. Publishes nothing
and moves no alias.
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
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.promotion_policy import (
    KEPT,
    PROMOTED,
    PromotionDecision,
    evaluate_challenger,
)
from forecasting.features.feature_names import feature_names
from forecasting.features.targets import targets_of
from forecasting.features.transfer_panel import panel_hash
from forecasting.models.feature_importance import gain_by_feature, gain_by_group
from forecasting.models.stacked_model import (
    TVL_FORECAST,
    OutOfSample,
    StackedModel,
    fit_stacked,
    forecast_by,
)
from forecasting.monitoring.drift import reference_distribution
from forecasting.monitoring.feature_reference import Reference
from forecasting.registry.model_archive import ModelArchive, ModelCard
from forecasting.run.dataset import DatasetSummary
from forecasting.run.plan import HorizonPlan

MONITORED_COLUMNS = ("apy", "apy_observed", "apy_scale")
# more training rows do not change the estimate of their distribution
REFERENCE_ROWS = 200_000


@dataclass(frozen=True)
class Refit:
    """A version that this run fitted.

    Attributes:
        sample: its forecasts of the validation days and the as-of day.
        archive: the version itself; None if there were too few rows to fit one.
        promotion: the decision on it; None without a version.
    """

    sample: OutOfSample
    archive: ModelArchive | None = None
    promotion: PromotionDecision | None = None


@dataclass(frozen=True)
class ServingModel:
    """The model that forecasts the as-of day.

    Attributes:
        sample: out-of-sample rows, the as-of day among them.
        model: the version that forecast the as-of day; None if there were too few rows to fit one.
        is_shadow: persistence is published; the model's moves go to the forecast history only.
        rows: KEY and MONITORED_COLUMNS of the as-of day.
        features: feature matrix of `rows`, without the TVL forecast.
        refit: the version that this run fitted; None if it fitted none.
    """

    sample: OutOfSample
    model: ModelArchive | None
    is_shadow: bool
    rows: pd.DataFrame
    features: Features
    refit: Refit | None = None


def select_or_fit_model(
    dataset: FeatureRows,
    summary: DatasetSummary,
    plan: HorizonPlan,
    engine: Engine,
    settings: Settings,
    run: Run,
) -> ServingModel:
    """Loads the champion, or fits and validates a new version if the plan refits.

    Args:
        summary: identifies the metrics of the dataset, for the card of a new version.
        plan: plan of a forecast run, with its model versions.

    Raises:
        ValueError: a stored model is no LightGBM text.
    """
    as_of = DaySpan(plan.as_of, plan.as_of + ONE_DAY)
    rows, features = dataset.feature_matrix(as_of, MONITORED_COLUMNS)
    refit = None
    if plan.refits:
        sample, model, is_shadow, refit = _fit(dataset, summary, plan, engine, settings, run)
    else:
        serving = plan.serving
        assert serving is not None, "a forecast plan has the model versions"
        model = serving.champion or serving.newest
        assert model is not None, "a plan without any version refits"
        is_shadow = serving.champion is None
        with run.stage("predict"):
            sample = forecast_by(dataset, load_stacked_model(engine, model, as_of))
    return ServingModel(
        sample=sample,
        model=model,
        is_shadow=is_shadow,
        rows=rows,
        features=features,
        refit=refit,
    )


def _fit(
    dataset: FeatureRows,
    summary: DatasetSummary,
    plan: HorizonPlan,
    engine: Engine,
    settings: Settings,
    run: Run,
) -> tuple[OutOfSample, ModelArchive | None, bool, Refit]:
    """Sample, model, `is_shadow` and refit of a run that fits a version."""
    champion = plan.serving.champion if plan.serving else None
    fitted = fit_stacked(dataset, plan.folds, settings.interval_level, run.stage)
    champion_sample = None
    if champion:
        # a version is never validated on days that it was fitted on
        first_day = max(plan.folds.forecast.start, champion.card.origin)
        days = DaySpan(first_day, plan.folds.forecast.end)
        with run.stage("predict"):
            champion_sample = forecast_by(dataset, load_stacked_model(engine, champion, days))
    if not fitted.models[0].apy:
        # too few rows to fit: the champion, if there is one, keeps serving
        return champion_sample or fitted, champion, False, Refit(fitted)
    with run.stage("validate"):
        promotion = decide_promotion(fitted, champion_sample, settings)
        reference = training_reference(dataset, plan.folds.apy[0].train)
        archive = _archive(
            fitted.models[0], dataset, summary, plan, settings, promotion, engine.name, reference
        )
    refit = Refit(fitted, archive, promotion)
    if promotion.decision == KEPT and champion_sample:
        return champion_sample, champion, False, refit
    # a refused version forecasts too, but persistence is published
    return fitted, archive, promotion.decision != PROMOTED, refit


def decide_promotion(
    challenger: OutOfSample, champion: OutOfSample | None, settings: Settings
) -> PromotionDecision:
    """Validates a challenger by its APY moves on the challenger's rows.

    Args:
        champion: forecasts of the serving version on the same days; None without one.
    """
    rows = challenger.rows
    moves = {CHALLENGER: rows["apy_move"].to_numpy(float)}
    if champion:
        # NaN on the days that the champion was fitted on, of which it has no forecast
        by_key = champion.rows.set_index(list(KEY))["apy_move"]
        aligned = by_key.reindex(pd.MultiIndex.from_frame(rows[list(KEY)]))
        moves[CHAMPION] = aligned.to_numpy(float)
    apy, _ = targets_of(settings)
    return evaluate_challenger(apy, rows, moves, settings.max_segment_regression)


def training_reference(dataset: FeatureRows, days: DaySpan) -> Reference:
    """Returns the distribution of the features on the training days, of `modelled_rows`."""
    rows, matrix = dataset.feature_matrix(days, MONITORED_COLUMNS, at_most=REFERENCE_ROWS)
    is_modelled = modelled_rows(rows)
    return reference_distribution(
        matrix[is_modelled], dataset.features, rows["date"].to_numpy()[is_modelled]
    )


def modelled_rows(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Returns which rows a model forecasts: pools observed that day, with a scale.

    Args:
        rows: MONITORED_COLUMNS.
    """
    return (rows["apy_observed"] & rows["apy_scale"].notna()).to_numpy(bool)


def _archive(
    model: StackedModel,
    dataset: FeatureRows,
    summary: DatasetSummary,
    plan: HorizonPlan,
    settings: Settings,
    promotion: PromotionDecision,
    engine: str,
    reference: Reference,
) -> ModelArchive:
    features = feature_names(market=settings.market_features)
    texts = {
        "apy": tuple(fitted.text for fitted in model.apy),
        "tvl": tuple(fitted.text for fitted in model.tvl),
    }
    card = ModelCard(
        version=model.version,
        engine=engine,
        horizon_days=plan.horizon,
        interval_level=settings.interval_level,
        origin=plan.folds.apy[0].origin,
        known=plan.as_of,
        data_first_day=summary.first_day,
        data_rows=summary.metrics.rows,
        data_hash=summary.metrics.hash,
        features=features,
        settings=_model_settings(settings) | _transfer_panel(dataset, plan),
        code_version=settings.code_version,
        passed=promotion.passed,
        scores=promotion.numbers,
        gain={
            "apy": _gain(texts["apy"], (*features, TVL_FORECAST)),
            "tvl": _gain(texts["tvl"], features),
        },
        reference=reference,
    )
    return ModelArchive(card, texts)


def _gain(texts: Sequence[str], features: Sequence[str]) -> dict[str, Any]:
    shares = gain_by_feature(texts, features) if texts else {}
    return {"groups": gain_by_group(shares), "features": shares}


def _model_settings(settings: Settings) -> dict[str, Any]:
    """The settings that a version depends on."""
    names = ("train_days", "validation_days", "min_history_days", "market_features")
    return asdict(model_parameters(settings)) | {name: getattr(settings, name) for name in names}


def _transfer_panel(dataset: FeatureRows, plan: HorizonPlan) -> dict[str, Any]:
    """The rows of the transfer panel that the APY models learned from, and the panel's hash; empty
    for a version of own rows alone.
    """
    if not plan.transfers:
        return {}
    rows = dataset.transfer_rows("apy_label", plan.folds.apy[0].train)
    return {"transfer_rows": rows, "transfer_panel": panel_hash()}


def load_stacked_model(engine: Engine, archive: ModelArchive, days: DaySpan) -> StackedModel:
    """Loads a version's models into the engine, to forecast these as-of days.

    Raises:
        ValueError: a text is no LightGBM model.
    """
    features = archive.card.features
    apy = tuple(engine.load(text, (*features, TVL_FORECAST)) for text in archive.texts["apy"])
    tvl = tuple(engine.load(text, features) for text in archive.texts["tvl"])
    return StackedModel(archive.card.origin, days, apy, tvl)
