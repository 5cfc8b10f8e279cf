"""Tests ingest from DefiLlama with a real HTTP server, real failures and a real PostgreSQL."""

from __future__ import annotations

import gzip
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from common.errors import ConfigurationError, InputError, SourceUnavailable
from config_spark import Settings, load_settings
from data_processing.ingest.defillama.client import DefiLlama, RetryPolicy, retry_after_seconds
from data_processing.ingest.defillama.prices import COINS
from data_processing.ingest.defillama.pull import ingest, read_pool_file
from data_processing.ingest.defillama.rows import closes, instant, snapshots
from database.ledger.runs import last_runs
from tests.support.defillama_server import CUT, HELD, TRUNCATED, DefiLlamaServer, Failure, running

NOW = datetime.now(UTC)
TODAY = NOW.date()


@pytest.fixture
def llama() -> Iterator[DefiLlamaServer]:
    with running() as state:
        yield state


@pytest.fixture
def settings(database: Settings, llama: DefiLlamaServer) -> Settings:
    return database.model_copy(
        update={"defillama_yields_url": llama.url, "defillama_coins_url": llama.url + "/"}
    )


def at(llama: DefiLlamaServer) -> Settings:
    return load_settings(
        _env_file=None, defillama_yields_url=llama.url, defillama_coins_url=llama.url
    )


class Pauses(list[float]):
    """The pauses that were asked for; none is taken."""

    def retry_policy(self, **given: Any) -> RetryPolicy:
        return RetryPolicy(sleep=self.append, **given)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def listed(pool_id: str, **given: Any) -> dict[str, Any]:
    return {
        "pool": pool_id,
        "chain": "Ethereum",
        "project": "aave-v3",
        "symbol": "USDC",
        "tvlUsd": 1e6,
        "apy": 4.25,
        "stablecoin": True,
        "poolMeta": None,
        "underlyingTokens": ["0xA0b8", "0xdAC1"],
    } | given


def point(day: date, apy: object = 5.0, **given: Any) -> dict[str, Any]:
    values = {
        "tvlUsd": 1000,
        "apy": apy,
        "apyBase": 3.5,
        "apyReward": None,
        "il7d": None,
        "apyBase7d": 0.1,
    }
    return {"timestamp": f"{day.isoformat()}T23:01:07.123Z"} | values | given


def days_ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def fill(llama: DefiLlamaServer, *pool_ids: str, days: int = 3) -> None:
    llama.pools += [listed(pool_id) for pool_id in pool_ids]
    llama.charts |= {
        pool_id: [point(days_ago(ago), apy=ago) for ago in range(days, 0, -1)]
        for pool_id in pool_ids
    }


