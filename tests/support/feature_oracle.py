"""An oracle of the features: their definitions on plain lists, without code of the product.

Reads a pool's APY (percent) and TVL (USD), one a day, None where unknown, and the observed days;
returns values by name, None where unknown.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections.abc import Sequence
from functools import cached_property

Value = float | None


class PoolOracle:
    """`first_day` is the day of the first value; the naive interval covers 80 %."""

    def __init__(
        self,
        apy: Sequence[Value],
        tvl: Sequence[Value],
        apy_observed: Sequence[bool],
        tvl_observed: Sequence[bool],
        first_day: dt.date,
    ) -> None:
        self.apy, self.tvl, self.apy_observed, self.tvl_observed, self.first_day = (
            list(apy),
            list(tvl),
            list(apy_observed),
            list(tvl_observed),
            first_day,
        )
        self.log_tvl = [None if value is None else math.log(1 + value) for value in tvl]
        self.days = range(len(self.apy))
        self.apy_series = Series(
            self.apy,
            self.apy_observed,
            [None if value is None else 0.001 + 0.002 * abs(value) for value in self.apy],
        )
        self.tvl_series = Series(self.log_tvl, self.tvl_observed, [0.001] * len(self.tvl))

    def at(self, day: int) -> dict[str, Value]:
        """Returns every scale, baseline, level and feature of the day with this number."""
        raw_moves = [
            None if move is None else abs(move)
            for move in one_day_moves(self.tvl, self.tvl_observed)
        ]
        features: dict[str, Value] = {
            "apy_scale": self.apy_series.scale(day),
            "tvl_scale": self.tvl_series.scale(day),
        }
        features |= {f"apy_{name}": value for name, value in self.apy_series.baselines(day).items()}
        features |= {
            f"tvl_{name}": value if value is None else math.exp(value) - 1
            for name, value in self.tvl_series.baselines(day).items()
        }
        features |= {
            "apy_mean_abs_change": mean(last(self.apy_series.sizes, day, 90)),
            "tvl_mean_abs_change": mean(last(raw_moves, day, 90)),
        }
        return features | self.apy_features(day) | self.tvl_features(day) | self.calendar(day)

    def apy_features(self, day: int) -> dict[str, Value]:
        series, apy, now = self.apy_series, self.apy, self.apy[day]
        gap = {f"apy_move_{back}": earlier(series.moves, day, back) for back in range(7)}
        gap |= {f"apy_mean_gap_{n}": less(mean(last(apy, day, n)), now) for n in (3, 7, 14, 30, 90)}
        gap |= {
            f"apy_median_gap_{n}": less(median(last(apy, day, n)), now) for n in (5, 7, 14, 30, 90)
        }
        gap |= {
            f"apy_lowest_gap_{n}": less(min(last(apy, day, n), default=None), now) for n in (7, 30)
        }
        gap |= {
            f"apy_highest_gap_{n}": less(max(last(apy, day, n), default=None), now) for n in (7, 30)
        }
        gap |= {
            f"apy_exponential_gap_{half}": less(fading_mean(apy, day, half), now)
            for half in (1, 3, 10)
        }
        gap |= {f"apy_gap_{back}": less(earlier(apy, day, back), now) for back in (7, 14)}
        gap |= {f"apy_std_{n}": deviation(last(apy, day, n)) for n in (7, 30)}
        gap |= {f"apy_abs_move_{n}": mean(last(series.sizes, day, n)) for n in (7, 30, 90)}
        gap |= {"flow_gap": less(self.flow(day), now)}
        features: dict[str, Value] = {
            name: series.in_scales(value, day) for name, value in gap.items()
        }
        for n in (7, 30):
            still = [float(size < 1e-9) for size in last(series.sizes, day, n)]
            features[f"apy_still_share_{n}"] = mean(still)
        spikes = [series.spike(then) for then in self.days]
        features |= {
            "apy_spike": spikes[day],
            "apy_spike_yesterday": earlier(spikes, day, 1),
            "apy_spike_share_30": mean(last(spikes, day, 30)),
        }
        features |= {
            "apy_level": None if now is None else math.asinh(now / 0.1),
            "apy_lowest_30": min(last(apy, day, 30), default=None),
        }
        scale = series.scale(day)
        features["apy_scale_relative"] = (
            None if now is None or scale is None else math.log(scale / (abs(now) + 0.1))
        )
        return features | self.slopes[day]

    @cached_property
    def slopes(self) -> list[dict[str, Value]]:
        series = self.apy_series
        effects = [within(8.0, ratio(series.moves[then], series.scale(then))) for then in self.days]
        slopes_of_days: list[dict[str, Value]] = [{} for _ in self.days]
        for name, n in (("momentum", 0), ("reversion_7", 7), ("reversion_30", 30)):
            gaps = [
                within(
                    8.0,
                    ratio(less(mean(last(self.apy, then, n)), self.apy[then]), series.scale(then)),
                )
                for then in self.days
            ]
            causes = gaps if n else effects
            for day in self.days:
                slope = ridge_slope(effects, causes, day)
                slopes_of_days[day] |= {
                    f"apy_{name}_slope": slope,
                    f"apy_{name}_step": slope * (causes[day] or 0.0),
                }
        return slopes_of_days

    def flow(self, day: int) -> Value:
        """Returns the APY that would pay the median of the last seven days' payments."""
        paid = [
            None if apy is None or tvl is None else apy * tvl
            for apy, tvl in zip(self.apy, self.tvl, strict=True)
        ]
        return ratio(median(last(paid, day, 7)), self.tvl[day] or None)

    def tvl_features(self, day: int) -> dict[str, Value]:
        series, level, now = self.tvl_series, self.log_tvl, self.log_tvl[day]
        gap = {f"tvl_move_{back}": earlier(series.moves, day, back) for back in range(4)}
        gap |= {f"tvl_change_{back}": less(now, earlier(level, day, back)) for back in (7, 30)}
        gap |= {f"tvl_mean_gap_{n}": less(mean(last(level, day, n)), now) for n in (3, 7, 30)}
        gap |= {"tvl_median_gap_7": less(median(last(level, day, 7)), now)}
        gap |= {f"tvl_std_{n}": deviation(last(level, day, n)) for n in (7, 30)}
        gap |= {"tvl_abs_move_30": mean(last(series.sizes, day, 30))}
        scale = series.scale(day)
        return {
            "tvl_level": now,
            "tvl_scale_level": None if scale is None else math.log(scale),
            **{name: series.in_scales(value, day) for name, value in gap.items()},
        }

    def calendar(self, day: int) -> dict[str, Value]:
        observed = [
            then for then in range(day + 1) if self.apy_observed[then] or self.tvl_observed[then]
        ]
        apy_observed = [then for then in range(day + 1) if self.apy_observed[then]]
        return {
            "age_days": min(day - observed[0] + 1, 90) if observed else 0,
            "observed_30": sum(self.apy_observed[max(0, day - 29) : day + 1]),
            "days_since_observed": min(day - apy_observed[-1], 90) if apy_observed else 90,
            "weekday": (self.first_day + dt.timedelta(days=day)).weekday(),
        }


