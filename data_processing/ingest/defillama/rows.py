"""Converts DefiLlama's answers to rows of the raw tables: pure functions, no network, no database.

Selects pools, returns snapshots and daily closes, and names the points that can't be stored with a
reason. APY percent, TVL and prices USD.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from common.errors import InputError

ONE_DAY = timedelta(days=1)

CLOSE_ASKED_AT = timedelta(hours=23, minutes=30)
"""DefiLlama returns the stored price nearest to the requested time: every few minutes for recent
days, every hour for old ones. The price nearest to 23:30 is always in the last hour of its day; the
one nearest to midnight is the next day's every other time.
"""

CLOSE_SEARCH_WIDTH = "30m"

LAST_HOUR = timedelta(hours=1)

MAX_DESCRIPTIVE = 1e15
"""Larger values of TVL and APY in `pools`, which only describe, are left out: numeric(20,4) would
reject the row.
"""

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_INSTANTS = datetime(9999, 1, 1, tzinfo=UTC)
"""Timestamps outside are typing errors, and the days around them would leave the calendar of
Python.
"""

WEEK_WITHOUT_DAY = re.compile("[0-9]{4}-?W[0-9]{2}(?![-0-9])")
"""Python reads such a week as its Monday."""

NOT_IN_JSONB = re.compile("[\x00\ud800-\udfff]")
"""NUL and lone surrogates: JSON can write them, PostgreSQL's jsonb rejects the document."""


@dataclass(frozen=True)
class RejectedPoint:
    """A point that the raw table can't store.

    Attributes:
        position: position in the chart, from 0.
        reason: name of a check.
        document: the point as JSON.
    """

    position: int
    reason: str
    document: str


@dataclass
class Snapshots:
    """A pool's chart as rows.

    Attributes:
        timestamps: UTC.
        documents: JSON of each snapshot, in the same order.
        refused: points that can't be stored.
    """

    timestamps: list[datetime] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    refused: list[RejectedPoint] = field(default_factory=list)


def select_pools(
    listed: Sequence[Mapping[str, Any]], *, min_tvl_usd: float | None, stablecoins: bool
) -> list[str]:
    """Select listed pools.

    Args:
        listed: DefiLlama's list of pools.
        min_tvl_usd: smallest TVL, USD; None for any.
        stablecoins: select stablecoin pools only.

    Returns:
        Pool ids, the largest TVL first.

    Raises:
        InputError: no pool is left.
    """
    tvl_by_pool: dict[str, float] = {}
    for pool in listed:
        tvl_usd = number(pool.get("tvlUsd")) or 0.0
        is_large = min_tvl_usd is None or tvl_usd >= min_tvl_usd
        if is_large and (not stablecoins or pool.get("stablecoin") is True):
            tvl_by_pool[str(pool["pool"])] = tvl_usd
    if not tvl_by_pool:
        criteria = [f"a TVL of at least {min_tvl_usd:,.0f} USD"] if min_tvl_usd is not None else []
        criteria += ["stablecoins only"] if stablecoins else []
        raise InputError(
            f"none of the {len(listed):,} pools DefiLlama lists has"
            f" {' and '.join(criteria) or 'an id'}. Choose wider, e.g. a lower --min-tvl"
        )
    # by id within a TVL: the same order in every run
    return sorted(tvl_by_pool, key=lambda pool_id: (-tvl_by_pool[pool_id], pool_id))


def number(value: object) -> float | None:
    """Return a finite JSON number as float, None for anything else."""
    # true and false are integers in Python
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    # an integer of JSON may be larger than any double
    except OverflowError:
        return None