def rows(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def stored(engine: Engine) -> list[Any]:
    return rows(
        engine, "SELECT pool_id, count(*) FROM raw_defillama_pool_history GROUP BY 1 ORDER BY 1"
    )


def midnight(day: date) -> int:
    return int(datetime.combine(day, datetime.min.time(), UTC).timestamp())


def test_ingest_stores_points_unchanged_and_describes_pool(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a")
    llama.pools[0] |= {"poolMeta": "core", "tvlUsd": 1234567.891, "apy": 1e300}
    said: list[str] = []
    summary = ingest(
        settings, pool_ids=["a"], progress=said.append, retry_policy=pauses.retry_policy()
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
    ) == [(given, datetime.fromisoformat(given["timestamp"])) for given in llama.charts["a"]]
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
    assert said
    run = last_runs(engine)["ingest"]
    assert (run["status"], run["mode"], run["rows"]["inserted"], run["checks"][0]["passed"]) == (
        "succeeded",
        "pull",
        3,
        True,
    )


def test_second_ingest_inserts_new_rows_and_keeps_values(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a")
    ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
    llama.charts["a"][-1] = point(days_ago(1), apy=99)
    llama.charts["a"] += [point(TODAY), point(TODAY)]
    llama.pools = [listed("a", symbol=None, tvlUsd=None, underlyingTokens=None, chain="Base")]
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
        [listed("a")],
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
    kept = (
        "SELECT raw_json_data ->> 'apy', raw_json_data ->> 'il7d', raw_json_data -> 'extra' ->>"
        " 'nul' FROM raw_defillama_pool_history ORDER BY timestamp"
    )
    assert rows(engine, kept) == [("NaN", "Infinity", None), ("NaN", None, "a\ufffdb")]


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
    asked = ["a", "missing", "garbled", "wrong form", "unlisted", "empty", "a/../b", "z", "z"]
    summary = ingest(settings, pool_ids=asked, retry_policy=pauses.retry_policy())
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
    assert (run["status"], run["checks"][0]["passed"]) == ("succeeded", False)


def test_hostile_pools_fail_alone_in_every_run(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    """Each is reported by name; the prices and the good pool come with both pulls."""
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
    llama.pools = [listed(name) for name in charts]
    llama.charts = {name: chart for name, chart in charts.items() if "\ud800" not in name}
    llama.always["/chart/deeper"] = Failure(body=b"[" * 100_000)
    close = datetime.combine(days_ago(1), datetime.min.time(), UTC).timestamp()
    llama.prices = {
        "coingecko:ethereum": {int(close): 1e400},
        "coingecko:bitcoin": {int(close): 30_000.0},
    }
    # the row of another version of this program, or of another one
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


def test_rejects_endless_answer_and_redirect_to_other_host(
    llama: DefiLlamaServer, pauses: Pauses
) -> None:
    bomb = gzip.compress(b"[" + b"0," * (100 * 2**20))
    assert len(bomb) < 2**20
    packed = {"Content-Encoding": "gzip"}
    llama.always |= {
        "/chart/bomb": Failure(headers=packed, body=bomb),
        "/chart/refused": Failure(status=404, headers=packed, body=bomb),
        "/chart/moved": Failure(status=302, headers={"Location": "http://elsewhere.invalid/x"}),
        "/chart/renamed": Failure(status=302, headers={"Location": "/chart/new"}),
    }
    llama.charts["new"] = [point(days_ago(1))]
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy())
    with pytest.raises(InputError, match="more than 128 MiB"):
        client.chart("bomb")
    with pytest.raises(InputError, match="answered HTTP 404") as refusal:
        client.chart("refused")
    assert len(str(refusal.value)) < 500
    with pytest.raises(InputError, match=r"redirects to http://elsewhere\.invalid, which is"):
        client.chart("moved")
    assert len(client.chart("renamed")) == 1
    assert pauses == []


def test_ingest_fails_if_every_pool_failed(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    summary = ingest(settings, pool_ids=["nowhere"], retry_policy=pauses.retry_policy())
    assert [failure["pool_id"] for failure in summary["failed"]] == ["nowhere"]
    run = last_runs(engine)["ingest"]
    assert run["status"] == "failed"
    assert "1 of 1 failed" in run["error"]


@pytest.mark.parametrize(
    "failure",
    [
        CUT,
        TRUNCATED,
        HELD,
        Failure(500),
        Failure(502),
        Failure(503),
        Failure(429),
        Failure(408),
        Failure(headers={"Content-Encoding": "gzip"}),
    ],
    ids=["cut", "truncated", "silent", "500", "502", "503", "429", "408", "not gzip"],
)
def test_transient_failure_is_retried_with_growing_pauses(
    llama: DefiLlamaServer, pauses: Pauses, failure: Failure
) -> None:
    fill(llama, "a")
    llama.failures["/chart/a"] = [failure] * 3
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy(silence=0.3))
    assert client.chart("a") == llama.charts["a"]
    client.close()
    assert [
        low <= pause <= 2 * low for low, pause in zip([0.5, 1.0, 2.0], pauses, strict=True)
    ] == [True] * 3


def test_attempts_are_bounded(llama: DefiLlamaServer, pauses: Pauses) -> None:
    llama.always["/pools"] = Failure(500)
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy(attempts=8, longest_pause=10.0))
    with pytest.raises(SourceUnavailable, match=r"HTTP 500 .*after 8 attempts"):
        client.pools()
    client.close()
    assert len(llama.asked) == 8
    assert max(pauses) <= 10.0
    assert len(pauses) == 7


def test_trickling_server_is_abandoned(llama: DefiLlamaServer, pauses: Pauses) -> None:
    fill(llama, "a")
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy(attempts=2, whole_answer=-1.0))
    with pytest.raises(SourceUnavailable, match="not whole after"):
        client.chart("a")
    client.close()


def test_retry_after_is_never_undercut(llama: DefiLlamaServer, pauses: Pauses) -> None:
    fill(llama, "a")
    date_header = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    llama.failures["/chart/a"] = [
        Failure(429, {"Retry-After": "7"}),
        Failure(503, {"Retry-After": date_header}),
        Failure(429, {"Retry-After": "?"}),
    ]
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy())
    assert client.chart("a")
    llama.failures["/chart/a"] = [Failure(429, {"Retry-After": "3600"})]
    with pytest.raises(SourceUnavailable, match="asks to wait 3600 s"):
        client.chart("a")
    client.close()
    assert 7 <= pauses[0] <= 8
    assert 60 < pauses[1] <= 101
    assert pauses[2] <= 4


