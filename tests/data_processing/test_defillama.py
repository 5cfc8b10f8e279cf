"""Tests ingest from DefiLlama with a real HTTP server, real failures and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from common.errors import ConfigurationError, InputError
from config_spark import Settings
from data_processing.ingest.defillama.prices import COINS
from data_processing.ingest.defillama.pull import ingest, read_pool_file
from data_processing.ingest.defillama.rows import description, instant, snapshots
from database.ledger.run_records import last_runs
from tests.data_processing.test_load_files import REFERENCE
from tests.support.current_day import today
from tests.support.defillama_pulls import (
    Pauses,
    days_ago,
    fill,
    midnight,
    point,
    pool_entry,
    rows,
    stored,
)
from tests.support.defillama_server import (
    DefiLlamaServer,
    Failure,
    running,
)


@pytest.fixture
def llama() -> Iterator[DefiLlamaServer]:
    with running() as state:
        yield state


@pytest.fixture
def settings(database: Settings, llama: DefiLlamaServer) -> Settings:
    return database.model_copy(
        update={"defillama_yields_url": llama.url, "defillama_coins_url": llama.url + "/"}
    )


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def test_ingest_stores_points_unchanged_and_describes_pool(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a")
    llama.pools[0] |= {"poolMeta": "core", "tvlUsd": 1234567.891, "apy": 1e300}
    messages: list[str] = []
    summary = ingest(
        settings, pool_ids=["a"], progress=messages.append, retry_policy=pauses.retry_policy()
    )
    assert {name: summary[name] for name in summary if name != "seconds"} == {
        "pools_chosen": 1,
        "pools_fetched": 1,
        "pools_skipped": 0,
        "pools_undescribed": 0,
        "rows_inserted": 3,
        "rows_already_there": 0,
        "rows_refused": 0,
        "prices_written": 0,
        "failed": [],
    }
    assert rows(
        engine, "SELECT raw_json_data, timestamp FROM raw_defillama_pool_history ORDER BY id"
    ) == [
        (chart_point, datetime.fromisoformat(chart_point["timestamp"]))
        for chart_point in llama.charts["a"]
    ]
    columns = (
        "name, chain, protocol, symbol, tvl::text, apy, is_active, poolmeta, underlying_tokens,"
        " underlying_token_addresses"
    )
    assert rows(engine, f"SELECT {columns} FROM pools") == [
        (
            "aave-v3 USDC core",
            "Ethereum",
            "aave-v3",
            "USDC",
            "1234567.89",
            None,
            True,
            "core",
            None,
            ["0xA0b8", "0xdAC1"],
        )
    ]
    assert messages
    run = last_runs(engine)["ingest"]
    assert (run.status, run.mode, run.rows["inserted"], run.checks[0]["passed"]) == (
        "succeeded",
        "pull",
        3,
        True,
    )


def test_ingest_under_a_foreign_key_to_pools(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    with engine.begin() as connection:
        connection.execute(text(REFERENCE))
    fill(llama, "a")
    ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
    assert stored(engine) == [("a", 3)]


def test_second_ingest_inserts_new_rows_and_keeps_values(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a")
    ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
    llama.charts["a"][-1] = point(days_ago(1), apy=99)
    llama.charts["a"] += [point(today()), point(today())]
    llama.pools = [pool_entry("a", symbol=None, tvlUsd=None, underlyingTokens=None, chain="Base")]
    summary = ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
    assert (
        summary["pools_fetched"],
        summary["pools_skipped"],
        summary["rows_inserted"],
        summary["rows_already_there"],
    ) == (1, 0, 2, 3)
    assert rows(
        engine, "SELECT chain, symbol, tvl::int, underlying_token_addresses FROM pools"
    ) == [("Base", "USDC", 1000000, ["0xA0b8", "0xdAC1"])]


def test_since_leaves_older_days_out(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a", days=9)
    summary = ingest(
        settings, pool_ids=["a"], since=days_ago(2), retry_policy=pauses.retry_policy()
    )
    assert (summary["rows_inserted"], summary["rows_already_there"]) == (2, 0)
    assert rows(engine, "SELECT min(timestamp)::date FROM raw_defillama_pool_history") == [
        (days_ago(2),)
    ]
    assert int(llama.price_requests()[0]["start"]) == midnight(days_ago(3)) + 23 * 3600 + 1800


def test_point_that_cannot_be_stored_is_quarantined_once(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    good = point(days_ago(1), apy="NaN", extra={"nul": "a\0b", "half": "\ud800"})
    bad = [
        {"apy": 1.0},
        point(days_ago(1)) | {"timestamp": "yesterday"},
        7,
        None,
        point(days_ago(1)) | {"timestamp": True},
    ]
    llama.pools, llama.charts = (
        [pool_entry("a")],
        {"a": [*bad, good, point(days_ago(2), apy=float("nan"), il7d=float("inf"))]},
    )
    for _ in range(2):
        summary = ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
        assert summary["rows_refused"] == 5
    assert rows(
        engine,
        "SELECT source_id, pool_id, reason, raw_json_data ->> 'apy' FROM yieldspark.quarantine"
        " ORDER BY 1",
    ) == [
        ("a:0", "a", "timestamp_unusable", "1.0"),
        ("a:1", "a", "timestamp_unusable", "5.0"),
        ("a:2", "a", "not_an_object", None),
        ("a:3", "a", "not_an_object", None),
        ("a:4", "a", "timestamp_unusable", "5.0"),
    ]
    query = (
        "SELECT raw_json_data ->> 'apy', raw_json_data ->> 'il7d', raw_json_data -> 'extra' ->>"
        " 'nul' FROM raw_defillama_pool_history ORDER BY timestamp"
    )
    assert rows(engine, query) == [("NaN", "Infinity", None), ("NaN", None, "a\ufffdb")]


def test_pools_are_chosen_by_tvl_and_kind(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "large", "small", "volatile", "unknown")
    llama.pools[1]["tvlUsd"], llama.pools[2]["stablecoin"], llama.pools[3]["tvlUsd"] = (
        10,
        False,
        None,
    )
    ingest(settings, min_tvl_usd=1000, stablecoins=True, retry_policy=pauses.retry_policy())
    assert [pool_id for pool_id, _ in stored(engine)] == ["large"]
    with pytest.raises(
        InputError,
        match=r"none of the 4 pools .* TVL of at least 9,000,000,000 USD and stablecoins only",
    ):
        ingest(settings, min_tvl_usd=9e9, stablecoins=True, retry_policy=pauses.retry_policy())
    with pytest.raises(InputError, match="no pool id"):
        ingest(settings, pool_ids=[], retry_policy=pauses.retry_policy())
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        ingest(settings, pool_ids=["large"], concurrency=0)


def test_bad_pool_does_not_stop_others(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a", "missing", "garbled", "wrong form", "z")
    del llama.charts["missing"]
    llama.charts |= {"unlisted": [point(days_ago(1))], "empty": []}
    llama.always |= {
        "/chart/garbled": Failure(body=b'{"status": "succ'),
        "/chart/wrong%20form": Failure(body=b'{"status": "error"}'),
    }
    pool_ids = ["a", "missing", "garbled", "wrong form", "unlisted", "empty", "a/../b", "z", "z"]
    summary = ingest(settings, pool_ids=pool_ids, retry_policy=pauses.retry_policy())
    errors = {failure["pool_id"]: failure["error"] for failure in summary["failed"]}
    assert set(errors) == {"missing", "garbled", "wrong form", "empty", "a/../b"}
    assert "404" in errors["missing"]
    assert "no JSON" in errors["garbled"]
    assert "'error'" in errors["wrong form"]
    assert "lists no pool 'empty'" in errors["empty"]
    assert (summary["pools_chosen"], summary["pools_fetched"]) == (8, 3)
    assert stored(engine) == [("a", 3), ("unlisted", 1), ("z", 3)]
    assert rows(engine, "SELECT pool_id, is_active FROM pools ORDER BY 1") == [
        ("a", True),
        ("unlisted", False),
        ("z", True),
    ]
    run = last_runs(engine)["ingest"]
    assert (run.status, run.checks[0]["passed"]) == ("succeeded", False)


def test_hostile_pools_fail_alone_in_every_run(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    """Each is reported by name; both pulls store the prices and the good pool."""
    deep: Any = 1.0
    for _ in range(700):
        deep = [deep]
    charts = {
        "a": [point(days_ago(2)) | {"timestamp": "0001-01-01T00:00:00Z"}, point(days_ago(1))],
        "nul\0": [point(days_ago(1))],
        "half \ud800": [point(days_ago(1))],
        "long" * 1500: [point(days_ago(1))],
        "deep": [point(days_ago(1), extra=deep)],
        "z": [point(days_ago(1)) | {"timestamp": "9999-12-31T23:59:59Z"}, point(days_ago(1))],
    }
    llama.pools = [pool_entry(name) for name in charts]
    llama.charts = {name: chart for name, chart in charts.items() if "\ud800" not in name}
    llama.always["/chart/deeper"] = Failure(body=b"[" * 100_000)
    close = datetime.combine(days_ago(1), datetime.min.time(), UTC).timestamp()
    llama.prices = {
        "coingecko:ethereum": {int(close): 1e400},
        "coingecko:bitcoin": {int(close): 30_000.0},
    }
    # the row of another version of this program, or of another program
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)"
            " VALUES ('a', '0044-03-15 BC', '{}'), ('a', 'infinity', '{}')"
        )
    for _ in range(2):
        summary = ingest(settings, pool_ids=[*charts, "deeper"], retry_policy=pauses.retry_policy())
        errors = {failure["pool_id"]: failure["error"] for failure in summary["failed"]}
        assert set(errors) == {*charts, "deeper"} - {"a", "z"}
        assert all(len(error) < 500 for error in errors.values())
        assert (summary["pools_fetched"], summary["rows_refused"]) == (2, 2)
    assert summary["prices_written"] == 0
    assert rows(engine, "SELECT symbol, raw_json_data FROM raw_coinmarketcap_ohlcv") == [
        ("BTC", {"USD": {"close": 30000.0}})
    ]


def test_pool_whose_rows_the_table_rejects_fails_alone(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a", "b", "z")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE raw_defillama_pool_history ADD CHECK (pool_id <> 'b')"
        )
    summary = ingest(settings, pool_ids=["a", "b", "z"], retry_policy=pauses.retry_policy())
    assert [failure["pool_id"] for failure in summary["failed"]] == ["b"]
    assert [pool_id for pool_id, _ in stored(engine)] == ["a", "z"]


def test_ingest_fails_if_every_pool_failed(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    summary = ingest(settings, pool_ids=["nowhere"], retry_policy=pauses.retry_policy())
    assert [failure["pool_id"] for failure in summary["failed"]] == ["nowhere"]
    run = last_runs(engine)["ingest"]
    assert (run.status, "1 of 1 failed" in str(run.error)) == ("failed", True)


def test_snapshots_that_a_trigger_drops_are_not_there_already(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a", "b")
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF new.pool_id = 'a' AND new.raw_json_data ->> 'apy' = '2'
                    THEN RETURN NULL; END IF; RETURN new; END $$;
                CREATE TRIGGER drop_row BEFORE INSERT ON raw_defillama_pool_history
                    FOR EACH ROW EXECUTE FUNCTION drop_row();
                """
            )
        )
    summary = ingest(settings, retry_policy=pauses.retry_policy())
    (failure,) = summary["failed"]
    assert failure["pool_id"] == "a"
    assert "3 different ones, 2 inserted, 0 there already" in failure["error"]
    assert (summary["rows_inserted"], stored(engine)) == (3, [("b", 3)])


