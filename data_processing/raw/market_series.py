"""Reads and stores the market series: prices of ETH and BTC (USD) and gas (gwei) as each UTC day
knew them.

A day has the latest close before it and the latest gas up to it, as exact decimals; nothing is
taken from a later day. The series has a few thousand rows, so plain Python aligns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from config_spark import Settings
from data_processing.checks.row_checks import gas_checks, price_checks, validated
from database.schema.merge_sql import qualified
from database.schema.own_tables import market_series
from database.schema.owner_tables import gas_fees_daily, raw_prices

SYMBOLS = {"ETH": "eth_open", "BTC": "btc_open"}

SERIES = (*SYMBOLS.values(), "gas_price_gwei")

DECIMALS = Decimal("1e-8")
"""Scale of every price column. Values are rounded here, so that a stored value equals the computed
one.
"""

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class MarketDay:
    """Market values that are known on a day.

    Attributes:
        date: UTC day.
        eth_open: latest ETH close before the day, USD; None if unknown.
        btc_open: latest BTC close before the day, USD; None if unknown.
        gas_price_gwei: latest gas up to the day, gwei; None if unknown.
    """

    date: date
    eth_open: Decimal | None
    btc_open: Decimal | None
    gas_price_gwei: Decimal | None


def price_rows() -> str:
    """Return a SELECT of the closes of SYMBOLS: data_timestamp, symbol, close text, raw_json_data.

    Rows without a symbol are included, so that they are quarantined.
    """
    # compared in upper case: sources write symbols in either
    symbols = ", ".join(f"'{symbol}'" for symbol in SYMBOLS)
    return f"""
        SELECT data_timestamp,
            symbol,
            raw_json_data -> 'USD' ->> 'close' AS close,
            raw_json_data
        FROM {qualified(raw_prices)}
        WHERE upper(symbol) IN ({symbols})
            OR symbol IS NULL"""


def gas_rows() -> str:
    """Return a SELECT of the gas table: date, gas as text."""
    return f"SELECT date, actual_avg_gas_gwei::text AS gas FROM {qualified(gas_fees_daily)}"


def validated_prices(settings: Settings, now: datetime) -> str:
    """Return a SELECT of data_timestamp, symbol, raw_json_data, close, close_value and reason.

    Args:
        settings: limits and severities.
        now: clock of the run, UTC; a later row is in the future.
    """
    return validated(
        price_rows(),
        others=("data_timestamp", "symbol", "raw_json_data"),
        texts=("close",),
        checks=price_checks(settings, now),
    )


def validated_gas(settings: Settings, now: datetime) -> str:
    """Return a SELECT of date, gas, gas_value and reason.

    Args:
        settings: limits and severities.
        now: clock of the run, UTC; gas of a later day is in the future.
    """
    return validated(gas_rows(), others=("date",), texts=("gas",), checks=gas_checks(settings, now))


def read_market_series(
    connection: Connection, settings: Settings, start: date, end: date
) -> tuple[MarketDay, ...]:
    """Read the series of the days [start, end) from the accepted rows of both tables.

    Args:
        connection: reads prices and gas.
        settings: limits and severities.
        start: first day, UTC.
        end: end of the days, exclusive.

    Returns:
        One element for each day. The close of a day is its last accepted one.
    """
    # later rows do not matter, and PostgreSQL stores dates that Python does not have
    until = datetime.combine(end, time(), UTC)
    closes: dict[str, dict[date, Decimal]] = {symbol: {} for symbol in SYMBOLS}
    prices = connection.exec_driver_sql(f"""
    SELECT upper(p.symbol) AS symbol,
        (data_timestamp AT TIME ZONE 'UTC')::date AS date,
        close::numeric AS close
    FROM ({validated_prices(settings, until)}) AS p
    WHERE reason IS NULL
    ORDER BY data_timestamp, p.symbol""")
    for row in prices:
        # in order of time: the last close of a day replaces the earlier ones
        closes[row.symbol][row.date] = row.close
    gas = connection.exec_driver_sql(f"""
    SELECT date, gas::numeric AS gas
    FROM ({validated_gas(settings, until)}) AS g
    WHERE reason IS NULL
        AND gas IS NOT NULL""")
    return align_by_day(closes, {row.date: row.gas for row in gas}, start, end)


def align_by_day(
    closes: Mapping[str, Mapping[date, Decimal]],
    gas: Mapping[date, Decimal],
    start: date,
    end: date,
) -> tuple[MarketDay, ...]:
    """Align prices and gas to the days [start, end).

    Args:
        closes: USD by UTC day, for each symbol.
        gas: gwei by UTC day.
        start: first day.
        end: end of the days, exclusive.

    Returns:
        For each day d the latest close of a day before d, and the latest gas of a day up to d.
    """
    days = [start + number * ONE_DAY for number in range((end - start).days)]
    prices = []
    for symbol in SYMBOLS:
        # a close is known from the next day on
        known_from = {day + ONE_DAY: close for day, close in closes[symbol].items()}
        prices.append(_latest(known_from, days))
    return tuple(MarketDay(*row) for row in zip(days, *prices, _latest(gas, days), strict=True))


def _latest(known_from: Mapping[date, Decimal], days: Sequence[date]) -> list[Decimal | None]:
    """Return for each of the ascending `days` the value with the latest key up to it."""
    # the earliest value is at the end, from where `pop` takes it
    pending = sorted(known_from.items(), reverse=True)
    values: list[Decimal | None] = []
    value: Decimal | None = None
    for day in days:
        while pending and pending[-1][0] <= day:
            value = pending.pop()[1].quantize(DECIMALS)
        values.append(value)
    return values


def stored_market_series(connection: Connection) -> dict[date, MarketDay]:
    """Return the series that the last run used, by day."""
    columns = [market_series.c[field.name] for field in fields(MarketDay)]
    days = (MarketDay(*row) for row in connection.execute(select(*columns)))
    return {day.date: day for day in days}


@dataclass(frozen=True)
class MarketChange:
    """The first day whose market values differ from those that the last run used.

    Attributes:
        date: UTC day.
        reason: names the changed source row, as a reason of the plan.
    """

    date: date
    reason: str


def first_change(
    stored: Mapping[date, MarketDay], series: Sequence[MarketDay], before: date
) -> MarketChange | None:
    """Return the first difference from the series that the last run used.

    Args:
        stored: series of the last run, by day.
        series: series of this run.
        before: end of the days to compare, exclusive.

    Returns:
        The first changed day, or None.
    """
    changed = (day for day in series if day.date < before and stored.get(day.date) != day)
    day = next(changed, None)
    if day is None:
        return None
    before_change = stored.get(day.date)
    symbols = [
        symbol
        for symbol, name in SYMBOLS.items()
        if getattr(before_change, name, None) != getattr(day, name)
    ]
    # one of several changed values is enough as a reason
    source = f"{symbols[0]} price of {day.date - ONE_DAY}" if symbols else f"gas of {day.date}"
    return MarketChange(day.date, f"{source} changed")


def store_market_series(connection: Connection, series: Sequence[MarketDay]) -> None:
    """Store the series that this run used.

    Args:
        connection: the run's transaction.
        series: days to store; other stored days stay.
    """
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


def invalidate_market_series(
    connection: Connection, series: Sequence[MarketDay], start: date
) -> None:
    """Delete the stored days that a partial run computed from other values than the stored ones.

    Some metrics of these days come from the stored value and some from the new one.

    Args:
        connection: the run's transaction.
        series: series that the run used.
        start: first day that the run wrote.
    """
    stored = stored_market_series(connection)
    # a day that is not stored has no other value to be mixed with
    mixed = [day.date for day in series if day.date >= start and stored.get(day.date, day) != day]
    if mixed:
        connection.execute(delete(market_series).where(market_series.c.date.in_(mixed)))
