"""Model versions for registry tests: complete cards, and texts that no engine reads."""

from __future__ import annotations

import datetime as dt
from typing import Any

from forecasting.features.feature_names import feature_names
from forecasting.monitoring.feature_reference import FeatureReference
from forecasting.registry.model_archive import ModelArchive, ModelCard

FIRST = dt.date(2024, 3, 1)


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def archive(name: str = "a", *, known: int = 50, **changes: Any) -> ModelArchive:
    """Returns a version of the as-of day `day(known)`, fitted 45 days before it, that passed.

    Args:
        changes: fields of the card.
    """
    origin = day(known - 45)
    card: dict[str, Any] = {
        "version": f"{origin:%Y%m%d}-{name}",
        "engine": "lightgbm",
        "horizon_days": 1,
        "interval_level": 0.8,
        "origin": origin,
        "known": day(known),
        "data_first_day": FIRST - dt.timedelta(days=400),
        "data_rows": 1560,
        "data_hash": "0123456789abcdef",
        "features": feature_names(market=False),
        "settings": {"seed": 7, "learning_rate": 0.05, "market_features": False},
        "code_version": "0.1.0",
        "passed": True,
        "scores": {
            "days": 45,
            "rows": 500,
            "ratio": {
                "challenger/persistence": [0.85, 0.81, 0.89],
                "challenger/champion": [0.9, None, None],
            },
        },
        "gain": {
            "apy": {"groups": {"level": 0.75}, "features": {"apy_level": 0.75}},
            "tvl": {"groups": {}, "features": {}},
        },
        "reference": [FeatureReference("apy_level", [0.5, 1.5], [25, 50, 20, 5], usual=0.1)],
    }
    apy = tuple(
        f"tree\nversion=v4\nfeature_names={name} é\nmodel {number}\n" for number in range(12)
    )
    return ModelArchive(
        ModelCard(**card | changes),
        {"apy": apy, "tvl": tuple(f"TVL {name} {number}" * 50 for number in range(3))},
    )
