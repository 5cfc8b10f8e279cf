"""Which model version may publish: challenger, champion and persistence judged on the same rows,
which none of them had seen.

In: feature rows of the judged days with the moves of both. Out: `Judgement`, the decision with its
numbers. A loss is min(|came true - move|, LOSS_LIMIT) in the pool's scales, the gate's own: a move
of the model itself, before any gate, against no move. So it does not depend on what was published,
and one absurd pool can't decide it. Ratios come with the block bootstrap's interval over days: what
lies inside it is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.evaluation.day_bootstrap import LEVEL, mean_ratio_interval
from forecasting.evaluation.error_measures import Numbers
from forecasting.evaluation.scores import numbered
from forecasting.evaluation.segments import groups_of
from forecasting.features.targets import Target, Values
from forecasting.publishing.persistence_gate import LOSS_LIMIT

MIN_GROUP_SHARE = 0.1
"""A group with fewer of the judged rows is too small to stop a version."""

PROMOTED, KEPT, REFUSED = "promoted", "kept", "refused"
Ratio = tuple[float | None, float | None, float | None]
"""And the ends of its interval."""
CHALLENGER, CHAMPION, PERSISTENCE = "challenger", "champion", "persistence"


@dataclass(frozen=True)
class Judgement:
    """`decision`: the challenger serves (promoted), the champion goes on (kept), or nothing passes
    and persistence is served (refused); `passed`: the challenger would serve if there were no
    champion.

    `numbers`: days, rows; `loss`, mean by candidate, in scales; `ratio`, {"challenger/persistence":
    [ratio, low, high], ..}; `groups`, rows of {by, group, rows, ratio} of the challenger to the one
    it was measured against.
    """

    decision: str
    reason: str
    passed: bool
    numbers: Mapping[str, Any]


def judge(
    target: Target, rows: pd.DataFrame, moves: Mapping[str, Values], max_segment_regression: float
) -> Judgement:
    """Args: rows are `OutOfSample.rows` of the judged days; moves has CHALLENGER, and CHAMPION
    where there is one, in scales and in the rows' order; max_segment_regression is the share by
    which the challenger may be worse than the champion in any big group.
    """
    losses, days, known = _losses(target, rows, moves)
    ratios = {
        name: _ratio(losses[first], losses[second], days) for name, first, second in _pairs(losses)
    }
    champion_passes = CHAMPION in losses and _under_one(ratios["champion/persistence"][0])
    rival = CHAMPION if champion_passes else PERSISTENCE
    groups = _group_ratios(target, rows[known], losses[CHALLENGER], losses[rival])
    # beside persistence the gate sees to it: a group whose moves lose is published as today
    worse = (
        [one for one in groups if one["ratio"] > 1.0 + max_segment_regression]
        if rival == CHAMPION
        else []
    )
    beaten = {
        name: _under_one(high)
        for name, (_, _, high) in ratios.items()
        if name.startswith(CHALLENGER)
    }
    numbers = {
        "target": target.name,
        "days": int(days.max(initial=-1)) + 1,
        "rows": int(known.sum()),
        "interval_level": LEVEL,
        "loss": {
            name: round(float(loss.mean()), 6) if loss.size else None
            for name, loss in losses.items()
        },
        "ratio": ratios,
        "groups": groups,
    }
    passes = (
        beaten["challenger/persistence"]
        and (not champion_passes or beaten["challenger/champion"])
        and not worse
    )
    decision = PROMOTED if passes else KEPT if champion_passes else REFUSED
    passed = passes or (decision == KEPT and beaten["challenger/persistence"])
    return Judgement(decision, _reason(decision, ratios, rival, worse), passed, numbers)


def _under_one(ratio: float | None) -> bool:
    return ratio is not None and ratio < 1.0


def _losses(
    target: Target, rows: pd.DataFrame, moves: Mapping[str, Values]
) -> tuple[dict[str, Values], Numbers, npt.NDArray[np.bool_]]:
    """Loss of each candidate on the rows that all of them have a move for and whose day came true,
    those rows' days, and which rows they are.
    """
    now, after = (
        target.level(rows[name].to_numpy(float)) for name in (target.name, f"{target.name}_next")
    )
    came_true = (after - now) / rows[f"{target.name}_scale"].to_numpy(float)
    all_moves = dict(moves) | {PERSISTENCE: np.zeros(len(rows))}
    known = np.logical_and.reduce(
        [np.isfinite(values) for values in (came_true, *all_moves.values())]
    )
    losses = {
        name: np.minimum(np.abs(came_true - move), LOSS_LIMIT)[known]
        for name, move in all_moves.items()
    }
    return losses, numbered(rows["date"][known]), known


def _pairs(losses: Mapping[str, Values]) -> list[tuple[str, str, str]]:
    pairs = [(CHALLENGER, PERSISTENCE), (CHALLENGER, CHAMPION), (CHAMPION, PERSISTENCE)]
    return [
        (f"{first}/{second}", first, second)
        for first, second in pairs
        if first in losses and second in losses
    ]


def _ratio(first: Values, second: Values, days: Numbers) -> Ratio:
    """None where there is none."""
    if not first.size or not second.sum():
        return None, None, None
    low, high = mean_ratio_interval(first, second, days)
    return float(first.sum() / second.sum()), low, high


def _group_ratios(
    target: Target, rows: pd.DataFrame, first: Values, second: Values
) -> list[dict[str, Any]]:
    """Big groups only; one in which the rival lost nothing has no ratio, and is left out."""
    described = pd.DataFrame(
        {
            "volatility_scale": rows[f"{target.name}_scale"],
            "tvl_usd": rows["tvl"],
            "apy_percent": rows["apy"],
        }
    )
    found = []
    for by, groups in groups_of(described, target.name):
        for group in groups.categories:
            members = np.asarray(groups == group)
            if members.sum() >= MIN_GROUP_SHARE * len(rows) and second[members].sum() > 0.0:
                ratio = round(float(first[members].sum() / second[members].sum()), 5)
                found.append(
                    {"by": by, "group": str(group), "rows": int(members.sum()), "ratio": ratio}
                )
    return found


def _reason(
    decision: str, ratios: Mapping[str, Ratio], rival: str, worse: list[dict[str, Any]]
) -> str:
    said = ", ".join(f"{name} {_words(*found)}" for name, found in ratios.items())
    if decision == PROMOTED:
        return f"the challenger loses less than {rival} outside the noise: {said}"
    named = ", ".join(f"{one['by']} {one['group']} ({one['ratio']:.3f})" for one in worse)
    groups = f"; worse in {named}" if worse else ""
    if decision == KEPT:
        return f"the challenger does not beat the champion outside the noise: {said}{groups}"
    return f"no version beats persistence outside the noise: {said}{groups}"


def _words(ratio: float | None, low: float | None, high: float | None) -> str:
    if ratio is None:
        return "unknown"
    return (
        f"{ratio:.3f} ({low:.3f} to {high:.3f})"
        if low is not None and high is not None
        else f"{ratio:.3f} (too few days for an interval)"
    )
