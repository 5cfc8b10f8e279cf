"""The promotion policy: challenger, champion and persistence compared on the same rows.

Reads rows of days that no version was fitted on, with the moves of each; returns a
`PromotionDecision`. Decides by the model's own moves before any gate, so the decision does not
depend on what was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.evaluation.day_bootstrap import LEVEL, mean_ratio_interval
from forecasting.evaluation.error_measures import Integers
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.scores import category_codes
from forecasting.evaluation.segments import segments_of
from forecasting.features.targets import Target, Values
from forecasting.publishing.persistence_gate import LOSS_LIMIT

# a segment with a smaller share of the rows is too small to stop a version
MIN_SEGMENT_SHARE = 0.1

PROMOTED, KEPT, REFUSED = "promoted", "kept", "refused"
# ratio of two mean losses and the ends of its interval
Ratio = tuple[float | None, float | None, float | None]
PERSISTENCE = "persistence"


@dataclass(frozen=True)
class SegmentRatio:
    """The challenger's loss relative to its rival's in one large segment of `segments_of`."""

    by: str
    group: str
    rows: int
    ratio: float


@dataclass(frozen=True)
class PromotionDecision:
    """The decision on a challenger.

    Attributes:
        decision: PROMOTED (the challenger serves), KEPT (the champion continues) or REFUSED (no
            version passes: persistence is published).
        reason: the decision in a sentence, with its ratios.
        passed: the challenger would serve if there were no champion.
        numbers: for JSON: days, rows, `loss` (mean by candidate, in scales), `ratio`
            ({"challenger/persistence": [ratio, low, high], ..}) and `groups` (rows of {by, group,
            rows, ratio} of the challenger to its rival).
    """

    decision: str
    reason: str
    passed: bool
    numbers: Mapping[str, Any]

    def serving_version(self, challenger: str, champion: str | None) -> str | None:
        """Returns the version that serves after the decision; None for persistence.

        Args:
            challenger: version that was decided on.
            champion: serving version before the decision; None for persistence.
        """
        return {PROMOTED: challenger, KEPT: champion, REFUSED: None}[self.decision]


def evaluate_challenger(
    target: Target, rows: pd.DataFrame, moves: Mapping[str, Values], max_segment_regression: float
) -> PromotionDecision:
    """Decides whether a challenger serves.

    A loss is min(|actual move - move|, LOSS_LIMIT) in the pool's scales, as the gate's. The upper
    end of a ratio's bootstrap interval must be under 1: a difference inside the interval is noise.

    Args:
        target: the target whose moves are compared.
        rows: `OutOfSample.rows` of the validation days.
        moves: moves by candidate, in scales and in the rows' order: CHALLENGER, and CHAMPION if
            there is one.
        max_segment_regression: share by which the challenger may be worse than the champion in any
            large segment.
    """
    losses, days, is_compared = _losses(target, rows, moves)
    ratios = {
        name: _ratio(losses[first], losses[second], days) for name, first, second in _pairs(losses)
    }
    champion_passes = CHAMPION in losses and _under_one(ratios["champion/persistence"][0])
    # a champion that no longer beats persistence sets no standard
    rival = CHAMPION if champion_passes else PERSISTENCE
    segments = _segment_ratios(target, rows[is_compared], losses[CHALLENGER], losses[rival])
    # against persistence the gate does this: it publishes today's value for a segment that loses
    limit = 1.0 + max_segment_regression if rival == CHAMPION else np.inf
    worse = [segment for segment in segments if segment.ratio > limit]
    beaten = {
        name: _under_one(high)
        for name, (_, _, high) in ratios.items()
        if name.startswith(CHALLENGER)
    }
    numbers = {
        "target": target.name,
        "days": int(days.max(initial=-1)) + 1,
        "rows": int(is_compared.sum()),
        "interval_level": LEVEL,
        "loss": {
            name: round(float(loss.mean()), 6) if loss.size else None
            for name, loss in losses.items()
        },
        "ratio": ratios,
        "groups": [asdict(segment) for segment in segments],
    }
    passes = (
        beaten["challenger/persistence"]
        and (not champion_passes or beaten["challenger/champion"])
        and not worse
    )
    decision = REFUSED
    if passes:
        decision = PROMOTED
    elif champion_passes:
        decision = KEPT
    passed = passes or (decision == KEPT and beaten["challenger/persistence"])
    return PromotionDecision(decision, _reason(decision, ratios, rival, worse), passed, numbers)


def _under_one(ratio: float | None) -> bool:
    return ratio is not None and ratio < 1.0


def _losses(
    target: Target, rows: pd.DataFrame, moves: Mapping[str, Values]
) -> tuple[dict[str, Values], Integers, npt.NDArray[np.bool_]]:
    """Losses of each candidate on the rows that all have a move for, their days, and which rows."""
    now, after = (
        target.level(rows[name].to_numpy(float)) for name in (target.name, f"{target.name}_next")
    )
    actual_move = (after - now) / rows[f"{target.name}_scale"].to_numpy(float)
    all_moves = dict(moves) | {PERSISTENCE: np.zeros(len(rows))}
    is_compared = np.logical_and.reduce(
        [np.isfinite(values) for values in (actual_move, *all_moves.values())]
    )
    # the limit keeps one absurd pool from deciding
    losses = {
        name: np.minimum(np.abs(actual_move - move), LOSS_LIMIT)[is_compared]
        for name, move in all_moves.items()
    }
    return losses, category_codes(rows["date"][is_compared]), is_compared


def _pairs(losses: Mapping[str, Values]) -> list[tuple[str, str, str]]:
    pairs = [(CHALLENGER, PERSISTENCE), (CHALLENGER, CHAMPION), (CHAMPION, PERSISTENCE)]
    return [
        (f"{first}/{second}", first, second)
        for first, second in pairs
        if first in losses and second in losses
    ]


def _ratio(first: Values, second: Values, days: Integers) -> Ratio:
    """The ratio of two candidates' losses with its interval; Nones without any loss."""
    if not first.size or not second.sum():
        return None, None, None
    low, high = mean_ratio_interval(first, second, days)
    return float(first.sum() / second.sum()), low, high


