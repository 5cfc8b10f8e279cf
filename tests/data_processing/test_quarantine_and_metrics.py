"""Tests quarantine together with the metrics job: rows that are replayed, dropped or accepted under
other limits, and the runs after that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.quarantine.queries import Selection
from data_processing.quarantine.replay import Replay, drop_rows, replay_rows
from reporting.figures.data_quality import QuarantinedRows, data_quality
from tests.data_processing.test_metrics_job import assert_equal_to_oracle
from tests.support.metrics_histories import START
from tests.support.metrics_oracle import RawRow, World
from tests.support.metrics_store import (
    execute,
    put,
    put_market,
    put_rows,
    rows_of,
    run_world,
    settings_of,
)

DAYS = 20
NOW = datetime.combine(START + timedelta(days=DAYS), time(6), UTC)
PRICES = "raw_coinmarketcap_ohlcv"


def noon(day: int) -> datetime:
    return datetime.combine(START + timedelta(days=day), time(12), UTC)


@pytest.fixture
def history(engine: Engine) -> World:
    """Two pools over twenty days.

    On day 10, `a` has an APY beyond the limit; on day 12, `b` has one that is no number.
    """
    rows = [
        RawRow(0, pool, noon(day), {"apy": 5.0 + day / 7, "tvlUsd": 1e6 + day})
        for day, pool in product(range(DAYS), ("a", "b"))
    ]
    rows += [
        RawRow(0, "a", noon(10) + timedelta(hours=6), {"apy": 2e6, "tvlUsd": 5.0}),
        RawRow(0, "b", noon(12) + timedelta(hours=6), {"apy": "?", "tvlUsd": 7.0}),
    ]
    source = World(
        rows=[replace(row, id=number) for number, row in enumerate(rows, start=1)], now=NOW
    )
    put(engine, source)
    execute(
        engine, "SELECT setval(pg_get_serial_sequence('raw_defillama_pool_history', 'id'), 1000)"
    )
    return source


Metrics = Callable[..., dict[str, Any]]


@pytest.fixture
def metrics(database: Settings) -> Metrics:
    return partial(run_world, database)


def quarantined(engine: Engine) -> dict[str, Any]:
    return {row["reason"]: row for row in rows_of(engine, "SELECT * FROM yieldspark.quarantine")}


def add_inserted_rows(engine: Engine, source: World) -> None:
    """Add raw rows that a replay has inserted to the world."""
    inserted = rows_of(
        engine,
        "SELECT id, pool_id, timestamp, raw_json_data FROM raw_defillama_pool_history WHERE id >"
        " 1000 ORDER BY id",
    )
    source.rows += [
        RawRow(row["id"], row["pool_id"], row["timestamp"], row["raw_json_data"])
        for row in inserted
    ]


def test_next_run_uses_corrected_row(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    assert metrics(history)["rows"]["quarantined"] == 2
    entry = quarantined(engine)["apy_beyond_limit"]
    replay_rows(
        database,
        engine,
        Replay(Selection((entry["id"],)), "ann@desk", {entry["id"]: '{"apy": 20.0}'}),
        now=NOW,
    )
    add_inserted_rows(engine, history)
    assert history.rows[-1].document == {"apy": 20.0, "tvlUsd": 5.0}

    incremental = metrics(history)
    assert (incremental["mode"], incremental["rows"]["updated"] > 0) == ("incremental", True)
    assert_equal_to_oracle(engine, history)
    assert metrics(history)["status"] == "nothing_to_do"
    full = metrics(history, full_refresh=True)
    assert (full["rows"]["inserted"], full["rows"]["updated"]) == (0, 0)
    assert {reason: row["resolution"] for reason, row in quarantined(engine).items()} == {
        "apy_beyond_limit": "replayed",
        "apy_not_a_number": None,
    }
    assert data_quality(engine).quarantine == (
        QuarantinedRows("raw_defillama_pool_history", "apy_not_a_number", rows=1),
    )


def test_replay_under_other_limits_and_following_full_run(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    metrics(history)
    looser = replace(history, max_apy_percent=3e6)
    result = replay_rows(
        settings_of(database, looser),
        engine,
        Replay(Selection(reason="apy_beyond_limit"), "ann@desk"),
        now=NOW,
    )
    assert result["rows"]["inserted"] == 1
    add_inserted_rows(engine, looser)
    assert metrics(looser)["mode"] == "full_refresh"
    assert_equal_to_oracle(engine, looser)
    assert quarantined(engine)["apy_beyond_limit"]["resolution"] == "replayed"


def test_other_limits_accept_and_reopen_rows(
    engine: Engine, history: World, metrics: Metrics
) -> None:
    """Without a replay: new limits bring a full run that uses the row, and the old limits
    quarantine it again.
    """
    metrics(history)
    loose = metrics(replace(history, max_apy_percent=3e6))
    entry = quarantined(engine)["apy_beyond_limit"]
    assert (entry["resolution"], entry["resolved_by_run"]) == ("accepted", loose["run_id"])
    assert_equal_to_oracle(engine, replace(history, max_apy_percent=3e6))
    metrics(history)
    entry = quarantined(engine)["apy_beyond_limit"]
    assert (entry["resolution"], entry["resolved_by_run"], entry["resolved_at"]) == (
        None,
        None,
        None,
    )
    assert_equal_to_oracle(engine, history)


def test_accepted_row_with_new_reason_is_reopened(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    put_rows(engine, [both := RawRow(900, "a", noon(5), {"apy": 2e6, "tvlUsd": 9e6})])
    history.rows.append(both)
    metrics(history)
    loose = replace(history, max_apy_percent=3e6)
    metrics(loose)
    metrics(replace(loose, max_tvl_usd=5e6))
    entries = rows_of(
        engine,
        "SELECT reason, resolution FROM yieldspark.quarantine WHERE raw_json_data ->> 'tvlUsd' ="
        " '9000000.0' ORDER BY id",
    )
    assert [(row["reason"], row["resolution"]) for row in entries] == [
        ("apy_beyond_limit", None),
        ("tvl_beyond_limit", None),
    ]


def test_future_row_is_accepted_later(engine: Engine, history: World, metrics: Metrics) -> None:
    put_rows(engine, [ahead := RawRow(900, "a", noon(DAYS), {"apy": 1.0, "tvlUsd": 2.0})])
    history.rows.append(ahead)
    metrics(history)
    assert quarantined(engine)["timestamp_in_future"]["resolution"] is None
    history.now = NOW + timedelta(hours=12)
    put_rows(
        engine,
        [correction := RawRow(901, "b", noon(3) + timedelta(hours=1), {"apy": 9.0, "tvlUsd": 2.0})],
    )
    history.rows.append(correction)
    assert metrics(history)["status"] == "succeeded"
    assert quarantined(engine)["timestamp_in_future"]["resolution"] is None, (
        "its day is not over, so no run has used it"
    )
    history.now = NOW + timedelta(days=1)
    assert metrics(history)["mode"] == "incremental"
    assert quarantined(engine)["timestamp_in_future"]["resolution"] == "accepted"
    assert_equal_to_oracle(engine, history)


def test_dropped_row_stays_dropped(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    metrics(history)
    drop_rows(database, engine, Selection(reason="apy_beyond_limit"), by="ann@desk", note="seen")
    metrics(history, full_refresh=True)
    assert quarantined(engine)["apy_beyond_limit"]["resolution"] == "dropped"
    # a row with other content is another row
    execute(
        engine,
        'UPDATE raw_defillama_pool_history SET raw_json_data = raw_json_data || \'{"apy": "?"}\' '
        "WHERE pool_id = 'a' AND raw_json_data ->> 'tvlUsd' = '5.0'",
    )
    metrics(history, full_refresh=True)
    entries = rows_of(
        engine,
        "SELECT reason, resolution, note FROM yieldspark.quarantine WHERE pool_id = 'a' ORDER"
        " BY id",
    )
    assert entries == [
        {"reason": "apy_beyond_limit", "resolution": "dropped", "note": "seen"},
        {"reason": "apy_not_a_number", "resolution": None, "note": None},
    ]


def drop(database: Settings, engine: Engine, source: World, reason: str, row: RawRow) -> None:
    drop_rows(database, engine, Selection(reason=reason), by="ann@desk", note="wrong clock")
    source.rows.remove(row)


def assert_quarantined(engine: Engine, source: World, metrics: Metrics) -> None:
    assert_equal_to_oracle(engine, source)
    again = metrics(source, full_refresh=True)
    assert (again["rows"]["inserted"], again["rows"]["updated"], again["rows"]["removed"]) == (
        0,
        0,
        0,
    )
    assert again["rows"]["read"] == len(source.rows) + 1, "it is read, and rejected like any other"
    resolutions = rows_of(
        engine,
        "SELECT resolution, note FROM yieldspark.quarantine WHERE reason IN ('timestamp_in_future',"
        " 'row_dropped')",
    )
    assert resolutions == [{"resolution": "dropped", "note": "wrong clock"}] * 2


def test_dropped_future_row_is_not_used_later(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    put_rows(engine, [ahead := RawRow(900, "a", noon(DAYS), {"apy": 900.0, "tvlUsd": 2.0})])
    history.rows.append(ahead)
    metrics(history)
    drop(database, engine, history, "timestamp_in_future", ahead)
    history.now = NOW + timedelta(days=1)
    put_rows(
        engine,
        [today := RawRow(901, "a", noon(DAYS) - timedelta(hours=1), {"apy": 9.0, "tvlUsd": 2.0})],
    )
    history.rows.append(today)
    assert metrics(history)["mode"] == "incremental"
    assert_quarantined(engine, history, metrics)


def test_dropped_row_is_not_used_under_looser_limits(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    metrics(history)
    dropped = next(row for row in history.rows if row.document["apy"] == 2e6)
    drop(database, engine, history, "apy_beyond_limit", dropped)
    looser = replace(history, max_apy_percent=3e6)
    assert metrics(looser)["mode"] == "full_refresh"
    assert_equal_to_oracle(engine, looser)


def test_row_dropped_during_run_is_removed_by_next_run(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    put_rows(engine, [ahead := RawRow(900, "a", noon(DAYS), {"apy": 900.0, "tvlUsd": 2.0})])
    history.rows.append(ahead)
    metrics(history)
    history.now = NOW + timedelta(days=1)
    put_rows(engine, [today := RawRow(901, "b", noon(DAYS), {"apy": 9.0, "tvlUsd": 2.0})])
    history.rows.append(today)
    assert metrics(history)["rows"]["inserted"] == 2
    assert_equal_to_oracle(engine, history)
    # as after a drop whose transaction a run did not see because it was already reading
    execute(
        engine,
        "UPDATE yieldspark.quarantine SET resolution = NULL WHERE reason = 'timestamp_in_future'",
    )
    drop(database, engine, history, "timestamp_in_future", ahead)
    assert metrics(history)["mode"] == "incremental"
    assert_quarantined(engine, history, metrics)
    assert metrics(history)["status"] == "nothing_to_do"


def test_partial_run_resolves_nothing(engine: Engine, history: World, metrics: Metrics) -> None:
    metrics(history)
    looser = replace(history, max_apy_percent=3e6)
    for options in (
        {"start": START, "end": START + timedelta(days=5)},
        {"full_refresh": True, "pools": ("b",)},
    ):
        assert metrics(looser, **options)["status"] == "succeeded"
    assert quarantined(engine)["apy_beyond_limit"]["resolution"] is None


def test_corrected_price_is_accepted_and_bad_one_reopened(
    engine: Engine, history: World, metrics: Metrics
) -> None:
    history.prices[noon(3), "ETH"] = -1.0
    put_market(engine, history)
    metrics(history)

    def resolution() -> Any:
        return quarantined(engine)["price_not_positive"]["resolution"]

    for price, expected in ((3000.0, "accepted"), (-1.0, None)):
        history.prices[noon(3), "ETH"] = price
        put_market(engine, history)
        metrics(history)
        assert resolution() == expected
    assert_equal_to_oracle(engine, history)
