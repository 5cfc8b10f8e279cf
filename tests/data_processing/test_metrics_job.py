"""Tests the metrics job end to end with a real PostgreSQL: a run, later runs, and what they must
not change.

Spark computes where the rows that it reads and computes are tested. `test_executors.py` compares it
with the processes that compute elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.schema.owner_tables import METRIC_COLUMNS
from tests.support import metrics_oracle
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import RawRow, World
from tests.support.metrics_store import (
    execute,
    job_rows,
    put,
    put_market,
    put_rows,
    quarantined_raw_rows,
    rows_of,
    settings_of,
    without_jvm,
)

Run = Callable[..., dict[str, Any]]


def noon(day: int) -> datetime:
    return datetime.combine(START + timedelta(days=day), time(12), UTC)


def job(database: Settings, source: World, spark: SparkSession | None = None) -> Run:
    """Return a function that runs the job, on Spark if there is a session."""
    settings = settings_of(database, source)

    def run(
        *, now: datetime | None = None, retry: str | None = None, **options: Any
    ) -> dict[str, Any]:
        return run_metrics(
            settings if spark else without_jvm(settings),
            Request(**options),
            retry=retry,
            session=(lambda _: spark) if spark else None,
            now=now or source.now,
        )

    return run


def assert_equal_to_oracle(engine: Engine, source: World) -> None:
    assert (
        metrics_oracle.differences_of_tables(job_rows(engine), metrics_oracle.metrics(source)) == []
    )


def test_run_equals_oracle_and_second_run_changes_nothing(
    spark: SparkSession, database: Settings, engine: Engine
) -> None:
    generated = world(11, pools=40, days=70)
    put(engine, generated)
    run = job(database, generated, spark)

    first = run()
    assert_equal_to_oracle(engine, generated)
    assert (first["status"], first["mode"], first["jvm_started"]) == (
        "succeeded",
        "full_refresh",
        True,
    )
    assert first["rows"]["inserted"] == len(job_rows(engine))
    assert first["rows"]["quarantined"] == len(metrics_oracle.quarantine(generated))
    assert first["end"] == metrics_oracle.run_end(generated).isoformat()  # type: ignore[union-attr]

    second = run()
    assert (second["status"], second["jvm_started"]) == ("nothing_to_do", False)
    again = run(full_refresh=True)
    assert again["rows"] == first["rows"] | {
        "inserted": 0,
        "updated": 0,
        "unchanged": first["rows"]["inserted"],
    }
    assert_equal_to_oracle(engine, generated)


def test_quarantine_keeps_reason_and_json(
    spark: SparkSession, database: Settings, engine: Engine
) -> None:
    generated = world(12, pools=20, days=50)
    put(engine, generated)
    run = job(database, generated, spark)
    result = run()
    run(full_refresh=True)

    quarantined = quarantined_raw_rows(engine)
    raw = {row.id: row for row in generated.rows}
    assert {
        number: row["reason"] for number, row in quarantined.items()
    } == metrics_oracle.quarantine(generated)
    assert len({row["reason"] for row in quarantined.values()}) > 5
    for number, row in quarantined.items():
        source = raw[number]
        assert (row["raw_json_data"], row["pool_id"], row["timestamp"], row["run_id"]) == (
            source.document,
            source.pool_id,
            source.timestamp,
            result["run_id"],
        )
    prices = rows_of(
        engine,
        "SELECT DISTINCT split_part(source_id, '|', 1) AS symbol, reason FROM yieldspark.quarantine"
        " WHERE source_table = 'raw_coinmarketcap_ohlcv'",
    )
    assert {row["symbol"] for row in prices} == {"ETH", "BTC"}
    assert {row["reason"] for row in prices} == {
        "price_missing",
        "price_not_a_number",
        "price_not_positive",
        "price_beyond_limit",
    }
    gas = rows_of(
        engine,
        "SELECT DISTINCT reason FROM yieldspark.quarantine WHERE source_table = 'gas_fees_daily'",
    )
    assert gas == [{"reason": "gas_negative"}]


Change = Callable[[World, Engine], None]


def _add(source: World, engine: Engine, rows: list[tuple[str, datetime, Any]]) -> None:
    first = max(row.id for row in source.rows) + 1
    new = [
        RawRow(first + number, pool, moment, document)
        for number, (pool, moment, document) in enumerate(rows)
    ]
    source.rows += new
    put_rows(engine, new)


def late_correction(source: World, engine: Engine) -> None:
    _add(
        source,
        engine,
        [
            (
                source.rows[7].pool_id,
                noon(20) + timedelta(hours=11, minutes=59),
                {"apy": 77.5, "tvlUsd": 12345.0},
            )
        ],
    )


def duplicate(source: World, engine: Engine) -> None:
    row = next(row for row in source.rows if row.id not in metrics_oracle.quarantine(source))
    _add(source, engine, [(row.pool_id, row.timestamp, row.document)])


def bad_row_after_good_one(source: World, engine: Engine) -> None:
    row = next(row for row in source.rows if row.id not in metrics_oracle.quarantine(source))
    _add(
        source,
        engine,
        [(row.pool_id, row.timestamp + timedelta(seconds=1), {"apy": "oops", "tvlUsd": 1.0})],
    )


def earlier_first_day(source: World, engine: Engine) -> None:
    _add(source, engine, [(source.rows[3].pool_id, noon(-40), {"apy": 1.0, "tvlUsd": None})])


def new_pool(source: World, engine: Engine) -> None:
    _add(source, engine, [("brand-new", noon(69), {"apy": 3.0, "tvlUsd": 1000.0})])


def changed_price(source: World, engine: Engine) -> None:
    source.prices[noon(20) + timedelta(hours=11), "ETH"] = 1234.5
    put_market(engine, source)


def changed_gas(source: World, engine: Engine) -> None:
    source.gas[START + timedelta(days=33)] = 99.25
    put_market(engine, source)


def next_days(source: World, engine: Engine) -> None:
    """Two days later: yesterday's partial day is complete, and only some pools have new rows."""
    source.now += timedelta(days=2)
    pools = sorted({row.pool_id for row in source.rows})
    _add(
        source,
        engine,
        [
            (
                pool,
                source.now - timedelta(days=1, hours=number),
                {"apy": 5.0 + number, "tvlUsd": 1e5},
            )
            for number, pool in enumerate(pools[::3])
        ],
    )


