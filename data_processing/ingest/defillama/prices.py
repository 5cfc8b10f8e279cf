"""Stores the daily closes of ETH and BTC from DefiLlama in `raw_coinmarketcap_ohlcv`.

A close (USD) is stored at 00:00 UTC of its day, for each finished day from the day before the
pools' first one on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine, func, select, text

from data_processing.ingest.defillama import sql as defillama_sql
from data_processing.ingest.defillama.client import MAX_PRICE_POINTS, DefiLlama
from data_processing.ingest.defillama.pool import INGEST_AGAIN
from data_processing.ingest.defillama.rows import (
    CLOSE_ASKED_AT,
    CLOSE_SEARCH_WIDTH,
    ONE_DAY,
    closes,
)
from data_processing.ingest.stored_rows import missing_rows_error
from database.connections.engine import checked_connection
from database.schema.catalog import has_triggers
from database.schema.owner_tables import raw_pool_history, raw_prices

COINS = {"coingecko:ethereum": "ETH", "coingecko:bitcoin": "BTC"}

DAYS_A_REQUEST = MAX_PRICE_POINTS // len(COINS)

FIRST_PRICE_DAY = date(2018, 1, 1)
"""Years before DefiLlama's first yield: limits the days that a history with a wrong date requests.
"""


def pull_closes(
    engine: Engine, client: DefiLlama, pool_ids: Sequence[str], since: date | None, today: date
) -> Iterator[int]:
    """Store the closes of the days before `today`, one request and one transaction at a time.

    Args:
        engine: the database.
        client: DefiLlama's API.
        pool_ids: pools of the run.
        since: first UTC day of the run; None for all.
        today: first day that is not over.

    Yields:
        Number of closes written.

    Raises:
        InputError: the API's answer is wrong.
        SourceUnavailable: the API does not answer.
        CheckFailed: the table lacks a close afterwards.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    day = _first_day(engine, pool_ids, since)
    while day is not None and day < today:
        days = min(DAYS_A_REQUEST, (today - day).days)
        start = datetime.combine(day, datetime.min.time(), UTC) + CLOSE_ASKED_AT
        points_by_coin = client.prices(
            list(COINS),
            start=int(start.timestamp()),
            days=days,
            search_width=CLOSE_SEARCH_WIDTH,
        )
        with checked_connection(engine) as connection:
            written = sum(
                _merge(connection, COINS[coin], closes(points, today))
                for coin, points in points_by_coin.items()
            )
        # after the commit: an interrupt between two requests loses none of them
        yield written
        day += ONE_DAY * days


def _first_day(engine: Engine, pool_ids: Sequence[str], since: date | None) -> date | None:
    """Return the day before the pools' first one, whose close is their first price; None without a
    day.
    """
    first = (
        select(raw_pool_history.c.timestamp)
        .where(
            raw_pool_history.c.pool_id.in_(pool_ids),
            # a timestamp outside the calendar of Python can't be read at all
            raw_pool_history.c.timestamp >= FIRST_PRICE_DAY,
            raw_pool_history.c.timestamp < func.now() + ONE_DAY,
        )
        .order_by(raw_pool_history.c.timestamp)
        .limit(1)
    )
    with checked_connection(engine) as connection:
        moment: datetime | None = connection.execute(first).scalars().first()
    if moment is None:
        return None
    day = max(since, moment.date()) if since else moment.date()
    return max(FIRST_PRICE_DAY + ONE_DAY, day) - ONE_DAY


def _merge(connection: Connection, symbol: str, closes_by_day: dict[date, Decimal]) -> int:
    if not closes_by_day:
        return 0
    parameters = {
        "symbol": symbol,
        "days": list(closes_by_day),
        "closes": list(closes_by_day.values()),
    }
    written = connection.execute(text(defillama_sql.MERGE_CLOSES), parameters).rowcount
    # only a trigger can drop a row of the merge
    if has_triggers(connection, raw_prices):
        missing = connection.execute(
            text(defillama_sql.COUNT_MISSING_CLOSES), parameters
        ).scalar_one()
        if missing:
            raise missing_rows_error(raw_prices, missing, f"the closes of {symbol}", INGEST_AGAIN)
    return written
