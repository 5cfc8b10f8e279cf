"""Tests the benchmark's harness on a tiny history, and the counts of the parity report on a history
made by hand. Asserts no speed.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from benchmarks import container, spikes
from benchmarks.databases import differing_rows, empty_products_tables, make_peer_tables
from benchmarks.metrics import parse_cases, run_size, size_of
from benchmarks.metrics_data import History
from benchmarks.metrics_table import (
    Result,
    exponent_text,
    goal_results,
    result_document,
    result_text,
)
from benchmarks.pandas_parity import report
from benchmarks.parity import (
    CALENDAR,
    NOT_OVER,
    QUARANTINED,
    UNEXPLAINED,
    ComparisonData,
    Parity,
    compare,
)
from benchmarks.processes import Timing
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from tests.support.metrics_oracle import RawRow, World
from tests.support.metrics_store import execute, put, rows_of, without_jvm

FACTS = {"commit": "c", "machine": "m", "python": "3", "load_at_start": 0.0}

TODAY = date(2024, 3, 31)
DAYS = 30
FIRST = TODAY - timedelta(days=DAYS)


@pytest.mark.usefixtures("jvm")
@pytest.mark.parametrize(
    "peers",
    [
        ("polars", "sql"),
        pytest.param(("polars", "sql", "spark", "pandas"), marks=pytest.mark.long),
    ],
)
def test_the_harness_runs_the_job_and_its_peers(server: Settings, peers: tuple[str, ...]) -> None:
    """Takes over 20 s on two busy cores: each case is a process."""
    result = _tiny(server, ("full", *peers, "nothing-new"))
    compared = [peer for peer in peers if peer != "pandas"]
    assert {peer: result.differing[peer] for peer in compared} == dict.fromkeys(compared, 0)
    full = result.runs("full")[0]
    assert full.rows["read"] == result.raw_rows > 350
    assert 380 < full.rows["inserted"] <= 400
    assert full.peak_mb > 200
    assert full.cpu_seconds > 1
    assert json.loads(json.dumps(result_document(FACTS, result)))["raw_rows"] == result.raw_rows
    assert "ours nothing-new" in result_text(FACTS, result)


@pytest.mark.long
def test_the_harness_runs_what_arrives_later(server: Settings) -> None:
    result = _tiny(server, ("full", "new-day", "corrections"))
    new_day, corrections = (result.runs(case)[0].rows for case in ("new-day", "corrections"))
    assert (new_day["inserted"], new_day["updated"]) == (20, 0)
    assert corrections["inserted"] == 0 < corrections["updated"]


def _tiny(server: Settings, cases: tuple[str, ...]) -> Result:
    messages: list[str] = []
    result = run_size(server, "20x20", History.until_today(20, 20), cases, 1, messages.append)
    assert [timing.case for timing in result.timings] == list(cases)
    assert [timing.error for timing in result.timings if timing.error] == []
    assert len(messages) > len(cases)
    return result


def test_the_spike_benchmark_times_the_check(server: Settings) -> None:
    seconds = spikes.measure(server, (400, 800), indexes=False)
    assert list(seconds) == [400, 800]
    assert min(seconds.values()) > 0
    assert spikes.report({400: 1.0, 800: 2.3}).endswith("ratio 2.30, goal at most 2.2: missed")
    assert spikes.report({400: 1.0, 800: 2.2}).endswith("goal at most 2.2: hit")


def _usage(job: str, seconds: float, peak_mb: float, files_mb: float) -> container.JobUsage:
    timing = Timing(job, seconds, seconds, peak_mb, 0.0, "succeeded", seconds, {}, {"read": 7})
    return container.JobUsage(timing, files_mb)


def test_a_daily_run_fits_into_a_container_by_its_time_and_its_memory_with_files() -> None:
    def last_line(seconds: float, peak_mb: float, files_mb: float) -> str:
        jobs = {
            "calculate_metrics": _usage("calculate_metrics", 800.0, 2_000.0, 100.0),
            "forecast_pools": _usage("forecast_pools", seconds, peak_mb, files_mb),
        }
        report = container.report(jobs, {"raw row": 300.0}, 1_000_000)
        assert "raw row: 300 bytes in the database" in report
        return report.splitlines()[-1]

    assert "GiB: fits, 1800 of 1800 s of processor, 16,384 of" in last_line(
        1_000.0, 16_000.0, 384.0
    )
    assert "does not fit, 1801 of 1800 s of" in last_line(1_001.0, 16_000.0, 384.0)
    assert "does not fit, 1800 of 1800 s of processor, 16,385 of" in last_line(
        1_000.0, 16_000.0, 385.0
    )


def test_what_rows_take_in_the_database_counts_tables_with_their_indexes(
    database: Settings, engine: Engine
) -> None:
    execute(
        engine,
        """
        INSERT INTO pools (pool_id, name, chain, protocol, symbol)
        VALUES ('pool-1', 'pool-1', 'Base', 'aave-v3', 'USDC');
        INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
        SELECT 'pool-1', now() - n * interval '1 hour', '{}' FROM generate_series(1, 4) AS n;
        INSERT INTO pool_daily_metrics (pool_id, date)
        VALUES ('pool-1', '2026-01-01'), ('pool-1', '2026-01-02')
        """,
    )
    sizes = container.bytes_of_rows(database)
    # a page of the table, and pages of each of its three indexes
    assert sizes["raw row"] >= 4 * 8192 / 4
    assert sizes["pool-day"] > 8192


@pytest.mark.parametrize(
    ("only", "pools", "cases"),
    [("sql,full", 9, ("full", "sql")), ("pandas", 20_000, ("full-in-process", "pandas"))],
)
def test_only_names_cases(only: str, pools: int, cases: tuple[str, ...]) -> None:
    assert parse_cases(only, pools) == cases


def test_pandas_is_left_out_beyond_set_unless_named() -> None:
    assert "pandas" in parse_cases(None, 2_000)
    assert "pandas" not in parse_cases(None, 20_000)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(
        ValueError, match="polar is no case; allowed: full, full-in-process, full-read-adbc"
    ):
        parse_cases("polar", 10)
    with pytest.raises(ValueError, match="XL is no size; allowed: SET, L, 4L and POOLSxDAYS"):
        size_of("XL")


def test_a_history_is_the_same_whatever_the_chunk_and_its_days_are_complete() -> None:
    history = History(30, 12, TODAY)
    rows_of_chunks = (chunk.rows() for chunk in history.chunks())
    together = list(chain.from_iterable(rows_of_chunks))
    rows_of_days = (history.rows_of_day(number).rows() for number in range(12))
    assert together == list(chain.from_iterable(rows_of_days))
    days = [row[1][:10] for row in together]
    assert (days[0], days[-1], history.new_day()["timestamp"][0][:10]) == (
        "2024-03-18",
        "2024-03-29",
        "2024-03-30",
    )


def _timing(case: str, seconds: float, peak_mb: float = 0.0, **stages: float) -> Timing:
    return Timing(
        case, seconds, seconds, peak_mb, 0.0, None, sum(stages.values()) or None, stages, {}
    )


def test_goals_say_hit_or_missed_by_how_much_and_which_stage() -> None:
    timings = [
        _timing("full", 50, 7000, read=35, load=5),
        _timing("full-in-process", 30, 500, read=20, load=5),
        _timing("floor", 25, copy_out=2, copy_in=8, insert=15),
        _timing("polars", 20),
        _timing("spark", 100),
        _timing("new-day-in-process", 6, read=1, merge=3),
    ]
    result = Result("L", 1, 1, 1, timings, {"polars": 0})
    results = {
        goal["name"]: (goal["figure"], goal["hit"], goal["missed_by"], goal["longest_stage"])
        for goal in goal_results(result)
    }
    assert results == {
        "full in process / polars": (1.5, False, 0.7, "read"),
        "full by Spark / polars": (2.5, False, 1.2, "read"),
        "new day in process": (6.0, False, 3.5, "merge"),
        "full in process / floor": (1.2, True, 0.0, "read"),
        "full by Spark / floor": (2.0, False, 0.5, "read"),
        "full in process / plain Spark": (0.3, True, 0.0, "read"),
        "new day in process / polars full": (0.3, False, 0.2, "merge"),
        "peak memory": (7000, False, 856, "read"),
    }
    assert "peak memory: 7000 MB, goal <= 6144 MB: missed by 856 MB (14%)" in result_text(
        FACTS, result
    )


def test_the_exponent_of_time_against_rows() -> None:
    results = [
        Result(str(rows), 1, 1, rows, [_timing("full", seconds, read=seconds)], {})
        for rows, seconds in ((100, 10.0), (400, 80.0))
    ]
    assert "to the power 1.500, goal <= 1.05: missed by 0.450" in exponent_text(FACTS, results)


def _history(values: dict[int, Any], pool: str, first_id: int) -> list[RawRow]:
    """Return a document for each number of a day from FIRST; a list is several snapshots of that
    day, a tuple several of the same instant.
    """
    rows: list[RawRow] = []
    for number, day_documents in values.items():
        documents = day_documents if isinstance(day_documents, list | tuple) else [day_documents]
        for place, document in enumerate(documents):
            hour = 6 if isinstance(day_documents, tuple) else 6 + place
            moment = datetime(FIRST.year, FIRST.month, FIRST.day, hour, tzinfo=UTC) + timedelta(
                days=number
            )
            number_in_tie = (
                len(documents) - 1 - place if isinstance(day_documents, tuple) else place
            )
            rows.append(RawRow(first_id + 100 * number + number_in_tie, pool, moment, document))
    return rows


def _good(number: int) -> dict[str, Any]:
    return {"apy": 5 + number / 10, "tvlUsd": 1000 + number}


def _world_by_hand() -> World:
    """One pool for each cause, 30 complete days and one snapshot of today."""
    steady = {number: _good(number) for number in range(DAYS)}
    histories: dict[str, dict[int, Any]] = {
        "a-today": steady | {DAYS: {"apy": 9, "tvlUsd": 9}},
        "b-gap": {number: value for number, value in steady.items() if not 10 <= number < 22},
        "c-last": steady | {10: [{"apy": 50, "tvlUsd": 5}, {"apy": None, "tvlUsd": 6}]},
        "d-quarantined": steady | {10: {"apy": 50, "tvlUsd": -1}},
        "e-tie": steady | {10: ({"apy": 50, "tvlUsd": 5}, {"apy": 60, "tvlUsd": 6})},
        "f-inactive": {number: value for number, value in steady.items() if number < 25},
        "g-spike": {
            number: {"apy": 355_083 if number == 3 else 0.1 + number % 3 / 1000, "tvlUsd": 1}
            for number in range(DAYS)
        },
    }
    now = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
    source = World(now=now, inactive={"f-inactive"})
    for place, (pool, values) in enumerate(histories.items()):
        source.rows += _history(values, pool, 1_000_000 * (place + 1))
    for number in range(-2, DAYS):
        if number != 12:
            for symbol in ("ETH", "BTC"):
                source.prices[
                    datetime(FIRST.year, FIRST.month, FIRST.day, 23, tzinfo=UTC)
                    + timedelta(days=number),
                    symbol,
                ] = 100.0 + number
        if number >= 3:
            source.gas[FIRST + timedelta(days=number)] = 5.0 + number
    return source


@pytest.fixture
def parity(database: Settings, engine: Engine) -> Parity:
    source = _world_by_hand()
    put(engine, source)
    assert run_metrics(without_jvm(database), now=source.now)["status"] == "succeeded"
    return compare(ComparisonData.read(engine))


def test_parity_counts_every_cause_of_a_history_made_by_hand(parity: Parity) -> None:
    assert parity.unexplained == 0
    assert parity.rows_of_both == 6 * DAYS + 25
    assert (parity.only_pandas, parity.only_product) == ({NOT_OVER: 7, CALENDAR: 5}, {})
    assert parity.cells["actual_apy"] == {
        QUARANTINED: 1,
        "ties by id": 1,
        "last row": 1,
        "bounded carry": 5,
    }
    assert parity.cells["actual_tvl"] == {QUARANTINED: 1, "ties by id": 1, "bounded carry": 5}
    assert parity.cells["eth_open"] == parity.cells["btc_open"] == {"price of the day before": 7}
    assert parity.cells["gas_price_gwei"] == {"nothing from the future": 7 * 3}
    assert parity.cells["stddev_apy_7d"]["each window on its own"] > 0
    assert "each window on its own" not in parity.cells["actual_apy"]
    assert (
        "actual_apy                           205         197          8    3.90%  bounded carry 5"
        in report(parity)
    )


def test_a_difference_without_a_cause_is_unexplained(
    database: Settings, engine: Engine, parity: Parity
) -> None:
    assert parity.unexplained == 0
    execute(
        engine,
        "UPDATE pool_daily_metrics SET actual_tvl = actual_tvl + 1 WHERE pool_id = 'a-today' AND"
        " date = :day",
        day=FIRST,
    )
    result = compare(ComparisonData.read(engine))
    assert result.cells["actual_tvl"][UNEXPLAINED] == result.unexplained == 1


def test_differing_rows_are_counted_beyond_the_last_decimal(engine: Engine) -> None:
    make_peer_tables(engine)
    into = "INSERT INTO {} (pool_id, date, actual_apy, actual_tvl) VALUES "
    execute(
        engine,
        into.format("pool_daily_metrics")
        + "('p', '2024-01-01', 1, 1), ('p', '2024-01-02', 2, 2), ('p', '2024-01-03', 3, 3)",
    )
    execute(
        engine,
        into.format("bench.sql")
        + "('p', '2024-01-01', 1.0001, 1.01), ('p', '2024-01-02', 2.0002, 2), ('p', '2024-01-03',"
        " NULL, 3)",
    )
    assert differing_rows(engine, "sql") == 2
    execute(engine, into.format("bench.sql") + "('p', '2024-01-04', 1, 1)")
    assert differing_rows(engine, "sql") == 3


def test_emptied_tables_leave_the_migration_and_the_raw_rows(engine: Engine) -> None:
    put(engine, _world_by_hand())
    execute(engine, "INSERT INTO pool_daily_metrics (pool_id, date) VALUES ('p', '2024-01-01')")
    execute(engine, "INSERT INTO yieldspark.market_series (date) VALUES ('2024-01-01')")
    empty_products_tables(engine)
    tables = (
        "pool_daily_metrics",
        "yieldspark.market_series",
        "raw_defillama_pool_history",
        "yieldspark.alembic_version",
    )
    row_counts = [rows_of(engine, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables]
    assert (row_counts[:2], row_counts[2] > 0, row_counts[3]) == ([0, 0], True, 1)


def test_results_stay_out_of_the_repository() -> None:
    ignored = (Path(__file__).resolve().parents[2] / ".gitignore").read_text().splitlines()
    assert "/benchmarks/results/*.json" in ignored
