"""The goals of the forecasts, and which of a benchmark's figures hit them.

In: `Period`, `Nights`, `Scale`. Out: `Judged`, one for each goal whose figure is there. Errors are
on restricted rows (TVL over 1 M USD, APY under 100 %); ratios are to persistence. Nothing is
measured here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.forecast_accuracy import PEER, Period
from benchmarks.forecast_speed import NATIVE, Nights, Scale

GOAL_POOLS, GOAL_DAYS = 487, 60
"""The panel and the period that accuracy and seconds are promised for."""

GOAL_SCALE = (20_000, 180)

APY_BOUNDS = {
    dt.date(2025, 10, 5): {"MAE": 0.98, "median error": 0.90, "pinball": 0.975},
    dt.date(2025, 8, 6): {"MAE": 0.94, "median error": 0.88, "pinball": 0.90},
}
"""By the last day of a period. No day but these has a bound: how well APY can be forecast differs
from month to month.
"""

TVL_BOUNDS = {"MAE": 1.005, "median error": 1.02}
RATIO_NAMES = {"MAE": "mae", "median error": "median_ae"}
COVERAGE_MARGIN = 0.02
ENGINES_APART = 0.01
BACKTEST_SECONDS, NIGHT_SECONDS, SCALE_RATIO = 360.0, 60.0, 2.0


@dataclass(frozen=True)
class Judged:
    """A figure and where it should lie, both ends included; `elsewhere` says what the goal is set
    for where the figure is of something else.
    """

    name: str
    figure: float
    low: float | None
    high: float
    unit: str = ""
    elsewhere: str | None = None

    @property
    def missed_by(self) -> float:
        """0.0 for a hit."""
        return max(
            self.figure - self.high, (self.low - self.figure) if self.low is not None else 0.0, 0.0
        )

    def document(self) -> dict[str, Any]:
        named = {
            name: getattr(self, name)
            for name in ("name", "figure", "low", "high", "unit", "elsewhere")
        }
        return named | {"hit": self.missed_by == 0.0, "missed_by": self.missed_by}

    def line(self) -> str:
        goal = f"<= {self.high:g}" if self.low is None else f"{self.low:g} to {self.high:g}"
        word = (
            f"missed by {self.missed_by:.3g}{self.unit} ({self.missed_by / self.high:.0%})"
            if self.missed_by
            else "hit"
        )
        return (
            f"  {self.name}: {self.figure:.4g}{self.unit}, goal {goal}{self.unit}: {word}"
            + f" ({self.elsewhere})" * bool(self.elsewhere)
        )


def accuracy_goals(period: Period, panel_pools: int) -> Iterator[Judged]:
    elsewhere = _elsewhere(panel_pools, period.days)
    for engine in engines_of(period):
        words = f"{engine} to {period.end}"
        for target, bounds in (("apy", APY_BOUNDS.get(period.end, {})), ("tvl", TVL_BOUNDS)):
            found = method(period, target, engine)
            if found is None or found["interval"] is None:
                continue
            figures = {name: found["ratio"][key] for name, key in RATIO_NAMES.items()} | {
                "pinball": found["interval"]["pinball_ratio"]
            }
            for name, bound in bounds.items():
                if figures[name] is not None:
                    yield Judged(
                        f"{words}: {target.upper()} {name} ratio",
                        figures[name],
                        None,
                        bound,
                        "",
                        elsewhere,
                    )
            level, coverage = found["interval"]["level"], found["interval"]["coverage"]
            ends = (round(level - COVERAGE_MARGIN, 4), round(level + COVERAGE_MARGIN, 4))
            yield Judged(f"{words}: {target.upper()} coverage", coverage, *ends, "", elsewhere)
        yield Judged(
            f"{words}: backtest",
            period.timings[engine].seconds,
            None,
            BACKTEST_SECONDS,
            " s",
            elsewhere,
        )
    yield from _engines_apart(period)


def _engines_apart(period: Period) -> Iterator[Judged]:
    for target in period.scores:
        ratios = [
            found["ratio"]["mae"]
            for engine in engines_of(period)
            if (found := method(period, target, engine))
        ]
        for one, other in pairwise(ratio for ratio in ratios if ratio):
            yield Judged(
                f"to {period.end}: {target.upper()} MAE ratios of the engines, apart",
                abs(one / other - 1.0),
                None,
                ENGINES_APART,
            )


def night_goals(nights: Sequence[Nights], panel_pools: int) -> Iterator[Judged]:
    elsewhere = None if panel_pools == GOAL_POOLS else f"a goal for {GOAL_POOLS} pools"
    for night in nights:
        yield Judged(
            f"night {night.engine}",
            median(run.seconds for run in night.timings),
            None,
            NIGHT_SECONDS,
            " s",
            elsewhere,
        )


def scale_goal(scale: Scale) -> Judged:
    elsewhere = (
        None
        if (scale.pools, scale.days) == GOAL_SCALE
        else "a goal for {} pools x {} days".format(*GOAL_SCALE)
    )
    return Judged(
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
    """The method's scores on restricted rows; None where there are none."""
    found: dict[str, Any] | None = (
        period.scores[target]["restricted"]["methods"].get(name)
        if target in period.scores
        else None
    )
    return found


def _elsewhere(pools: int, days: int) -> str | None:
    return (
        None
        if (pools, days) == (GOAL_POOLS, GOAL_DAYS)
        else f"a goal for {GOAL_DAYS} days of {GOAL_POOLS} pools"
    )