def gone_inactive(source: World, engine: Engine) -> None:
    source.inactive |= {row.pool_id for row in source.rows[:400:20]}
    put_market(engine, source)


def active_again(source: World, engine: Engine) -> None:
    source.inactive.clear()
    put_market(engine, source)


CHANGES = (
    late_correction,
    duplicate,
    bad_row_after_good_one,
    earlier_first_day,
    new_pool,
    changed_price,
    changed_gas,
    next_days,
    gone_inactive,
    active_again,
)


def test_incremental_runs_equal_a_full_one_after_each_change(
    database: Settings, engine: Engine
) -> None:
    generated = world(13, pools=30, days=70)
    put(engine, generated)
    run = job(database, generated)
    run()
    for change in CHANGES:
        before = len(job_rows(engine))
        change(generated, engine)
        result = run(now=generated.now)
        assert (result["status"], result["mode"]) == ("succeeded", "incremental"), change.__name__
        assert_equal_to_oracle(engine, generated)
        counts = result["rows"]
        assert len(job_rows(engine)) == before + counts["inserted"] - counts["removed"], (
            change.__name__
        )
        assert (counts["removed"] > 0) == (change is gone_inactive), change.__name__
        assert run(now=generated.now)["status"] == "nothing_to_do", change.__name__
    full = run(now=generated.now, full_refresh=True)
    assert (full["rows"]["inserted"], full["rows"]["updated"]) == (0, 0)


def test_all_changes_at_once(spark: SparkSession, database: Settings, engine: Engine) -> None:
    generated = world(14, pools=20, days=70)
    put(engine, generated)
    run = job(database, generated, spark)
    run()
    for change in CHANGES[:-1]:
        change(generated, engine)
    run(now=generated.now)
    assert_equal_to_oracle(engine, generated)


def test_row_committed_after_next_run_is_not_missed(database: Settings, engine: Engine) -> None:
    generated = world(15, pools=4, days=40)
    put(engine, generated)
    run = job(database, generated)
    late = RawRow(
        len(generated.rows) + 1,
        generated.rows[0].pool_id,
        noon(25) + timedelta(hours=11, minutes=59, seconds=59),
        {"apy": 4.5, "tvlUsd": 10},
    )
    with engine.connect() as slow, slow.begin():
        slow.exec_driver_sql(
            "INSERT INTO raw_defillama_pool_history (id, pool_id, timestamp, raw_json_data)"
            " OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s)",
            (late.id, late.pool_id, late.timestamp, '{"apy": 4.5, "tvlUsd": 10}'),
        )
        run()
        run()
    generated.rows.append(late)
    assert run()["rows"]["updated"] > 0
    assert_equal_to_oracle(engine, generated)


