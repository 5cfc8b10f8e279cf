"""How far tonight's features are from those that the model was trained on, and the checks of a night's ledger entry that follow.

In: feature rows of the training span, once a model version; tonight's rows. Out: a reference that is kept with the model as JSON, and each feature's
PSI and Kolmogorov-Smirnov statistic. Both are of rows chosen alike: observed pools with a scale. It says that values have moved, not that forecasts
are worse: `rolling_origin_score` says that.

A night is judged beside nights. Pools move together: any one day is far from a year of days (PSI 0.1 to 0.5, 2 on a stormy day), and a fixed limit
would warn every night. So the reference keeps the highest PSI that a training day itself has beside the whole span, and tonight may go that far.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.feature_groups import SHARED_BY_A_DAY
from forecasting.targets import Values

Matrix = npt.NDArray[np.float32]
Reference = list[dict[str, Any]]
"""An entry for each feature, in the matrix's order: feature, edges, counts of rows (the last bin is missing), usual (PSI)."""

DECILES = np.arange(1, 10) / 10.0
MIN_ROWS = 20
"""A day of fewer rows neither is judged nor says what is usual: the PSI of a handful is chance."""
LISTED = 10


@dataclass(frozen=True)
class FeatureDrift:
    """One feature tonight. `beyond` is its PSI above chance and above the usual; `all_missing` where no row has a value."""

    feature: str
    psi: float
    ks: float
    beyond: float
    all_missing: bool


def reference_of(matrix: Matrix, names: Sequence[str], days: npt.NDArray[Any]) -> Reference:
    """The training rows in bins. Args: matrix (rows, features); days has each row's day.

    Edges are the deciles, and two fences as far outside the span's range as that is wide, for a change of units. Features that a day's pools share
    have the fences alone, as one value a day fills one bin on any night: they are judged by leaving the range, and by missing.
    """
    _, number = np.unique(days, return_inverse=True)
    return [_describe(name, column.astype(float), number) for name, column in zip(names, matrix.T, strict=True)]


def drift(reference: Reference, matrix: Matrix) -> list[FeatureDrift]:
    """Every feature of tonight's rows (rows, features), most drifted first; none of fewer than MIN_ROWS rows."""
    if len(matrix) < MIN_ROWS:
        return []
    found = [_drift_of(known, column.astype(float)) for known, column in zip(reference, matrix.T, strict=True)]
    return sorted(found, key=lambda one: (not one.all_missing, -one.beyond))


def drift_checks(
    found: Sequence[FeatureDrift],
    *,
    pools: Collection[str],
    trained_pools: Collection[str],
    rules: Sequence[str | None],
    max_feature_psi: float,
    max_new_pools_share: float,
    max_rule_share: float,
) -> list[dict[str, Any]]:
    """The ledger's entries `feature_drift`, `new_pools_share` and `rule_share`; they warn and never block.

    Args: found is tonight's `drift`; pools are tonight's observed ones, trained_pools those with a day in the training span; rules are APY's of
    tonight's published rows, None where the model forecast.
    """
    new, by_rule = sum(pool not in trained_pools for pool in pools), sum(rule is not None for rule in rules)
    return [
        _drift_check(found, max_feature_psi),
        _share_check("new_pools_share", new, len(pools), "observed pools have no day in the training span", max_new_pools_share),
        _share_check("rule_share", by_rule, len(rules), "APY forecasts are a rule's", max_rule_share),
    ]


def _describe(name: str, column: Values, day: npt.NDArray[np.int64]) -> dict[str, Any]:
    known = column[~np.isnan(column)]
    edges = _edges(known, shared=name in SHARED_BY_A_DAY)
    bins = edges.size + 2
    counts = np.bincount(day * bins + _bin_of(column, edges), minlength=bins * (day.max() + 1)).reshape(-1, bins).astype(float)
    # a day on which no pool has the feature is of a time before it, and no distribution
    counts = counts[counts[:, :-1].any(axis=1)]
    total = counts.sum(axis=0)
    # what is usual is a matter of values: a day with a hole is no measure for tonight
    valued = counts[counts[:, :-1].sum(axis=1) >= MIN_ROWS, :-1]
    usual = beyond_chance(total[:-1], valued).max(initial=0.0) if len(valued) else 0.0
    return {"feature": name, "edges": edges.tolist(), "counts": total.astype(int).tolist(), "usual": float(usual)}