def description(pool: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of `pools` for a listed pool; None if DefiLlama has no value.

    Args:
        pool: entry of DefiLlama's list.
    """
    texts = {key: _text(pool.get(key)) for key in ("chain", "project", "symbol", "poolMeta")}
    name = " ".join(filter(None, (texts["project"], texts["symbol"], texts["poolMeta"])))
    # contract addresses, not symbols
    tokens = pool.get("underlyingTokens")
    addresses = None
    if isinstance(tokens, list):
        addresses = [_text(token) for token in tokens if _text(token)] or None
    tvl = _descriptive(pool.get("tvlUsd"))
    return {
        "name": name or None,
        "chain": texts["chain"],
        "protocol": texts["project"],
        "symbol": texts["symbol"],
        "poolmeta": texts["poolMeta"],
        "tvl": tvl if tvl is not None and tvl >= 0 else None,
        "apy": _descriptive(pool.get("apy")),
        "underlying_token_addresses": addresses,
    }


def _descriptive(value: object) -> float | None:
    finite = number(value)
    return finite if finite is not None and abs(finite) < MAX_DESCRIPTIVE else None


def _text(value: object) -> str | None:
    return NOT_IN_JSONB.sub("\ufffd", value) if isinstance(value, str) and value.strip() else None


def snapshots(chart: Sequence[Any], since: date | None) -> Snapshots:
    """Convert a chart to timestamps and JSON.

    Args:
        chart: points of a pool, as DefiLlama sends them.
        since: leave out points before this UTC day.

    Returns:
        Snapshots; a point without a usable timestamp is refused.
    """
    rows = Snapshots()
    for position, point in enumerate(chart):
        moment = instant(point.get("timestamp")) if isinstance(point, dict) else None
        if moment is None:
            reason = "timestamp_unusable" if isinstance(point, dict) else "not_an_object"
            rows.refused.append(RejectedPoint(position, reason, as_jsonb(point)))
        elif since is None or moment.date() >= since:
            rows.timestamps.append(moment)
            rows.documents.append(as_jsonb(point))
    return rows


def instant(value: object) -> datetime | None:
    """Parse a timestamp: ISO 8601 text (UTC without a zone) or unix seconds.

    Args:
        value: a JSON value.

    Returns:
        A UTC timestamp in [FIRST_INSTANT, END_OF_INSTANTS); None for anything else.
    """
    try:
        if isinstance(value, str):
            if WEEK_WITHOUT_DAY.match(value.strip()):
                return None
            moment = datetime.fromisoformat(value.strip())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        else:
            seconds = number(value)
            # NaN raises ValueError, as a number out of range does
            moment = datetime.fromtimestamp(math.nan if seconds is None else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if FIRST_INSTANT <= moment < END_OF_INSTANTS else None


def as_jsonb(value: object) -> str:
    """Return JSON text that jsonb accepts; characters that it rejects become the replacement
    character.
    """
    return json.dumps(_storable(value), allow_nan=False)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return NOT_IN_JSONB.sub("\ufffd", value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {NOT_IN_JSONB.sub("\ufffd", key): _storable(item) for key, item in value.items()}
    return value


def closes(points: Sequence[Any], today: date) -> dict[date, Decimal]:
    """Return the close of each UTC day before `today`.

    The close is the last price of the day's last hour, where 24:00 belongs to the day that it ends.
    A price stamped 00:00 is therefore the close of the day before. Other prices are no closes and
    are left out.

    Args:
        points: {timestamp, price} as DefiLlama sends them.
        today: first day that is not over.

    Returns:
        USD by day.
    """
    last: dict[date, tuple[datetime, Decimal]] = {}
    for point in points:
        if not isinstance(point, dict):
            continue
        moment, price = instant(point.get("timestamp")), number(point.get("price"))
        if moment is None or price is None or price <= 0:
            continue
        # a microsecond before the instant is in the day that the instant ends or is part of
        day = (moment - timedelta(microseconds=1)).date()
        midnight = datetime.combine(day, datetime.min.time(), UTC) + ONE_DAY
        is_close = moment >= midnight - LAST_HOUR and day < today
        if is_close and (day not in last or moment > last[day][0]):
            # repr: the decimal as the API wrote it, not the bits of the double
            last[day] = (moment, Decimal(repr(price)))
    return {day: price for day, (_, price) in sorted(last.items())}
