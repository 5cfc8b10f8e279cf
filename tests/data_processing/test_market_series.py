"""Tests prices and gas by day: no day uses a later one, invalid rows are left out, and the first
changed day is detected.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.commit.rejected_rows import quarantine_market_rows
from data_processing.ingest.loading.load_files import load_files
from data_processing.metrics.market_columns import market_columns
from data_processing.raw.market_series import (
    MarketChange,
    MarketDay,
    align_by_day,
    first_change,
    read_market_series,
    store_market_series,
    stored_market_series,
)
from tests.support.metrics_store import execute, rows_of

FIRST = date(2024, 1, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def price(engine: Engine, at: str, close: str, symbol: str = "ETH") -> None:
    execute(
        engine,
        "INSERT INTO raw_coinmarketcap_ohlcv VALUES (CAST(:at AS timestamptz), :symbol,"
        " CAST(:document AS jsonb))",
        at=at,
        symbol=symbol,
        document=f'{{"USD": {{"close": {close}}}}}',
    )


def test_day_has_latest_close_before_it_and_latest_gas_up_to_it() -> None:
    closes = {"ETH": {day(-300): Decimal(7), day(1): Decimal(10), day(3): Decimal(30)}, "BTC": {}}
    series = align_by_day(closes, {day(2): Decimal("1.5")}, day(0), day(5))
    assert [day_values.eth_open for day_values in series] == [7, 7, 10, 10, 30]
    assert [day_values.btc_open for day_values in series] == [None] * 5
    assert [day_values.gas_price_gwei for day_values in series] == [
        None,
        None,
        Decimal("1.5"),
        Decimal("1.5"),
        Decimal("1.5"),
    ]


def test_the_series_takes_each_days_last_good_close(database: Settings, engine: Engine) -> None:
    for at, close in (
        ("2024-01-01 10:00+00", "1"),
        ("2024-01-01 23:59:59+00", '"2.5"'),
        ("2024-01-02 23:00+00", '"NaN"'),
        ("2024-01-03 01:00+00", "-1"),
    ):
        price(engine, at, close)
    for at, close in (
        ("2024-01-03 02:00+00", '"?"'),
        ("2024-01-03 23:30-02", "4"),
        ("infinity", "9"),
        ("2024-01-02 00:00+00", "1e300"),
    ):
        price(engine, at, close)
    price(engine, "2024-01-01 00:00+00", "42000.123456789", symbol="btc")
    price(engine, "2024-01-01 00:00+00", "1", symbol="DOGE")
    execute(
        engine,
        "INSERT INTO gas_fees_daily VALUES ('2024-01-02', 20), ('2024-01-03', 'NaN'),"
        " ('2024-01-04', -1), ('2024-01-05', NULL)",
    )
    with engine.connect() as connection:
        series = read_market_series(connection, database, day(0), day(6))
    assert [day_values.eth_open for day_values in series] == [
        None,
        Decimal("2.5"),
        Decimal("2.5"),
        Decimal("2.5"),
        Decimal(4),
        Decimal(4),
    ]
    assert series[3].btc_open == Decimal("42000.12345679")
    assert [day_values.gas_price_gwei for day_values in series] == [None, 20, 20, 20, 20, 20]


IMPOSSIBLE_MOMENTS = (
    "55841-06-01 00:00+00",
    "9999-12-31 12:00+00",
    "infinity",
    "0044-03-15 00:00+00 BC",
    "-infinity",
)


def test_impossible_days_are_quarantined_and_stop_nothing(
    database: Settings, engine: Engine
) -> None:
    """Milliseconds that are read as seconds give a year that PostgreSQL stores and Python does not
    have. A forecast of future gas is no error.
    """
    for moment in IMPOSSIBLE_MOMENTS:
        price(engine, moment, "3000")
    price(engine, "2024-01-01 10:00+00", "1")
    for moment in (*IMPOSSIBLE_MOMENTS, "300000-01-01"):
        execute(
            engine,
            "INSERT INTO gas_fees_daily VALUES (CAST(:day AS date), 5)",
            day=re.sub(r" [0-9:+]+", "", moment),
        )
    execute(
        engine,
        "INSERT INTO gas_fees_daily VALUES ('2024-01-01', 20, NULL), ('2024-01-04', NULL, 7)",
    )
    now = datetime(2024, 1, 3, 6, tzinfo=UTC)
    with engine.begin() as connection:
        series = read_market_series(connection, database, day(0), day(2))
        quarantine_market_rows(connection, database, "r1", now)
    assert [(day_values.eth_open, day_values.gas_price_gwei) for day_values in series] == [
        (None, Decimal(20)),
        (Decimal(1), Decimal(20)),
    ]
    quarantined = rows_of(
        engine,
        "SELECT source_table, reason, count(*) AS n FROM yieldspark.quarantine GROUP BY 1, 2 ORDER"
        " BY source_table, reason",
    )
    assert [(row["source_table"], row["reason"], row["n"]) for row in quarantined] == [
        ("gas_fees_daily", "timestamp_before_2009", 2),
        ("gas_fees_daily", "timestamp_in_future", 4),
        ("raw_coinmarketcap_ohlcv", "timestamp_before_2009", 2),
        ("raw_coinmarketcap_ohlcv", "timestamp_in_future", 3),
    ]


def test_loaded_close_is_used_for_its_day(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    """Another source stamps its days at their end.

    Its row is corrected, and keeps the values that the file lacks.
    """
    price(engine, "2024-01-01 23:59:59.999+00", '1, "market_cap": 9', symbol="eth")
    price(engine, "2024-01-02 10:00+00", "2")
    price(engine, "2024-01-02 23:59:59.999+00", '"?"')
    price(engine, "2024-01-03 23:59:59.999+00", '3, "volume": 5')
    with engine.begin() as connection:
        quarantine_market_rows(connection, database, "r1", datetime(2024, 1, 9, tzinfo=UTC))
    file = tmp_path / "ETH.csv"
    file.write_text(
        "date,close,volume\n2024-01-01,10,\n2024-01-02,20,\n2024-01-03,3.0,7\n2024-01-04,40,\n"
    )
    names = ("rows_inserted", "rows_updated", "rows_already_there")
    for counts in ([1, 2, 1], [0, 0, 4]):
        (entry,) = load_files(database, [file])["files"]
        assert [entry[name] for name in names] == counts
    with engine.begin() as connection:
        series = read_market_series(connection, database, day(0), day(5))
        quarantine_market_rows(connection, database, "r2", datetime(2024, 1, 9, tzinfo=UTC))
    assert [day_values.eth_open for day_values in series] == [
        None,
        Decimal(10),
        Decimal(20),
        Decimal(3),
        Decimal(40),
    ]
    documents = rows_of(
        engine,
        "SELECT raw_json_data -> 'USD' AS usd FROM raw_coinmarketcap_ohlcv ORDER BY data_timestamp",
    )
    assert documents[0]["usd"] == {"close": 10, "market_cap": 9}
    assert rows_of(
        engine, "SELECT resolution, resolved_by_run AS run FROM yieldspark.quarantine"
    ) == [{"resolution": "accepted", "run": "r2"}]


def test_price_of_tomorrow_is_used_tomorrow(database: Settings, engine: Engine) -> None:
    price(engine, "2024-01-03 10:00+00", "7")
    for hour, resolution in ((9, None), (11, "accepted")):
        with engine.begin() as connection:
            quarantine_market_rows(
                connection, database, "r1", datetime(2024, 1, 3, hour, tzinfo=UTC)
            )
        assert rows_of(engine, "SELECT reason, resolution FROM yieldspark.quarantine") == [
            {"reason": "timestamp_in_future", "resolution": resolution}
        ]


def test_stored_series_gives_first_changed_day(engine: Engine) -> None:
    series = align_by_day(
        {"ETH": {day(0): Decimal("0.123456785")}, "BTC": {day(1): Decimal(1)}}, {}, day(0), day(4)
    )
    with engine.begin() as connection:
        store_market_series(connection, series)
        store_market_series(connection, series)
        stored = stored_market_series(connection)
    assert tuple(stored.values()) == series
    longer = align_by_day(
        {"ETH": {day(0): Decimal("0.123456785")}, "BTC": {day(1): Decimal(1), day(2): Decimal(2)}},
        {},
        day(0),
        day(6),
    )
    assert first_change(stored, longer, before=day(4)) == MarketChange(
        day(3), f"BTC price of {day(2)} changed"
    )
    assert first_change(stored, longer, before=day(3)) is None
    gas = align_by_day(
        {"ETH": {day(0): Decimal("0.123456785")}, "BTC": {day(1): Decimal(1)}},
        {day(1): Decimal(9)},
        day(0),
        day(4),
    )
    assert first_change(stored, gas, before=day(4)) == MarketChange(
        day(1), f"gas of {day(1)} changed"
    )
    assert rows_of(engine, "SELECT count(*) AS n FROM yieldspark.market_series") == [{"n": 4}]


def test_days_outside_the_series_have_no_prices() -> None:
    market = market_columns([MarketDay(day(1), Decimal("2.5"), None, Decimal(7))])
    prices = market.at(np.arange(market.first_day - 1, market.first_day + 2))
    nan = pytest.approx(np.nan, nan_ok=True)
    assert {name: list(values) for name, values in prices.items()} == {
        "eth_open": [nan, 2.5, nan],
        "btc_open": [nan, nan, nan],
        "gas_price_gwei": [nan, 7.0, nan],
    }
    assert np.isnan(market_columns(()).at(np.arange(3))["eth_open"]).all()