def _segment_ratios(
    target: Target, rows: pd.DataFrame, first: Values, second: Values
) -> list[SegmentRatio]:
    """Ratios by large segment, without segments in which the rival lost nothing."""
    described = pd.DataFrame(
        {
            "volatility_scale": rows[f"{target.name}_scale"],
            "tvl_usd": rows["tvl"],
            "apy_percent": rows["apy"],
        }
    )
    ratios = []
    for by, segments in segments_of(described, target.name):
        for segment in segments.categories:
            members = np.asarray(segments == segment)
            if members.sum() >= MIN_SEGMENT_SHARE * len(rows) and second[members].sum() > 0.0:
                ratio = round(float(first[members].sum() / second[members].sum()), 5)
                ratios.append(SegmentRatio(by, str(segment), int(members.sum()), ratio))
    return ratios


def _reason(
    decision: str, ratios: Mapping[str, Ratio], rival: str, worse: list[SegmentRatio]
) -> str:
    values = ", ".join(f"{name} {_ratio_text(*ratio)}" for name, ratio in ratios.items())
    if decision == PROMOTED:
        return f"the challenger loses less than {rival} by more than chance: {values}"
    names = ", ".join(f"{segment.by} {segment.group} ({segment.ratio:.3f})" for segment in worse)
    regressions = f"; worse in {names}" if worse else ""
    if decision == KEPT:
        return (
            f"the challenger does not beat the champion by more than chance: {values}{regressions}"
        )
    return f"no version beats persistence by more than chance: {values}{regressions}"


def _ratio_text(ratio: float | None, low: float | None, high: float | None) -> str:
    if ratio is None:
        return "unknown"
    return (
        f"{ratio:.3f} ({low:.3f} to {high:.3f})"
        if low is not None and high is not None
        else f"{ratio:.3f} (too few days for an interval)"
    )
