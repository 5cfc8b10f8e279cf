"""Explanations of a run's forecasts, and checks that compare its data with the training data.

Reads the serving model and the published rows; returns explanations by pool and checks of the run.
Native LightGBM computes them for both engines, because its texts are the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from config_spark import Settings
from database.ledger.check_result import CheckResult
from forecasting.engines.engine import KEY
from forecasting.models.shap_values import explanations
from forecasting.models.stacked_model import TVL_FORECAST
from forecasting.monitoring.drift import measure_drift
from forecasting.monitoring.drift_checks import drift_checks
from forecasting.run.serving_model import ServingModel, modelled_rows


def forecast_explanations(
    serving: ServingModel, published: pd.DataFrame, settings: Settings
) -> dict[str, str]:
    """Explains the APY forecasts of the as-of day.

    Args:
        published: APY rows of `publish_days`.

    Returns:
        JSON of the strongest contributions by pool id; without pools whose forecast is a fallback.
    """
    if not serving.model:
        return {}
    of_pool = published.set_index("pool_id")
    steps = (of_pool["forecast"] - of_pool["now"]).reindex(serving.rows["pool_id"]).to_numpy(float)
    # the APY models have the TVL forecast as their last feature
    tvl = serving.sample.rows.set_index(list(KEY))["tvl_move"].reindex(
        pd.MultiIndex.from_frame(serving.rows[list(KEY)])
    )
    contributions = explanations(
        np.column_stack([serving.features, tvl.to_numpy(np.float32)]),
        (*serving.model.card.features, TVL_FORECAST),
        serving.model.texts["apy"],
        apy=serving.rows["apy"].to_numpy(float),
        scale=serving.rows["apy_scale"].to_numpy(float),
        steps=steps,
        threads=settings.model_threads,
    )
    return {
        str(pool): json.dumps(explanation)
        for pool, explanation in zip(serving.rows["pool_id"], contributions, strict=True)
        if explanation
    }


def model_health_checks(
    serving: ServingModel, pools: pd.DataFrame, reasons: Sequence[str | None], settings: Settings
) -> list[CheckResult]:
    """Checks feature drift and the shares of new pools and of fallbacks.

    Args:
        pools: POOL_COLUMNS of the active pools.
        reasons: fallback reasons of the pools that have an APY; None for a model's forecast.

    Returns:
        Checks of severity warn; none without a model.
    """
    if not serving.model:
        return []
    card, is_modelled = serving.model.card, modelled_rows(serving.rows)
    is_trained = pd.to_datetime(pools["first_day"]) < pd.Timestamp(card.origin)
    return drift_checks(
        measure_drift(card.reference, serving.features[is_modelled]),
        pools=serving.rows["pool_id"][is_modelled].tolist(),
        trained_pools=set(pools.loc[is_trained, "pool_id"]),
        reasons=reasons,
        max_feature_psi=settings.max_feature_psi,
        max_new_pools_share=settings.max_new_pools_share,
        max_fallback_share=settings.max_fallback_share,
    )