def _edges(known: Values, *, shared: bool) -> Values:
    if not known.size:
        return np.zeros(0)
    low, high = known.min(), known.max()
    reach = high - low or 1.0
    edges: Values = np.unique([low - reach, *([] if shared else np.quantile(known, DECILES)), high + reach])
    return edges


def _bin_of(column: Values, edges: Values) -> npt.NDArray[np.int64]:
    """Bins are open below and closed above; the last one holds what is missing."""
    return np.where(np.isnan(column), edges.size + 1, np.searchsorted(edges, column, side="left"))


def population_stability(expected: Values, counts: Values) -> Values:
    """PSI, sum((a - e) ln(a / e)) over bins (Siddiqi 2006), of each row of counts (nights, bins) beside the expected counts (bins).

    Shares are at least half a row's of the night, so that an empty bin is neither infinite nor worth more than the night can say.
    """
    rows = counts.sum(axis=1, keepdims=True)
    e, a = (np.maximum(share, 0.5 / rows) for share in (expected / expected.sum(), counts / rows))
    psi: Values = ((a - e) * np.log(a / e)).sum(axis=1)
    return psi


def beyond_chance(expected: Values, counts: Values) -> Values:
    """PSI less what rows drawn like the expected ones have on average: (bins - 1)(1 / rows + 1 / expected rows) (Yurdakul and Naranjo 2020)."""
    bins, rows = np.count_nonzero(expected), counts.sum(axis=1)
    excess: Values = population_stability(expected, counts) - (bins - 1) * (1.0 / rows + 1.0 / expected.sum())
    return excess


def binned_ks(expected: Values, counts: Values) -> float:
    """The two-sample Kolmogorov-Smirnov statistic of two distributions in bins, missing above all values; both are counts.

    The largest distance at the edges: a lower bound of the largest anywhere.
    """
    return float(np.abs(np.cumsum(counts / counts.sum() - expected / expected.sum())).max())


def _drift_of(known: Mapping[str, Any], column: Values) -> FeatureDrift:
    edges, expected = np.array(known["edges"]), np.array(known["counts"])
    if not expected.any():
        # the model has never seen it either
        return FeatureDrift(known["feature"], psi=0.0, ks=0.0, beyond=0.0, all_missing=False)
    counts = np.bincount(_bin_of(column, edges), minlength=expected.size)[None, :].astype(float)
    valued = 1.0 - counts[0, -1] / column.size
    return FeatureDrift(
        known["feature"],
        psi=float(population_stability(expected, counts)[0]),
        ks=binned_ks(expected, counts[0]),
        # by the chain rule of the divergence, values weigh as much in it as there are rows with one
        beyond=float(beyond_chance(expected, counts)[0] - valued * known["usual"]),
        all_missing=bool(valued == 0.0),
    )


def _drift_check(found: Sequence[FeatureDrift], limit: float) -> dict[str, Any]:
    far = [one for one in found if one.all_missing or one.beyond > limit]
    listed = [{"feature": one.feature, **{name: round(getattr(one, name), 4) for name in ("psi", "ks", "beyond")}} for one in found[:LISTED]]
    return _check("feature_drift", not far, _drift_sentence(found, far, limit)) | {"features": listed}


def _drift_sentence(found: Sequence[FeatureDrift], far: Sequence[FeatureDrift], limit: float) -> str:
    if not found:
        return f"fewer than {MIN_ROWS} pools: not judged"
    if not far:
        return f"none of {len(found)} features is further from the training span than its worst day by a PSI of {limit:g}"
    missing = [one.feature for one in far if one.all_missing]
    moved = [f"{one.feature} (PSI {one.psi:.2f})" for one in far if not one.all_missing]
    said = [f"no pool has a value of {_listed(missing)}"] if missing else []
    if moved:
        said.append(f"further from the training span than its worst day, by a PSI of more than MAX_FEATURE_PSI ({limit:g}): {_listed(moved)}")
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
