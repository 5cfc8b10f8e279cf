"""Computes the expected metrics in plain Python, with numpy for each window, one pool and one day
at a time.

It shares no code with the product and uses no Spark, SQL or pandas. It is slow on purpose: every
day reads the whole history again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain, product
from typing import Any

import numpy as np

DAY = timedelta(days=1)
INFINITE = {"".join(parts) for parts in product(("", "+", "-"), ("inf", "infinity"))}


@dataclass(frozen=True)
class RawRow:
    """One raw snapshot; `document` is the parsed JSON value."""

    id: int
    pool_id: str
    timestamp: datetime
    document: Any


@dataclass
class World:
    """Everything that a run reads.

    prices: JSON value of the close (USD) by timestamp and symbol. gas: gwei by day, or None.
    stored: each day's last accepted row in earlier runs, which replaces raw rows that are gone.
    reached: the end of those runs.
    """

    rows: list[RawRow] = field(default_factory=list)
    prices: dict[tuple[datetime, str], Any] = field(default_factory=dict)
    gas: dict[date, float | None] = field(default_factory=dict)
    inactive: set[str] = field(default_factory=set)
    now: datetime = datetime.max
    max_fill_days: int = 7
    max_apy_percent: float = 1e6
    max_tvl_usd: float = 1e12
    max_price_usd: float = 1e9
    stored: dict[tuple[str, date], RawRow] = field(default_factory=dict)
    reached: date | None = None


class Unusable(Exception):
    """A value that must be quarantined; the text is the reason."""


def number(value: Any, name: str) -> float | None:
    """Return a JSON value as a number, None if it is missing (null or NaN)."""
    if value is None or (isinstance(value, str) and value.lower() == "nan"):
        return None
    if isinstance(value, str) and value.lower() in INFINITE:
        raise Unusable(f"{name}_infinite")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unusable(f"{name}_not_a_number")
    if isinstance(value, str) and not set(value) <= set("0123456789+-.eE"):
        raise Unusable(f"{name}_not_a_number")
    try:
        return float(value)
    except ValueError:
        raise Unusable(f"{name}_not_a_number") from None


def values(row: RawRow, world: World) -> tuple[float | None, float | None]:
    """Return APY (percent) and TVL (USD) of an acceptable row.

    Raises: Unusable.
    """
    if row.timestamp.year < 2018:
        raise Unusable("timestamp_before_2018")
    if row.timestamp > world.now:
        raise Unusable("timestamp_in_future")
    document = row.document if isinstance(row.document, dict) else {}
    missing = [
        value is None or (isinstance(value, str) and value.lower() == "nan")
        for value in (document.get("apy"), document.get("tvlUsd"))
    ]
    if all(missing):
        raise Unusable("apy_and_tvl_missing")
    apy, tvl = number(document.get("apy"), "apy"), number(document.get("tvlUsd"), "tvl")
    if apy is not None and abs(apy) > world.max_apy_percent:
        raise Unusable("apy_beyond_limit")
    if tvl is not None and tvl < 0:
        raise Unusable("tvl_negative")
    if tvl is not None and tvl > world.max_tvl_usd:
        raise Unusable("tvl_beyond_limit")
    return apy, tvl


def quarantine(world: World) -> dict[int, str]:
    """Return the reason of each row that must not be used, by row id."""
    reasons = {}
    for row in world.rows:
        try:
            values(row, world)
        except Unusable as reason:
            reasons[row.id] = str(reason)
    return reasons


def run_end(world: World) -> date | None:
    """Return the day after the last day that a run computes.

    It is the day after the newest raw day, at most today, and never before `reached`; None without
    rows of a complete day.
    """
    days = [
        row.timestamp.date()
        for row in (*world.rows, *world.stored.values())
        if row.timestamp.year >= 2018 and row.timestamp.date() < world.now.date()
    ]
    ends = [max(days) + DAY if days else None, world.reached]
    return max(filter(None, ends), default=None)


def placeholders(world: World, accepted: Iterable[RawRow]) -> list[RawRow]:
    """Return stored rows of days without an accepted row, unless the row still exists and is
    rejected.
    """
    days = {(row.pool_id, row.timestamp.date()) for row in accepted}
    there = {content(row) for row in world.rows}
    rows = []
    for day, row in world.stored.items():
        if day not in days and content(row) not in there:
            try:
                values(row, world)
            except Unusable:
                continue
            rows.append(row)
    return rows


def content(row: RawRow) -> tuple[str, datetime, str]:
    """Return what identifies a row regardless of its id."""
    return row.pool_id, row.timestamp, json.dumps(row.document)


def metrics(world: World) -> dict[tuple[str, date], dict[str, float | int | None]]:
    """Return the rows of pool_daily_metrics and value_staleness after a full run."""
    end = run_end(world)
    if end is None:
        return {}
    rejected = quarantine(world)
    table: dict[tuple[str, date], dict[str, float | int | None]] = {}
    accepted = [row for row in world.rows if row.id not in rejected]
    accepted += placeholders(world, accepted)
    for pool in sorted({row.pool_id for row in accepted}):
        snapshots = [row for row in accepted if row.pool_id == pool and row.timestamp.date() < end]
        days = _pool(
            sorted(snapshots, key=lambda row: (row.timestamp, row.id)),
            pool not in world.inactive,
            end,
            world,
        )
        prices = market(world, days)
        table |= {(pool, day): {**row, **prices[day]} for day, row in days.items()}
    return table


def market(world: World, days: Iterable[date]) -> dict[date, dict[str, float | None]]:
    """Return prices and gas by day, from values that each day could know."""
    eth, btc, gas = _closes(world, "ETH"), _closes(world, "BTC"), _gas(world)
    return {
        day: {
            "eth_open": _latest(eth, day - DAY),
            "btc_open": _latest(btc, day - DAY),
            "gas_price_gwei": _latest(gas, day),
        }
        for day in days
    }


def _pool(
    snapshots: Sequence[RawRow], alive: bool, end: date, world: World
) -> dict[date, dict[str, float | int | None]]:
    if not snapshots:
        return {}
    observed = {row.timestamp.date(): values(row, world) for row in snapshots}
    first, last = min(observed), end - DAY if alive else max(observed)
    calendar = [first + number * DAY for number in range((last - first).days + 1)]
    apy = {day: _carried(observed, day, 0, world.max_fill_days) for day in calendar}
    tvl = {day: _carried(observed, day, 1, world.max_fill_days) for day in calendar}
    apys = {day: value for day, (value, _) in apy.items()}
    return {day: _row(apy[day], tvl[day], apys, day) for day in calendar}


def _row(
    apy: tuple[float | None, int | None],
    tvl: tuple[float | None, int | None],
    apys: Mapping[date, float | None],
    day: date,
) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {
        "actual_apy": apy[0],
        "actual_tvl": tvl[0],
        "apy_staleness_days": apy[1],
        "tvl_staleness_days": tvl[1],
        "apy_delta_today_yesterday": _minus(apys[day], apys.get(day - DAY)),
    }
    for days in (7, 30):
        window, window_before = _window(apys, day, days), _window(apys, day - DAY, days)
        row[f"rolling_apy_{days}d"] = _mean(window)
        row[f"stddev_apy_{days}d"] = _deviation(window)
        row[f"stddev_apy_{days}d_delta"] = _minus(_deviation(window), _deviation(window_before))
    return row


def _carried(
    observed: Mapping[date, tuple[float | None, float | None]],
    day: date,
    which: int,
    max_fill_days: int,
) -> tuple[float | None, int | None]:
    for age in range(max_fill_days + 1):
        value = observed.get(day - age * DAY, (None, None))[which]
        if value is not None:
            return value, age
    return None, None


def _window(by_day: Mapping[date, float | None], day: date, days: int) -> list[float]:
    window = (by_day.get(day - back * DAY) for back in range(days))
    return [value for value in window if value is not None]


def _mean(window: list[float]) -> float | None:
    return float(np.mean(np.array(window))) if window else None


def _deviation(window: list[float]) -> float | None:
    return float(np.std(np.array(window), ddof=1)) if len(window) > 1 else None


def _minus(today: float | None, yesterday: float | None) -> float | None:
    return None if today is None or yesterday is None else today - yesterday


def _closes(world: World, symbol: str) -> dict[date, float]:
    closes = {}
    for (moment, symbol_of_price), value in sorted(world.prices.items(), key=lambda item: item[0]):
        try:
            close = number(value, "price")
        except Unusable:
            continue
        if symbol_of_price == symbol and close is not None and 0 < close <= world.max_price_usd:
            closes[moment.date()] = close
    return closes


def _gas(world: World) -> dict[date, float]:
    return {
        day: gas
        for day, gas in world.gas.items()
        if gas is not None and not math.isnan(gas) and 0 <= gas <= 1e6
    }


def _latest(by_day: Mapping[date, float], day: date) -> float | None:
    days = [known_day for known_day in by_day if known_day <= day]
    return by_day[max(days)] if days else None


def differences(
    actual: Mapping[Any, Mapping[str, Any]],
    expected: Mapping[Any, Mapping[str, Any]],
    columns: Iterable[str],
    *,
    absolute: float = 0.0,
    since: date = date.min,
) -> list[str]:
    """Describe the differences of two tables: missing and extra rows, NULL against a value, NaN
    (always), and values more than 1e-9 of the row's scale apart.

    Deviations and changes are differences of the window's values, so their rounding is relative to
    these. Rows before `since` are not compared.
    """
    columns = tuple(columns)
    keys = {key for key in expected if key[1] >= since}
    problems = [f"missing row {key}" for key in sorted(keys - actual.keys())] + [
        f"extra row {key}" for key in sorted(actual.keys() - keys)
    ]
    for key in sorted(keys & actual.keys()):
        for column in columns:
            left, right = actual[key][column], expected[key][column]
            if left is None and right is None:
                continue
            if left is None or right is None or math.isnan(left):
                problems.append(f"{key} {column}: {left} instead of {right}")
            elif not math.isclose(
                left,
                right,
                rel_tol=1e-9,
                abs_tol=max(absolute, 1e-9 * _scale(expected, key, column)),
            ):
                problems.append(f"{key} {column}: {left!r} instead of {right!r}")
    return problems


def differences_of_tables(
    table: Mapping[Any, Mapping[str, Any]], expected: Mapping[Any, Mapping[str, Any]]
) -> list[str]:
    """Compare stored values, which are rounded to at least four decimals (APY-like columns, prices)
    or two (TVL).
    """
    columns = set(chain.from_iterable(expected.values()))
    actual = {key: _as_floats(row, columns) for key, row in table.items()}
    rounded = [({"actual_tvl"}, 0.0051), (columns - {"actual_tvl"}, 0.000051)]
    problems = []
    for names, absolute in rounded:
        problems += differences(actual, expected, names, absolute=absolute)
    return problems


def _as_floats(row: Mapping[str, Any], columns: Iterable[str]) -> dict[str, float | None]:
    return {name: None if row[name] is None else float(row[name]) for name in columns}


def _scale(expected: Mapping[Any, Mapping[str, Any]], key: tuple[str, date], column: str) -> float:
    if "delta" not in column and "stddev" not in column and "rolling" not in column:
        return 0.0
    days = 31 if "30d" in column else 8
    window = (
        expected.get((key[0], key[1] - back * DAY), {}).get("actual_apy") for back in range(days)
    )
    return max((abs(value) for value in window if value is not None), default=0.0)