@pytest.mark.parametrize(
    ("table", "body", "stored_rows"),
    [
        ("raw_defillama_pool_history", "new.pool_id := 'x'; RETURN new;", (0, 0, 0)),
        ("pools", "RETURN NULL;", (0, 0, 0)),
        ("raw_coinmarketcap_ohlcv", "RETURN NULL;", (3, 1, 0)),
        ("raw_coinmarketcap_ohlcv", "new.symbol := 'X'; RETURN new;", (3, 1, 0)),
    ],
)
def test_rows_dropped_or_moved_by_trigger_are_reported(
    table: str,
    body: str,
    stored_rows: tuple[int, ...],
    settings: Settings,
    engine: Engine,
    llama: DefiLlamaServer,
    pauses: Pauses,
) -> None:
    """`stored_rows` counts rows of history, pools and days with a price."""
    fill(llama, "a")
    prices = {midnight(days_ago(ago)): 1.5 for ago in range(5)}
    llama.prices = dict.fromkeys(COINS, prices)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION change_row() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {body} END $$; CREATE TRIGGER change_row BEFORE INSERT ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION change_row()"
        )
    summary = ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
    failures = [failure["error"] for failure in summary["failed"]]
    assert any(f"{table} did not take" in failure for failure in failures), failures
    counts = (
        "SELECT (SELECT count(*) FROM raw_defillama_pool_history), (SELECT count(*) FROM pools),"
        " (SELECT count(DISTINCT data_timestamp) FROM raw_coinmarketcap_ohlcv)"
    )
    assert rows(engine, counts) == [stored_rows]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-10-05T23:04:49.5Z", datetime(2025, 10, 5, 23, 4, 49, 500_000, tzinfo=UTC)),
        ("2025-10-05T23:04:49", datetime(2025, 10, 5, 23, 4, 49, tzinfo=UTC)),
        ("2025-10-06T01:04:49+02:00", datetime(2025, 10, 5, 23, 4, 49, tzinfo=UTC)),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1e300, None),
        (True, None),
        (None, None),
        ("", None),
        ("0001-01-01T00:00+14:00", None),
        ("2025-W31-5", datetime(2025, 8, 1, tzinfo=UTC)),
        ("2025-W31", None),
        ("2025W31T10:00", None),
    ],
)
def test_instants(value: object, expected: datetime | None) -> None:
    assert instant(value) == expected