def test_retry_after_takes_seconds_and_http_dates() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    given = {
        None: None,
        "12": 12.0,
        "": None,
        "-3": None,
        "soon": None,
        "Thu, 01 Jan 2026 12:01:30 GMT": 90.0,
        "Thu, 01 Jan 2026 11:00:00 GMT": 0.0,
    }
    assert {header: retry_after_seconds(header, noon) for header in given} == given


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(403), SourceUnavailable),
        (Failure(400), InputError),
        (Failure(302, {"Location": "/pools"}), InputError),
    ],
)
def test_permanent_refusal_is_not_retried(
    llama: DefiLlamaServer, pauses: Pauses, failure: Failure, error: type[Exception]
) -> None:
    llama.always["/pools"] = failure
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy())
    with pytest.raises(error):
        client.pools()
    client.close()
    assert pauses == []


def test_nothing_listens(database: Settings, engine: Engine, pauses: Pauses) -> None:
    with running() as gone:
        nowhere = database.model_copy(update={"defillama_yields_url": gone.url})
    with pytest.raises(SourceUnavailable, match="HTTPS_PROXY"):
        ingest(nowhere, pool_ids=["a"], retry_policy=pauses.retry_policy())
    assert last_runs(engine)["ingest"]["status"] == "failed"


def test_concurrent_requests_are_limited(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, *(f"p{number:02}" for number in range(12)))
    llama.meet = threading.Barrier(3)
    summary = ingest(settings, concurrency=3, retry_policy=pauses.retry_policy())
    assert summary["pools_fetched"] == 12
    assert llama.most_at_once == 3


