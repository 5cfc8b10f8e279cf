"""Why tonight's forecasts say what they say, and whether tonight is unlike what the model has
learned from.

In: the night's model and features, what was published. Out: explanations by pool, entries of the
run's checks. Native LightGBM makes both for either engine: its texts are the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from config_spark import Settings
from forecasting.engines.engine import KEY
from forecasting.models.shap_values import explanations
from forecasting.models.stacked_model import TVL_FORECAST
from forecasting.monitoring.drift import measure_drift
from forecasting.monitoring.drift_checks import drift_checks
from forecasting.run.serving_model import ServingModel, modelled_rows

log = logging.getLogger(__name__)


def forecast_explanations(
    night: ServingModel, published: pd.DataFrame, settings: Settings
) -> dict[str, str]:
    """JSON of the strongest contributions to the APY forecast, by pool; none for a pool that a rule
    forecast.

    Args: published are `backtest.publish_days` of APY tonight.
    """
    if not night.model:
        return {}
    of_pool = published.set_index("pool_id")
    steps = (of_pool["forecast"] - of_pool["now"]).reindex(night.rows["pool_id"]).to_numpy(float)
    # the model saw TVL's forecast as a last feature
    tvl = night.sample.rows.set_index(list(KEY))["tvl_move"].reindex(
        pd.MultiIndex.from_frame(night.rows[list(KEY)])
    )
    matrix = np.column_stack([night.features, tvl.to_numpy(np.float32)])
    columns = {
        name: night.rows[column].to_numpy(float)
        for name, column in (("apy", "apy"), ("scale", "apy_scale"))
    }
    names = (*night.model.card.features, TVL_FORECAST)
    found = explanations(
        matrix,
        names,
        night.model.texts["apy"],
        steps=steps,
        threads=settings.model_threads,
        **columns,
    )
    return {
        str(pool): json.dumps(one)
        for pool, one in zip(night.rows["pool_id"], found, strict=True)
        if one
    }


def model_health_checks(
    night: ServingModel, known: pd.DataFrame, rules: Sequence[str | None], settings: Settings
) -> list[dict[str, Any]]:
    """Drift, new pools and the share of rules, as checks that warn; none without a model. Args:
    known has `rules.POOL_COLUMNS`; rules are those of the pools that have an APY.
    """
    if not night.model:
        return []
    chosen = modelled_rows(night.rows)
    entries = drift_checks(
        measure_drift(night.model.card.reference, night.features[chosen]),
        pools=night.rows["pool_id"][chosen].tolist(),
        trained_pools=set(
            known.loc[
                pd.to_datetime(known["first_day"]) < pd.Timestamp(night.model.card.origin),
                "pool_id",
            ]
        ),
        rules=rules,
        max_feature_psi=settings.max_feature_psi,
        max_new_pools_share=settings.max_new_pools_share,
        max_fallback_share=settings.max_fallback_share,
    )
    for entry in entries:
        if not entry["passed"]:
            log.warning("%s: %s", entry["name"], entry["found"])
    return entries