@pytest.mark.parametrize(
    ("tvl", "apy", "stored"),
    [(-1.0, -2.0, (None, -2.0)), (0, 0, (0.0, 0.0)), (1e16, 1e16, (None, None))],
)
def test_impossible_values_do_not_describe_a_pool(
    tvl: float, apy: float, stored: tuple[float | None, float | None]
) -> None:
    described = description({"pool": "a", "tvlUsd": tvl, "apy": apy})
    assert (described["tvl"], described["apy"]) == stored


def test_since_is_a_utc_day() -> None:
    late = {"timestamp": "2026-03-01T23:59:59Z"}
    next_day = {"timestamp": "2026-03-02T01:00:00+02:00"}
    assert snapshots([late, next_day], date(2026, 3, 2)).timestamps == []
    assert len(snapshots([late, next_day], date(2026, 3, 1)).timestamps) == 2


def test_pool_ids_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pools.txt"
    path.write_bytes("\ufeff# ours\n\n  a-1  \r\nb-2 # large\na-1\n".encode())
    assert read_pool_file(path) == ["a-1", "b-2"]
    path.write_text("# none\n\n")
    with pytest.raises(InputError, match="names no pool"):
        read_pool_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="can't be read"):
        read_pool_file(path)
    for missing in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(InputError, match="can't be read"):
            read_pool_file(missing)
