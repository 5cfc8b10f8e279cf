"""DefiLlama's answers as rows of the raw tables: pure functions, no network, no database.

In: lists and dicts as the JSON has them. Out: chosen pools, snapshots, daily closes, and what can't
be stored with its reason. Units: APY percent, TVL and prices USD.
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
"""DefiLlama keeps a price every few minutes now and every hour long ago, and answers with the one
nearest to the time asked for. The one nearest to 23:30 is of that day's last hour, whichever it is;
the one nearest to midnight would be tomorrow's every other time.
"""

CLOSE_SEARCH_WIDTH = "30m"

LAST_HOUR = timedelta(hours=1)

MAX_DESCRIPTIVE = 1e15
"""Beyond this a TVL or an APY of `pools`, which describe and are never computed with, is left out:
numeric(20,4) would refuse the row.
"""

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_INSTANTS = datetime(9999, 1, 1, tzinfo=UTC)
"""Instants outside are typing errors, and the days around them would leave the calendar."""

NOT_IN_JSONB = re.compile("[\x00\ud800-\udfff]")
"""NUL and lone surrogates: JSON can write them, PostgreSQL's jsonb refuses the document."""


@dataclass(frozen=True)
class Refused:
    """A point that the raw table can't hold: why, where in the chart (from 0), and the point as
    JSON.
    """

    position: int
    reason: str
    document: str


@dataclass
class Snapshots:
    """A pool's chart as rows: instants and documents side by side."""

    timestamps: list[datetime] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def choose(
    listed: Sequence[Mapping[str, Any]], *, min_tvl_usd: float | None, stablecoins: bool
) -> list[str]:
    """Ids of the listed pools with at least that TVL (USD; null: any), stablecoin pools only where
    asked; the largest first.

    Raises: InputError where no pool is left.
    """
    kept = {
        str(pool["pool"]): number(pool.get("tvlUsd")) or 0.0
        for pool in listed
        if (min_tvl_usd is None or (number(pool.get("tvlUsd")) or 0.0) >= min_tvl_usd)
        and (not stablecoins or pool.get("stablecoin") is True)
    }
    if not kept:
        wanted = [f"a TVL of at least {min_tvl_usd:,.0f} USD"] if min_tvl_usd is not None else []
        wanted += ["stablecoins only"] if stablecoins else []
        raise InputError(
            f"none of the {len(listed):,} pools DefiLlama lists has"
            f" {' and '.join(wanted) or 'an id'}. Choose wider, e.g. a lower --min-tvl"
        )
    return sorted(kept, key=lambda pool_id: (-kept[pool_id], pool_id))


def number(value: object) -> float | None:
    """A finite JSON number as float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def description(pool: Mapping[str, Any]) -> dict[str, Any]:
    """What `pools` keeps of a listed pool; None where DefiLlama has nothing. Its underlyingTokens
    are contract addresses, not symbols.
    """
    words = {key: _text(pool.get(key)) for key in ("chain", "project", "symbol", "poolMeta")}
    tokens = pool.get("underlyingTokens")
    return {
        "name": (
            " ".join(filter(None, (words["project"], words["symbol"], words["poolMeta"]))) or None
        ),
        "chain": words["chain"],
        "protocol": words["project"],
        "symbol": words["symbol"],
        "poolmeta": words["poolMeta"],
        "tvl": _descriptive(pool.get("tvlUsd")),
        "apy": _descriptive(pool.get("apy")),
        "underlying_token_addresses": (
            [_text(token) for token in tokens if _text(token)] or None
            if isinstance(tokens, list)
            else None
        ),
    }


def _descriptive(value: object) -> float | None:
    found = number(value)
    return found if found is not None and abs(found) < MAX_DESCRIPTIVE else None


def _text(value: object) -> str | None:
    return NOT_IN_JSONB.sub("\ufffd", value) if isinstance(value, str) and value.strip() else None


def snapshots(chart: Sequence[Any], since: date | None) -> Snapshots:
    """Each point's instant and its JSON as it came. Points before the UTC day `since` are left out;
    a point without a usable timestamp is refused.
    """
    rows = Snapshots()
    for position, point in enumerate(chart):
        moment = instant(point.get("timestamp")) if isinstance(point, dict) else None
        if moment is None:
            reason = "timestamp_unusable" if isinstance(point, dict) else "not_an_object"
            rows.refused.append(Refused(position, reason, as_jsonb(point)))
        elif since is None or moment.date() >= since:
            rows.timestamps.append(moment)
            rows.documents.append(as_jsonb(point))
    return rows


def instant(value: object) -> datetime | None:
    """ISO 8601 text (without a zone: UTC) or unix seconds as a UTC instant from FIRST_INSTANT on;
    None for anything else.
    """
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
            found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        else:
            seconds = number(value)
            found = datetime.fromtimestamp(math.nan if seconds is None else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if FIRST_INSTANT <= found < END_OF_INSTANTS else None


def as_jsonb(value: object) -> str:
    """JSON text that jsonb takes; what it can't hold becomes the replacement character."""
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
    """The close (USD) of each UTC day before `today`: the last price of the day's last hour, where
    24:00 still belongs to the day it ends.

    So the price stamped 00:00 is the close of the day before, nothing later is, and an unfinished
    day has none. Other prices are no closes and are left out.
    """
    last: dict[date, tuple[datetime, Decimal]] = {}
    for point in points:
        moment, price = (
            (instant(point.get("timestamp")), number(point.get("price")))
            if isinstance(point, dict)
            else (None, None)
        )
        if moment is None or price is None or price <= 0:
            continue
        # a microsecond before the instant is in the day that the instant ends or lies in
        midnight = (
            datetime.combine((moment - timedelta(microseconds=1)).date(), datetime.min.time(), UTC)
            + ONE_DAY
        )
        day = (midnight - ONE_DAY).date()
        if (
            moment >= midnight - LAST_HOUR
            and day < today
            and (day not in last or moment > last[day][0])
        ):
            last[day] = (moment, Decimal(repr(price)))
    return {day: price for day, (_, price) in sorted(last.items())}
