"""Prices and gas by day: always the past, never the future, bad rows left out, and the day from which they changed."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.market_series import (
    MarketChange,
    MarketDay,
    first_change,
    known_by_day,
    market_columns,
    read_market_series,
    store_market_series,
    stored_market_series,
)
from tests.metrics_store import execute, rows_of

FIRST = date(2024, 1, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def price(engine: Engine, at: str, close: str, symbol: str = "ETH") -> None:
    execute(
        engine,
        "INSERT INTO raw_coinmarketcap_ohlcv VALUES (CAST(:at AS timestamptz), :symbol, CAST(:document AS jsonb))",
        at=at,
        symbol=symbol,
        document=f'{{"USD": {{"close": {close}}}}}',
    )


def test_a_day_knows_the_closes_before_it_and_the_gas_up_to_it() -> None:
    closes = {"ETH": {day(-300): Decimal(7), day(1): Decimal(10), day(3): Decimal(30)}, "BTC": {}}
    series = known_by_day(closes, {day(2): Decimal("1.5")}, day(0), day(5))
    assert [one.eth_open for one in series] == [7, 7, 10, 10, 30]
    assert [one.btc_open for one in series] == [None] * 5
    assert [one.gas_price_gwei for one in series] == [None, None, Decimal("1.5"), Decimal("1.5"), Decimal("1.5")]


def test_the_series_takes_each_days_last_good_close(database: Settings, engine: Engine) -> None:
    for at, close in (
        ("2024-01-01 10:00+00", "1"),
        ("2024-01-01 23:59:59+00", '"2.5"'),
        ("2024-01-02 23:00+00", '"NaN"'),
        ("2024-01-03 01:00+00", "-1"),
    ):
        price(engine, at, close)
    for at, close in (("2024-01-03 02:00+00", '"?"'), ("2024-01-03 23:30-02", "4"), ("infinity", "9"), ("2024-01-02 00:00+00", "1e300")):
        price(engine, at, close)
    price(engine, "2024-01-01 00:00+00", "42000.123456789", symbol="btc")
    price(engine, "2024-01-01 00:00+00", "1", symbol="DOGE")
    execute(
        engine,
        "INSERT INTO gas_fees_daily VALUES ('2024-01-02', 20), ('2024-01-03', 'NaN'), ('2024-01-04', -1), ('2024-01-05', NULL)",
    )
    with engine.connect() as connection:
        series = read_market_series(connection, database, day(0), day(6))
    assert [one.eth_open for one in series] == [None, Decimal("2.5"), Decimal("2.5"), Decimal("2.5"), Decimal(4), Decimal(4)]
    assert series[3].btc_open == Decimal("42000.12345679")
    assert [one.gas_price_gwei for one in series] == [None, 20, 20, 20, 20, 20]


def test_stored_series_tells_the_first_changed_day(engine: Engine) -> None:
    series = known_by_day({"ETH": {day(0): Decimal("0.123456785")}, "BTC": {day(1): Decimal(1)}}, {}, day(0), day(4))
    with engine.begin() as connection:
        store_market_series(connection, series)
        store_market_series(connection, series)
        stored = stored_market_series(connection)
    assert tuple(stored.values()) == series
    longer = known_by_day({"ETH": {day(0): Decimal("0.123456785")}, "BTC": {day(1): Decimal(1), day(2): Decimal(2)}}, {}, day(0), day(6))
    assert first_change(stored, longer, before=day(4)) == MarketChange(day(3), f"BTC price of {day(2)} changed")
    assert first_change(stored, longer, before=day(3)) is None
    gas = known_by_day({"ETH": {day(0): Decimal("0.123456785")}, "BTC": {day(1): Decimal(1)}}, {day(1): Decimal(9)}, day(0), day(4))
    assert first_change(stored, gas, before=day(4)) == MarketChange(day(1), f"gas of {day(1)} changed")
    assert rows_of(engine, "SELECT count(*) AS n FROM yieldspark.market_series") == [{"n": 4}]


def test_days_outside_the_series_have_no_prices() -> None:
    market = market_columns([MarketDay(day(1), Decimal("2.5"), None, Decimal(7))])
    known = market.of(np.arange(market.first_day - 1, market.first_day + 2))
    nan = pytest.approx(np.nan, nan_ok=True)
    assert {name: list(values) for name, values in known.items()} == {
        "eth_open": [nan, 2.5, nan],
        "btc_open": [nan, nan, nan],
        "gas_price_gwei": [nan, 7.0, nan],
    }
    assert np.isnan(market_columns(()).of(np.arange(3))["eth_open"]).all()
