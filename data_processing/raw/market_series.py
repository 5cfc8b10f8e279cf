"""ETH, BTC and gas as each day knew them.

In: daily closes (USD) and daily average gas (gwei) as the database holds them. Out: for each UTC
day the latest close before it and the latest gas up to it, as exact decimals. Nothing is ever taken
from a later day. A few thousand rows: plain Python makes them, the run stores what it used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from config_spark import Settings
from data_processing.checks.row_checks import gas_checks, judged, price_checks
from database.schema.merge_sql import qualified
from database.schema.tables import gas_fees_daily, market_series, raw_prices

SYMBOLS = {"ETH": "eth_open", "BTC": "btc_open"}

SERIES = (*SYMBOLS.values(), "gas_price_gwei")

DECIMALS = Decimal("1e-8")
"""The scale of every price column: rounded here, so that a stored value equals the computed one."""

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class MarketDay:
    """What day `date` knew: prices in USD, gas in gwei, None where nothing is known yet."""

    date: date
    eth_open: Decimal | None
    btc_open: Decimal | None
    gas_price_gwei: Decimal | None


def price_rows() -> str:
    """SELECT of the closes that matter, or might: data_timestamp, symbol, close as text,
    raw_json_data.
    """
    symbols = ", ".join(f"'{symbol}'" for symbol in SYMBOLS)
    return (
        "SELECT data_timestamp, symbol, raw_json_data -> 'USD' ->> 'close' AS close, raw_json_data"
        f" FROM {qualified(raw_prices)} WHERE upper(symbol) IN ({symbols}) OR symbol IS NULL"
    )


def gas_rows() -> str:
    """SELECT of the gas table: date, gas as text."""
    return f"SELECT date, actual_avg_gas_gwei::text AS gas FROM {qualified(gas_fees_daily)}"


def judged_prices(settings: Settings, now: datetime) -> str:
    """SELECT of data_timestamp, symbol, raw_json_data, close, close_value, reason (NULL for a good
    row); a row of after `now` (UTC) is none yet.
    """
    return judged(
        price_rows(),
        others=("data_timestamp", "symbol", "raw_json_data"),
        texts=("close",),
        checks=price_checks(settings, now),
    )


def judged_gas(settings: Settings, now: datetime) -> str:
    """SELECT of date, gas, gas_value, reason (NULL for a good row); gas of a day after `now` (UTC)
    is none yet.
    """
    return judged(gas_rows(), others=("date",), texts=("gas",), checks=gas_checks(settings, now))


def read_market_series(
    connection: Connection, settings: Settings, start: date, end: date
) -> tuple[MarketDay, ...]:
    """The series of the days [start, end) from the good rows of both tables; a day's close is its
    last good one.

    Rows behind `end` can't matter to it, and PostgreSQL stores days that Python has not.
    """
    until = datetime.combine(end, time(), UTC)
    closes: dict[str, dict[date, Decimal]] = {symbol: {} for symbol in SYMBOLS}
    prices = (
        "SELECT upper(judged.symbol) AS symbol, (data_timestamp AT TIME ZONE 'UTC')::date AS date,"
        f" close::numeric AS close FROM ({judged_prices(settings, until)}) AS judged WHERE reason"
        " IS NULL ORDER BY data_timestamp, judged.symbol"
    )
    for row in connection.exec_driver_sql(prices):
        closes[row.symbol][row.date] = row.close
    gas = connection.exec_driver_sql(
        f"SELECT date, gas::numeric AS gas FROM ({judged_gas(settings, until)}) AS judged WHERE"
        " reason IS NULL AND gas IS NOT NULL"
    )
    return known_by_day(closes, {row.date: row.gas for row in gas}, start, end)


def known_by_day(
    closes: Mapping[str, Mapping[date, Decimal]],
    gas: Mapping[date, Decimal],
    start: date,
    end: date,
) -> tuple[MarketDay, ...]:
    """For each day d of [start, end): the latest close of a day before d, and the latest gas of a
    day up to d.
    """
    days = [start + number * ONE_DAY for number in range((end - start).days)]
    prices = [
        _latest({day + ONE_DAY: close for day, close in closes[symbol].items()}, days)
        for symbol in SYMBOLS
    ]
    return tuple(MarketDay(*row) for row in zip(days, *prices, _latest(gas, days), strict=True))


def _latest(known_from: Mapping[date, Decimal], days: Sequence[date]) -> list[Decimal | None]:
    """For each of the ascending `days` the value with the latest key up to it."""
    pending = sorted(known_from.items(), reverse=True)
    values: list[Decimal | None] = []
    value: Decimal | None = None
    for day in days:
        while pending and pending[-1][0] <= day:
            value = pending.pop()[1].quantize(DECIMALS)
        values.append(value)
    return values


def stored_market_series(connection: Connection) -> dict[date, MarketDay]:
    """The series as the last run used it, by day."""
    return {
        row.date: MarketDay(**row._mapping) for row in connection.execute(select(market_series))
    }


@dataclass(frozen=True)
class MarketChange:
    """The first day of the series that is no longer as the last run used it, and which source row
    made it so, in words.
    """

    date: date
    reason: str


def first_change(
    stored: Mapping[date, MarketDay], series: Sequence[MarketDay], before: date
) -> MarketChange | None:
    """Where `series` first differs, on a day ahead of `before`, from what the last run used."""
    day = next((day for day in series if day.date < before and stored.get(day.date) != day), None)
    if day is None:
        return None
    known = stored.get(day.date)
    symbols = [
        symbol
        for symbol, name in SYMBOLS.items()
        if getattr(known, name, None) != getattr(day, name)
    ]
    source = f"{symbols[0]} price of {day.date - ONE_DAY}" if symbols else f"gas of {day.date}"
    return MarketChange(day.date, f"{source} changed")


def store_market_series(connection: Connection, series: Sequence[MarketDay]) -> None:
    """Make the table say what this run used, for the days of `series`; other days stay."""
    stored = stored_market_series(connection)
    changed = [vars(day) for day in series if stored.get(day.date) != day]
    if changed:
        new = insert(market_series)
        connection.execute(
            new.on_conflict_do_update(
                index_elements=["date"], set_={name: new.excluded[name] for name in SERIES}
            ),
            changed,
        )


def forget_market_series(connection: Connection, series: Sequence[MarketDay], start: date) -> None:
    """Take out the days from `start` on that a partial run made from other values than the table
    says: some rows have the one, some the other.
    """
    stored = stored_market_series(connection)
    mixed = [day.date for day in series if day.date >= start and stored.get(day.date, day) != day]
    if mixed:
        connection.execute(delete(market_series).where(market_series.c.date.in_(mixed)))
