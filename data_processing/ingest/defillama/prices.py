"""Daily closes of ETH and BTC from DefiLlama into `raw_coinmarketcap_ohlcv`.

In: a client, the pools of a pull, the first UTC day wanted, today. Out: a close (USD) at 00:00 UTC
of each finished day from the day before the pools' first one on.
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
from data_processing.ingest.stored_rows import rows_not_taken
from database.connections.engine import checked_connection
from database.schema.catalog import has_triggers
from database.schema.tables import raw_pool_history, raw_prices

COINS = {"coingecko:ethereum": "ETH", "coingecko:bitcoin": "BTC"}

DAYS_A_REQUEST = MAX_PRICE_POINTS // len(COINS)

FIRST_PRICE_DAY = date(2018, 1, 1)
"""Years before DefiLlama's first yield: what a history with a wrong date may ask for at most."""


def pull_closes(
    engine: Engine, client: DefiLlama, pool_ids: Sequence[str], since: date | None, today: date
) -> Iterator[int]:
    """Store the closes of the days before `today`, a request and a transaction at a time.

    Yields: the closes written. Raises: InputError and SourceUnavailable, as the client does,
    CheckFailed where the table did not take a close, and DatabaseError.
    """
    day = _first_day(engine, pool_ids, since)
    while day is not None and day < today:
        days = min(DAYS_A_REQUEST, (today - day).days)
        start = datetime.combine(day, datetime.min.time(), UTC) + CLOSE_ASKED_AT
        found = client.prices(
            list(COINS),
            start=int(start.timestamp()),
            days=days,
            search_width=CLOSE_SEARCH_WIDTH,
        )
        with checked_connection(engine) as connection:
            written = sum(
                _merge(connection, COINS[coin], closes(points, today))
                for coin, points in found.items()
            )
        yield written
        day += ONE_DAY * days


def _first_day(engine: Engine, pool_ids: Sequence[str], since: date | None) -> date | None:
    """The day before the first one a pool of the pull has: a day's price is the close before it.
    None where there is no day.
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


def _merge(connection: Connection, symbol: str, found: dict[date, Decimal]) -> int:
    if not found:
        return 0
    rows = {"symbol": symbol, "days": list(found), "closes": list(found.values())}
    written = connection.execute(text(defillama_sql.MERGE_CLOSES), rows).rowcount
    if has_triggers(connection, raw_prices):
        missing = connection.execute(text(defillama_sql.COUNT_MISSING_CLOSES), rows).scalar_one()
        if missing:
            raise rows_not_taken(raw_prices, missing, f"the closes of {symbol}", INGEST_AGAIN)
    return written
