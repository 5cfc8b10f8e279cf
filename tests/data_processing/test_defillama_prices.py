"""Tests the daily closes of ETH and BTC that an ingest stores."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from config_spark import Settings
from data_processing.ingest.defillama.pull import ingest
from data_processing.ingest.defillama.rows import closes
from tests.data_processing.test_defillama import llama, pauses, settings
from tests.support.defillama_pulls import Pauses, days_ago, fill, midnight, point, pool_entry, rows
from tests.support.defillama_server import (
    DefiLlamaServer,
    Failure,
)

__all__ = ["llama", "pauses", "settings"]


def test_closes_are_the_last_price_of_a_finished_day() -> None:
    day = date(2026, 3, 1)
    noon_of_next = midnight(day) + 86_400 + 43_200

    def found(*points: tuple[int, object]) -> dict[date, str]:
        prices = [{"timestamp": moment, "price": price} for moment, price in points]
        return {
            key: str(price)
            for key, price in closes([*prices, None, {}], today=date(2026, 3, 2)).items()
        }

    end = midnight(day) + 86_400
    assert found((end, 10.5)) == {day: "10.5"}
    assert found((end + 1, 10.5)) == {}
    assert found((end - 3600, 1), (end - 120, 2.25), (end - 1800, 3)) == {day: "2.25"}
    assert found((end - 3601, 1)) == {}
    assert found((noon_of_next, 1), (end + 86_400, 2), (end + 86_400 - 5, 3)) == {}
    assert found((end, "NaN"), (end, None), (end, -1.0), (end, 0)) == {}


@pytest.mark.parametrize("offset", [-1800, -60, 0], ids=["23:30", "23:59", "next midnight"])
def test_closes_are_stored_at_the_start_of_their_day(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses, offset: int
) -> None:
    fill(llama, "a", days=2)
    llama.prices = {
        "coingecko:ethereum": {
            midnight(days_ago(ago)) + 86_400 + offset: 3000.125 + ago for ago in range(5)
        },
        "coingecko:bitcoin": {
            midnight(days_ago(ago)) + 86_400 + offset: 60000.0 + ago for ago in range(5)
        },
    }
    assert (
        ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())["prices_written"] == 6
    )
    query = (
        "SELECT data_timestamp, symbol, raw_json_data -> 'USD' ->> 'close' FROM"
        " raw_coinmarketcap_ohlcv ORDER BY 2, 1"
    )
    utc_midnights = [datetime.combine(days_ago(ago), datetime.min.time(), UTC) for ago in (3, 2, 1)]
    assert rows(engine, query) == [
        *zip(utc_midnights, ["BTC"] * 3, ["60003.0", "60002.0", "60001.0"], strict=True),
        *zip(utc_midnights, ["ETH"] * 3, ["3003.125", "3002.125", "3001.125"], strict=True),
    ]


def test_close_is_rewritten_only_if_changed_and_never_over_another_source(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a", days=2)
    ethereum = {midnight(days_ago(ago)) + 85_000: 3000.0 + ago for ago in range(1, 4)}
    llama.prices = {"coingecko:ethereum": ethereum}
    owners = '{"USD": {"open": 1, "close": 2}}'
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO raw_coinmarketcap_ohlcv (data_timestamp, symbol, raw_json_data) VALUES"
                " (:moment, 'ETH', CAST(:document AS jsonb))"
            ),
            {
                "moment": (
                    datetime.combine(days_ago(2), datetime.min.time(), UTC) + timedelta(hours=23)
                ),
                "document": owners,
            },
        )
    assert (
        ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())["prices_written"] == 2
    )
    assert (
        ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())["prices_written"] == 0
    )
    ethereum[midnight(days_ago(1)) + 85_000] = 7.0
    assert (
        ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())["prices_written"] == 1
    )
    query = (
        "SELECT raw_json_data -> 'USD' ->> 'close', insertion_timestamp = max(insertion_timestamp)"
        " OVER () FROM raw_coinmarketcap_ohlcv ORDER BY 1"
    )
    assert rows(engine, query) == [("2", False), ("3003.0", False), ("7.0", True)]


def test_prices_are_paged_within_the_limit_of_the_endpoint(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    llama.pools, llama.charts = [pool_entry("a")], {"a": [point(days_ago(600)), point(days_ago(1))]}
    llama.prices = {
        "coingecko:bitcoin": {
            midnight(days_ago(ago)) + 84_600: 100.0 + ago for ago in range(1, 602)
        }
    }
    assert (
        ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())["prices_written"]
        == 601
    )
    assert [request["span"] for request in llama.price_requests()] == ["250", "250", "101"]
    llama.always["/chart/coingecko:ethereum,coingecko:bitcoin"] = Failure(500)
    summary = ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
    assert (summary["pools_fetched"], [failure["pool_id"] for failure in summary["failed"]]) == (
        1,
        [None],
    )
