"""Goals of the forecasts, compared with a benchmark's figures. Errors are on restricted rows (TVL
over 1 M USD, APY under 100 %); ratios are to persistence. Performs no measurement.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.forecast_accuracy import PEER, Period
from benchmarks.forecast_speed import NATIVE, DailyRuns, Scale

GOAL_POOLS, GOAL_DAYS = 487, 60
"""Panel and period of the goals for accuracy and seconds."""

GOAL_SCALE = (20_000, 180)

APY_BOUNDS = {
    dt.date(2025, 10, 5): {"MAE": 0.98, "median error": 0.90, "pinball": 0.975},
    dt.date(2025, 8, 6): {"MAE": 0.94, "median error": 0.88, "pinball": 0.90},
}
"""By last day of a period. Other days have no bound, because APY's predictability differs
by month.
"""

TVL_BOUNDS = {"MAE": 1.005, "median error": 1.02}
RATIO_NAMES = {"MAE": "mae", "median error": "median_ae"}
COVERAGE_MARGIN = 0.02
ENGINES_APART = 0.01
BACKTEST_SECONDS, DAILY_RUN_SECONDS, SCALE_RATIO = 360.0, 60.0, 2.0


@dataclass(frozen=True)
class GoalResult:
    """A figure and its goal, bounds included. `elsewhere` describes the goal's setting if the
    figure has another.
    """

    name: str
    figure: float
    low: float | None
    high: float
    unit: str = ""
    elsewhere: str | None = None

    @property
    def missed_by(self) -> float:
        """Return the distance to the goal; 0.0 for a hit."""
        return max(
            self.figure - self.high, (self.low - self.figure) if self.low is not None else 0.0, 0.0
        )

    def document(self) -> dict[str, Any]:
        values = {
            name: getattr(self, name)
            for name in ("name", "figure", "low", "high", "unit", "elsewhere")
        }
        return values | {"hit": self.missed_by == 0.0, "missed_by": self.missed_by}

    def line(self) -> str:
        goal = f"<= {self.high:g}" if self.low is None else f"{self.low:g} to {self.high:g}"
        verdict = (
            f"missed by {self.missed_by:.3g}{self.unit} ({self.missed_by / self.high:.0%})"
            if self.missed_by
            else "hit"
        )
        return (
            f"  {self.name}: {self.figure:.4g}{self.unit}, goal {goal}{self.unit}: {verdict}"
            + f" ({self.elsewhere})" * bool(self.elsewhere)
        )


def accuracy_goals(period: Period, panel_pools: int) -> Iterator[GoalResult]:
    elsewhere = _elsewhere(panel_pools, period.days)
    for engine in engines_of(period):
        label = f"{engine} to {period.end}"
        for target, bounds in (("apy", APY_BOUNDS.get(period.end, {})), ("tvl", TVL_BOUNDS)):
            scores = method(period, target, engine)
            if scores is None or scores["interval"] is None:
                continue
            figures = {name: scores["ratio"][key] for name, key in RATIO_NAMES.items()} | {
                "pinball": scores["interval"]["pinball_ratio"]
            }
            for name, bound in bounds.items():
                if figures[name] is not None:
                    yield GoalResult(
                        f"{label}: {target.upper()} {name} ratio",
                        figures[name],
                        None,
                        bound,
                        "",
                        elsewhere,
                    )
            level, coverage = scores["interval"]["level"], scores["interval"]["coverage"]
            ends = (round(level - COVERAGE_MARGIN, 4), round(level + COVERAGE_MARGIN, 4))
            yield GoalResult(f"{label}: {target.upper()} coverage", coverage, *ends, "", elsewhere)
        yield GoalResult(
            f"{label}: backtest",
            period.timings[engine].seconds,
            None,
            BACKTEST_SECONDS,
            " s",
            elsewhere,
        )
    yield from _engines_apart(period)


def _engines_apart(period: Period) -> Iterator[GoalResult]:
    for target in period.scores:
        ratios = [
            scores["ratio"]["mae"]
            for engine in engines_of(period)
            if (scores := method(period, target, engine))
        ]
        for first, other in pairwise(ratio for ratio in ratios if ratio):
            yield GoalResult(
                f"to {period.end}: {target.upper()} MAE ratios of the engines, apart",
                abs(first / other - 1.0),
                None,
                ENGINES_APART,
            )


def daily_run_goals(daily_runs: Sequence[DailyRuns], panel_pools: int) -> Iterator[GoalResult]:
    elsewhere = None if panel_pools == GOAL_POOLS else f"a goal for {GOAL_POOLS} pools"
    for runs in daily_runs:
        yield GoalResult(
            f"daily run {runs.engine}",
            median(run.seconds for run in runs.timings),
            None,
            DAILY_RUN_SECONDS,
            " s",
            elsewhere,
        )


def scale_goal(scale: Scale) -> GoalResult:
    elsewhere = (
        None
        if (scale.pools, scale.days) == GOAL_SCALE
        else "a goal for {} pools x {} days".format(*GOAL_SCALE)
    )
    return GoalResult(
        "features, fit and predict / native fits",
        scale_ratio(scale),
        None,
        SCALE_RATIO,
        "",
        elsewhere,
    )


def scale_ratio(scale: Scale) -> float:
    return (scale.timing.ledger_seconds or 0.0) / scale.timing.stages[NATIVE]


def engines_of(period: Period) -> list[str]:
    return [name for name in period.timings if name != PEER]


def method(period: Period, target: str, name: str) -> dict[str, Any] | None:
    """Return the method's scores on restricted rows; None if there are none."""
    scores: dict[str, Any] | None = (
        period.scores[target]["restricted"]["methods"].get(name)
        if target in period.scores
        else None
    )
    return scores


def _elsewhere(pools: int, days: int) -> str | None:
    return (
        None
        if (pools, days) == (GOAL_POOLS, GOAL_DAYS)
        else f"a goal for {GOAL_DAYS} days of {GOAL_POOLS} pools"
    )
