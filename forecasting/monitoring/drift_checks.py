"""Checks that compare a run's data with the training data: features, new pools and fallbacks.

Reads drift, pools and fallback reasons; returns checks of level batch and severity warn, which
never block a run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from database.ledger.check_result import CheckResult
from forecasting.monitoring.drift import MIN_ROWS, FeatureDrift

# features in the check and in its message
LISTED = 10


def drift_checks(
    features: Sequence[FeatureDrift],
    *,
    pools: Collection[str],
    trained_pools: Collection[str],
    reasons: Sequence[str | None],
    max_feature_psi: float,
    max_new_pools_share: float,
    max_fallback_share: float,
) -> list[CheckResult]:
    """Returns the checks `feature_drift`, `new_pools_share` and `fallback_share`.

    Args:
        features: drift of the as-of day's features.
        pools: observed pools of the as-of day.
        trained_pools: pools with a day in the training span.
        reasons: fallback reasons of the published APY forecasts; None for a model's.
        max_feature_psi: limit of `FeatureDrift.beyond`.
        max_new_pools_share: limit of the share of pools that are not in `trained_pools`, 0 to 1.
        max_fallback_share: limit of the share of fallbacks, 0 to 1.
    """
    new = sum(pool not in trained_pools for pool in pools)
    fallbacks = sum(reason is not None for reason in reasons)
    return [
        _drift_check(features, max_feature_psi),
        _share_check(
            "new_pools_share",
            new,
            len(pools),
            "observed pools have no training day",
            "MAX_NEW_POOLS_SHARE",
            max_new_pools_share,
        ),
        _share_check(
            "fallback_share",
            fallbacks,
            len(reasons),
            "APY forecasts are fallbacks",
            "MAX_FALLBACK_SHARE",
            max_fallback_share,
        ),
    ]


def _drift_check(features: Sequence[FeatureDrift], limit: float) -> CheckResult:
    # a feature without any value has no distribution to compare, and its source is broken
    drifted = [feature for feature in features if feature.all_missing or feature.beyond > limit]
    listed = [
        {
            "feature": feature.feature,
            "psi": round(feature.psi, 4),
            "ks": round(feature.ks, 4),
            "beyond": round(feature.beyond, 4),
        }
        for feature in features[:LISTED]
    ]
    message = _drift_line(features, drifted, limit)
    return _result("feature_drift", not drifted, message, features=listed)


def _drift_line(
    features: Sequence[FeatureDrift], drifted: Sequence[FeatureDrift], limit: float
) -> str:
    if not features:
        return f"fewer than {MIN_ROWS} pools: not checked"
    if not drifted:
        return (
            f"none of {len(features)} features is further from the training days than the most"
            f" unusual of them by a PSI of {limit:g}"
        )
    missing = [feature.feature for feature in drifted if feature.all_missing]
    moved = [
        f"{feature.feature} (PSI {feature.psi:.2f})"
        for feature in drifted
        if not feature.all_missing
    ]
    parts = [f"no pool has a value of {_listed(missing)}"] if missing else []
    if moved:
        parts.append(
            "further from the training days than the most unusual of them, by a PSI of more than"
            f" MAX_FEATURE_PSI ({limit:g}): {_listed(moved)}"
        )
    return f"{len(drifted)} of {len(features)} features: {'; '.join(parts)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _share_check(
    name: str, part: int, whole: int, subject: str, setting: str, limit: float
) -> CheckResult:
    share = part / whole if whole else 0.0
    line = f"{part} of {whole} {subject} ({share:.0%}); {setting} is {limit:.0%}"
    return _result(name, share <= limit, line, share=round(share, 4))


def _result(name: str, passed: bool, message: str, **figures: Any) -> CheckResult:
    return CheckResult(name, passed, "warn", message, "batch", figures=figures)