class Series:
    """A level with its moves and scales: APY itself, or log(1 + TVL)."""

    def __init__(self, level: list[Value], observed: list[bool], floor: Sequence[Value]) -> None:
        self.level, self.floor = level, floor
        self.moves = one_day_moves(level, observed)
        self.sizes = [None if move is None else abs(move) for move in self.moves]
        self.over_gaps = sizes_over_gaps(level, observed)
        self.scales = [self._scale(day) for day in range(len(level))]

    def scale(self, day: int) -> Value:
        return self.scales[day]

    def _scale(self, day: int) -> Value:
        under = self.floor[day]
        for sizes in (self.sizes, self.over_gaps):
            if under is not None and len(last(sizes, day, day + 1)) >= 3:
                return max(fading_mean(self._cut(sizes, day), day, 10) or 0.0, under)
        return None

    def _cut(self, sizes: list[Value], until: int) -> list[Value]:
        """Returns each size, at most four upper quartiles of its 60 days plus the floor."""
        cut: list[Value] = []
        for day, (size, under) in enumerate(zip(sizes[: until + 1], self.floor, strict=False)):
            if size is None or under is None:
                cut.append(None)
            else:
                cut.append(min(size, 4 * quantile(last(sizes, day, 60), 0.75) + under))
        return cut

    def in_scales(self, distance: Value, day: int) -> Value:
        return within(50.0, ratio(distance, self.scale(day)))

    def spike(self, day: int) -> Value:
        size, scale = self.sizes[day], self.scale(day)
        return None if size is None or scale is None else float(size > 5 * scale)

    def baselines(self, day: int) -> dict[str, Value]:
        now, moves = self.level[day], last(self.moves, day, 60)
        if now is None:
            return {
                "median_7": median(last(self.level, day, 7)),
                "reverted": None,
                "naive_low": None,
                "naive_high": None,
            }
        gaps = [less(mean(last(self.level, then, 30)), self.level[then]) for then in range(day + 1)]
        causes = [ratio(gap, self.scale(then)) for then, gap in enumerate(gaps)]
        slope = ridge_slope(
            [ratio(self.moves[then], self.scale(then)) for then in range(day + 1)], causes, day
        )
        return {
            "median_7": median(last(self.level, day, 7)),
            "reverted": now + min(max(slope, 0.0), 1.0) * (gaps[day] or 0.0),
            "naive_low": now + quantile(moves, 0.1) if len(moves) >= 20 else None,
            "naive_high": now + quantile(moves, 0.9) if len(moves) >= 20 else None,
        }