def test_backfill_recomputes_only_its_interval(database: Settings, engine: Engine) -> None:
    generated = world(16, pools=20, days=60)
    put(engine, generated)
    run = job(database, generated)
    start, end = START + timedelta(days=30), START + timedelta(days=40)
    only = run(start=start, end=end)
    assert (only["mode"], only["end"]) == ("backfill", end.isoformat())
    expected = {
        key: row for key, row in metrics_oracle.metrics(generated).items() if start <= key[1] < end
    }
    assert job_rows(engine).keys() == expected.keys()

    run()
    assert_equal_to_oracle(engine, generated)
    execute(engine, "UPDATE pool_daily_metrics SET rolling_apy_7d = -1")
    repaired = run(start=start, end=end)["rows"]
    assert (repaired["inserted"], repaired["updated"], repaired["unchanged"]) == (
        0,
        len(expected),
        0,
    )
    metrics = rows_of(
        engine,
        "SELECT DISTINCT date FROM pool_daily_metrics WHERE rolling_apy_7d IS DISTINCT FROM -1",
    )
    assert {row["date"] for row in metrics} == {day for _, day in expected}


def test_days_skipped_by_backfill_are_computed_later(database: Settings, engine: Engine) -> None:
    generated = world(17, pools=15, days=60)
    put(engine, generated)
    run = job(database, generated)
    run(now=noon(40))
    changed_price(generated, engine)
    run(now=generated.now, start=START + timedelta(days=55), end=START + timedelta(days=58))
    run(now=generated.now)
    assert_equal_to_oracle(engine, generated)


def test_columns_of_other_jobs_stay(database: Settings, engine: Engine) -> None:
    generated = world(18, pools=12, days=40)
    put(engine, generated)
    run = job(database, generated)
    run()
    theirs = "forecasted_apy, forecasted_tvl, is_filtered_out, filter_reason, pool_group"
    end = metrics_oracle.run_end(generated)
    execute(
        engine,
        "UPDATE pool_daily_metrics SET forecasted_apy = 1, forecasted_tvl = 2, is_filtered_out ="
        " true, filter_reason = 'dust', pool_group = 'g'",
    )
    execute(
        engine,
        "INSERT INTO pool_daily_metrics (pool_id, date, forecasted_apy) SELECT DISTINCT pool_id,"
        " CAST(:end AS date), 9.5 FROM pool_daily_metrics",
        end=end,
    )
    before = rows_of(
        engine, f"SELECT pool_id, date, {theirs} FROM pool_daily_metrics ORDER BY 1, 2"
    )
    gone_inactive(generated, engine)
    changed_gas(generated, engine)
    run(full_refresh=True)
    assert (
        rows_of(engine, f"SELECT pool_id, date, {theirs} FROM pool_daily_metrics ORDER BY 1, 2")
        == before
    )
    ended = (
        "AS m LEFT JOIN yieldspark.pool_coverage AS c ON c.pool_id = m.pool_id AND m.date BETWEEN"
        " first_day AND last_day WHERE c.pool_id IS NULL"
    )
    emptied = rows_of(
        engine,
        f"SELECT sum(num_nonnulls({', '.join(METRIC_COLUMNS)})) AS values, count(*) > 12 AS many"
        f" FROM pool_daily_metrics {ended}",
    )
    assert emptied == [{"values": 0, "many": True}]


def test_tighter_limits_recompute_everything(database: Settings, engine: Engine) -> None:
    generated = world(19, pools=20, days=40)
    put(engine, generated)
    job(database, generated)()
    tighter = replace(generated, max_apy_percent=25.0, max_fill_days=2)
    assert job(database, tighter)()["mode"] == "full_refresh"
    assert_equal_to_oracle(engine, tighter)


def test_nothing_to_do_without_raw_rows(database: Settings, engine: Engine) -> None:
    result = run_metrics(database, session=_no_session)
    assert (result["status"], result["jvm_started"], result["end"]) == (
        "nothing_to_do",
        False,
        None,
    )


def _no_session(rows: int) -> SparkSession:
    raise AssertionError("a Spark session was asked for")


def test_interrupted_run_changes_nothing(database: Settings, engine: Engine) -> None:
    put(engine, world(20, pools=5, days=20))

    def interrupt(rows: int) -> SparkSession:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_metrics(database, session=interrupt, now=noon(20))
    assert rows_of(engine, "SELECT status FROM yieldspark.run_ledger") == [{"status": "cancelled"}]
    assert (
        rows_of(
            engine,
            "SELECT tablename FROM pg_tables WHERE schemaname = 'yieldspark' AND tablename LIKE"
            " 'staging%'",
        )
        == []
    )
    assert job_rows(engine) == {}