def test_ingest_resumes_after_outage(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    names = [f"p{number:02}" for number in range(20)]
    fill(llama, *names)
    llama.down_after_charts = 8
    with pytest.raises(SourceUnavailable, match="5 pools in a row got no answer"):
        ingest(settings, concurrency=1, retry_policy=pauses.retry_policy(attempts=2))
    assert [pool_id for pool_id, _ in stored(engine)] == names[:8]
    assert len(set(llama.charts_asked())) <= 8 + 5 + 1
    assert last_runs(engine)["ingest"]["status"] == "failed"

    llama.down_after_charts = None
    llama.asked.clear()
    summary = ingest(settings, retry_policy=pauses.retry_policy())
    assert (summary["pools_chosen"], summary["pools_fetched"], summary["pools_skipped"]) == (
        20,
        12,
        8,
    )
    assert sorted(llama.charts_asked()) == names[8:]
    assert stored(engine) == [(name, 3) for name in names]
    assert last_runs(engine)["ingest"]["mode"] == "resume"

    assert ingest(settings, retry_policy=pauses.retry_policy())["pools_fetched"] == 20


def test_ingest_that_stored_nothing_is_not_resumed(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    """The owner's job touches every row of `pools` while the pull is under way."""
    names = [f"p{number}" for number in range(8)]
    fill(llama, *names)
    ingest(settings, retry_policy=pauses.retry_policy())
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE raw_defillama_pool_history"))

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(settings, progress=interrupt, retry_policy=pauses.retry_policy())
    with engine.begin() as connection:
        connection.execute(text("UPDATE pools SET last_updated = clock_timestamp()"))
    summary = ingest(settings, retry_policy=pauses.retry_policy())
    assert (summary["pools_fetched"], summary["pools_skipped"]) == (8, 0)
    assert stored(engine) == [(name, 3) for name in names]


def test_ingest_resumes_by_its_own_record_and_reports_unfetched_pools(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    """Two interrupts, and between them another job that rewrites a pool's raw rows."""
    names = [f"p{number}" for number in range(8)]
    fill(llama, *names)
    llama.charts["p1"] = []

    def interrupted(after: str) -> dict[str, Any]:
        def interrupt(message: str) -> None:
            if message.startswith(after):
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            ingest(settings, progress=interrupt, concurrency=1, retry_policy=pauses.retry_policy())
        run: dict[str, Any] = last_runs(engine)["ingest"]
        assert run["status"] == "cancelled"
        return run

    check = interrupted("3 of 8 pools,")["checks"][0]
    assert (check["name"], check["passed"]) == ("every_pool_fetched", False)
    assert check["found"].startswith("5 of 8 pools not fetched yet: the next `ingest` goes on")
    with engine.begin() as connection:
        connection.execute(text("UPDATE pools SET last_updated = clock_timestamp()"))
        connection.execute(text("DELETE FROM raw_defillama_pool_history WHERE pool_id = 'p0'"))
    check = interrupted("2 of 6 pools,")["checks"][0]
    assert check["found"].startswith("4 of 8 pools not fetched yet")
    llama.asked.clear()
    assert ingest(settings, retry_policy=pauses.retry_policy())["pools_skipped"] == 4
    assert sorted(llama.charts_asked()) == names[4:]
    assert stored(engine) == [(name, 3) for name in names if name != "p1"]


def test_progress_that_cannot_be_resumed_is_deleted(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, "a", "b")
    ingest(settings, pool_ids=["a"], retry_policy=pauses.retry_policy())
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE yieldspark.ingest_progress SET stored_at = now() - interval '13 hours'")
        )
    ingest(settings, pool_ids=["b"], retry_policy=pauses.retry_policy())
    assert rows(engine, "SELECT pool_id, snapshots FROM yieldspark.ingest_progress") == [("b", 3)]


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
    """Counted are rows of history, pools and days with a price."""
    fill(llama, "a")
    llama.prices = {coin: {midnight(days_ago(ago)): 1.5 for ago in range(5)} for coin in COINS}
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


def test_ingest_with_other_first_day_or_old_one_is_not_resumed(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, *(f"p{number}" for number in range(7)))
    llama.down_after_charts = 1

    def interrupted() -> None:
        with pytest.raises(SourceUnavailable):
            ingest(settings, concurrency=1, retry_policy=pauses.retry_policy(attempts=1))

    interrupted()
    llama.down_after_charts = None
    assert (
        ingest(settings, since=days_ago(1), retry_policy=pauses.retry_policy())["pools_skipped"]
        == 0
    )
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE yieldspark.run_ledger SET started_at = started_at - interval '13 hours'")
        )
    assert ingest(settings, retry_policy=pauses.retry_policy())["pools_skipped"] == 0


@pytest.mark.parametrize(
    "others", [HELD, Failure(429, {"Retry-After": "200"})], ids=["silent server", "long pause"]
)
def test_interrupt_stops_requests_and_keeps_stored_pools(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, others: Failure
) -> None:
    of_other_tests = set(threading.enumerate())
    names = [f"p{number:02}" for number in range(30)]
    fill(llama, *names)
    llama.always |= {f"/chart/{name}": others for name in names[1:]}

    def interrupt(message: str) -> None:
        if message.startswith("1 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        # a request whose socket is closed under it ends with the silence at the latest
        ingest(settings, progress=interrupt, concurrency=3, retry_policy=RetryPolicy(silence=5.0))
    assert stored(engine) == [("p00", 3)]
    assert last_runs(engine)["ingest"]["status"] == "cancelled"

    llama.release.set()
    fetching = [
        thread
        for thread in set(threading.enumerate()) - of_other_tests
        if thread.name.startswith("defillama-")
    ]
    for thread in fetching:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in fetching)
    assert len(llama.charts_asked()) <= 4
    llama.always.clear()
    assert ingest(settings)["pools_skipped"] == 1


def test_closes_are_the_last_price_of_a_finished_day() -> None:
    day = date(2026, 3, 1)
    noon_of_next = midnight(day) + 86_400 + 43_200

    def found(*points: tuple[int, object]) -> dict[date, str]:
        given = [{"timestamp": moment, "price": price} for moment, price in points]
        return {
            key: str(price)
            for key, price in closes([*given, None, {}], today=date(2026, 3, 2)).items()
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
    found = (
        "SELECT data_timestamp, symbol, raw_json_data -> 'USD' ->> 'close' FROM"
        " raw_coinmarketcap_ohlcv ORDER BY 2, 1"
    )
    utc_midnights = [datetime.combine(days_ago(ago), datetime.min.time(), UTC) for ago in (3, 2, 1)]
    assert rows(engine, found) == [
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
    changed = (
        "SELECT raw_json_data -> 'USD' ->> 'close', insertion_timestamp = max(insertion_timestamp)"
        " OVER () FROM raw_coinmarketcap_ohlcv ORDER BY 1"
    )
    assert rows(engine, changed) == [("2", False), ("3003.0", False), ("7.0", True)]


def test_prices_are_paged_within_the_limit_of_the_endpoint(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    llama.pools, llama.charts = [listed("a")], {"a": [point(days_ago(600)), point(days_ago(1))]}
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


@pytest.mark.parametrize(
    ("given", "expected"),
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
def test_instants(given: object, expected: datetime | None) -> None:
    assert instant(given) == expected


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


def test_wrong_url_names_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="DEFILLAMA_YIELDS_URL='yields'"):
        load_settings(_env_file=None, defillama_yields_url="yields")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTPS_PROXY", "ftp://u:very-secret@h"),
        ("HTTPS_PROXY", "http://u:very-secret@[::1"),
        ("NO_PROXY", "[::1"),
        ("SSL_CERT_FILE", "/dev/null"),
        ("SSL_CERT_FILE", "/dev/null/missing.pem"),
    ],
)
def test_wrong_network_variable_is_configuration_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"network's variables .*HTTPS_PROXY") as caught:
        DefiLlama(load_settings(_env_file=None))
    assert "very-secret" not in str(caught.value)