def one_day_moves(level: Sequence[Value], observed: Sequence[bool]) -> list[Value]:
    return [
        None,
        *(
            less(level[day], level[day - 1]) if observed[day] and observed[day - 1] else None
            for day in range(1, len(level))
        ),
    ]


def sizes_over_gaps(level: Sequence[Value], observed: Sequence[bool]) -> list[Value]:
    """Returns the distance to the observation before, divided by the root of the days between."""
    sizes: list[Value] = [None] * len(level)
    before: tuple[int, float] | None = None
    for day, value in enumerate(level):
        if value is None or not observed[day]:
            continue
        if before is not None:
            sizes[day] = abs(value - before[1]) / math.sqrt(day - before[0])
        before = (day, value)
    return sizes


def ridge_slope(effects: Sequence[Value], causes: Sequence[Value], day: int) -> float:
    """Returns the slope of the last 60 days' effects on the causes a day before, with a ridge."""
    pairs = [(effects[then], causes[then - 1]) for then in range(max(1, day - 59), day + 1)]
    complete = [
        (effect, cause) for effect, cause in pairs if effect is not None and cause is not None
    ]
    return math.fsum(effect * cause for effect, cause in complete) / (
        math.fsum(cause * cause for _, cause in complete) + 10.0
    )


def fading_mean(values: Sequence[Value], day: int, half_life: float) -> Value:
    aged = [
        (value, 0.5 ** ((day - then) / half_life))
        for then, value in enumerate(values[: day + 1])
        if value is not None
    ]
    return (
        math.fsum(value * weight for value, weight in aged)
        / math.fsum(weight for _, weight in aged)
        if aged
        else None
    )


def last(values: Sequence[Value], day: int, days: int) -> list[float]:
    return [value for value in values[max(0, day - days + 1) : day + 1] if value is not None]


def earlier(values: Sequence[Value], day: int, back: int) -> Value:
    return values[day - back] if day >= back else None


def less(value: Value, other: Value) -> Value:
    return None if value is None or other is None else value - other


def ratio(value: Value, by: Value) -> Value:
    return None if value is None or by is None else value / by


def within(limit: float, value: Value) -> Value:
    return None if value is None else max(-limit, min(limit, value))


def mean(values: Sequence[float]) -> Value:
    return math.fsum(values) / len(values) if values else None


def median(values: Sequence[float]) -> Value:
    return statistics.median(values) if values else None


def deviation(values: Sequence[float]) -> Value:
    return statistics.stdev(values) if len(values) > 1 else None


def quantile(values: Sequence[float], level: float) -> float:
    """Returns a quantile by the inclusive method of `statistics`."""
    return (
        values[0]
        if len(values) == 1
        else statistics.quantiles(values, n=100, method="inclusive")[round(level * 100) - 1]
    )
