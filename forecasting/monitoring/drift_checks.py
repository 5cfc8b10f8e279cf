"""A night's warnings that it is unlike the training span, as entries of the ledger's checks:
features, new pools, rules instead of the model.

In: tonight's `drift`, its pools and rules, and the limits. Out: entries of level batch and severity
warn; none of them blocks a run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from forecasting.monitoring.drift import MIN_ROWS, FeatureDrift

LISTED = 10


def drift_checks(
    found: Sequence[FeatureDrift],
    *,
    pools: Collection[str],
    trained_pools: Collection[str],
    rules: Sequence[str | None],
    max_feature_psi: float,
    max_new_pools_share: float,
    max_fallback_share: float,
) -> list[dict[str, Any]]:
    """The ledger's entries `feature_drift`, `new_pools_share` and `rule_share`.

    Args: found is tonight's `drift`; pools are tonight's observed ones, trained_pools those with a
    day in the training span; rules are APY's of tonight's published rows, None where the model
    forecast.
    """
    new, by_rule = (
        sum(pool not in trained_pools for pool in pools),
        sum(rule is not None for rule in rules),
    )
    return [
        _drift_check(found, max_feature_psi),
        _share_check(
            "new_pools_share",
            new,
            len(pools),
            "observed pools have no day in the training span",
            max_new_pools_share,
        ),
        _share_check(
            "rule_share", by_rule, len(rules), "APY forecasts are a rule's", max_fallback_share
        ),
    ]


def _drift_check(found: Sequence[FeatureDrift], limit: float) -> dict[str, Any]:
    far = [one for one in found if one.all_missing or one.beyond > limit]
    listed = [
        {
            "feature": one.feature,
            **{name: round(getattr(one, name), 4) for name in ("psi", "ks", "beyond")},
        }
        for one in found[:LISTED]
    ]
    return _check("feature_drift", not far, _drift_sentence(found, far, limit)) | {
        "features": listed
    }


def _drift_sentence(
    found: Sequence[FeatureDrift], far: Sequence[FeatureDrift], limit: float
) -> str:
    if not found:
        return f"fewer than {MIN_ROWS} pools: not judged"
    if not far:
        return (
            f"none of {len(found)} features is further from the training span than its worst day by"
            f" a PSI of {limit:g}"
        )
    missing = [one.feature for one in far if one.all_missing]
    moved = [f"{one.feature} (PSI {one.psi:.2f})" for one in far if not one.all_missing]
    said = [f"no pool has a value of {_listed(missing)}"] if missing else []
    if moved:
        said.append(
            "further from the training span than its worst day, by a PSI of more than"
            f" MAX_FEATURE_PSI ({limit:g}): {_listed(moved)}"
        )
    return f"{len(far)} of {len(found)} features: {'; '.join(said)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _share_check(name: str, part: int, whole: int, what: str, limit: float) -> dict[str, Any]:
    share = part / whole if whole else 0.0
    found = f"{part} of {whole} {what} ({share:.0%}); {f'MAX_{name}'.upper()} is {limit:.0%}"
    return _check(name, share <= limit, found) | {"share": round(share, 4)}


def _check(name: str, passed: bool, found: str) -> dict[str, Any]:
    return {"name": name, "level": "batch", "severity": "warn", "passed": passed, "found": found}
