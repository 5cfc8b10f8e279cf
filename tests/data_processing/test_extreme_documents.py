"""Documents of the raw history that are large, deeply nested or ambiguous: both executors
quarantine them with a reason, use the other rows, and read no more of them than a number needs.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.checks.row_checks import MAX_NUMBER_LENGTH
from data_processing.executors.partition import SNAPSHOTS
from data_processing.metrics.raw_rows import parse_raw_rows
from data_processing.planning.run_request import Request
from tests.support.metrics_store import execute, job_rows, rows_of, without_jvm
from tests.support.processes import CommandLineHere

MEGABYTES = 10
LARGE_ROWS = 2
LEVELS = 10_000
"""PostgreSQL refuses 20,000 levels, by its limit of the stack."""

INSERT = """
INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
SELECT pool_id, timestamptz '2024-05-01 12:00+00' + day * interval '1 day', document
FROM (
    SELECT 'good', day, jsonb_build_object('apy', 5 + day, 'tvlUsd', 1000)
    FROM generate_series(1, 3) AS day
    UNION ALL
    SELECT 'long_text', day, jsonb_build_object('apy', repeat('9', :characters), 'tvlUsd', 1)
    FROM generate_series(1, :rows) AS day
    UNION ALL
    SELECT 'large_beside', day, jsonb_build_object(
        'apy', 7, 'tvlUsd', 1000, 'note', repeat('x', :characters)
    )
    FROM generate_series(1, 2) AS day
    UNION ALL
    SELECT 'nested', 1, jsonb_build_object('apy', (:nested)::jsonb, 'tvlUsd', 1)
    UNION ALL
    SELECT 'nested_beside', 1, jsonb_build_object('apy', 7, 'tvlUsd', 1, 'x', (:nested)::jsonb)
    UNION ALL
    SELECT 'duplicate', 1, '{"apy": 3, "tvlUsd": 1, "apy": "none"}'::jsonb
    UNION ALL
    SELECT 'no_object', day, document
    FROM (
        VALUES (1, '[]'::jsonb), (2, 'null'), (3, '"text"'), (4, '[{"apy": 1, "tvlUsd": 1}]')
    ) AS others (day, document)
) AS rows (pool_id, day, document)
"""
REASONS = {
    "long_text": ("apy_not_a_number", LARGE_ROWS),
    "nested": ("apy_not_a_number", 1),
    "duplicate": ("apy_not_a_number", 1),
    "no_object": ("apy_and_tvl_missing", 4),
}
USED = {"good": 3, "large_beside": 2, "nested_beside": 1}


@pytest.fixture
def documents(engine: Engine) -> None:
    nested = "[" * LEVELS + "1" + "]" * LEVELS
    execute(engine, INSERT, characters=MEGABYTES * 10**6, rows=LARGE_ROWS, nested=nested)


def _require(engine: Engine, result: dict[str, Any]) -> None:
    assert result["status"] == "succeeded"
    found = rows_of(
        engine,
        "SELECT pool_id, min(reason) AS reason, max(reason) AS last, count(*) AS rows FROM"
        " yieldspark.quarantine GROUP BY pool_id",
    )
    assert {row["pool_id"]: (row["reason"], row["rows"]) for row in found} == REASONS
    assert all(row["reason"] == row["last"] for row in found)
    rows = job_rows(engine).items()
    observed = [pool for (pool, _), row in rows if row["apy_staleness_days"] == 0]
    assert {pool: observed.count(pool) for pool in set(observed)} == USED


@pytest.mark.usefixtures("documents")
def test_processes_quarantine_them_and_read_numbers(database: Settings, engine: Engine) -> None:
    _require(engine, run_metrics(without_jvm(database), Request()))
    # PostgreSQL parses the documents: the processes read numbers
    assert {"apy", "tvl"} <= {field.name for field in SNAPSHOTS if field.type == pa.float64()}
    assert "raw_json_data" not in SNAPSHOTS.names


@pytest.mark.usefixtures("documents")
def test_spark_quarantines_them_and_reads_no_long_text(
    database: Settings, engine: Engine, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest: list[int] = []

    def measured(rows: DataFrame, checks: Any) -> DataFrame:
        longest.append(rows.agg(F.max(F.length("apy"))).collect()[0][0])
        return parse_raw_rows(rows, checks)

    monkeypatch.setattr("data_processing.executors.on_spark.parse_raw_rows", measured)
    _require(engine, run_metrics(database, Request(), session=lambda _: spark))
    assert longest == [MAX_NUMBER_LENGTH + 1]


@pytest.mark.usefixtures("documents")
def test_commands_show_them_without_a_traceback(
    run_here: CommandLineHere, database: Settings, engine: Engine
) -> None:
    run_metrics(without_jvm(database), Request())
    for row in rows_of(engine, "SELECT min(id) AS id FROM yieldspark.quarantine GROUP BY pool_id"):
        for options in ([], ["--json"]):
            finished = run_here("quarantine", "show", str(row["id"]), *options)
            assert finished.returncode == 0, finished.stderr[-2000:]
    assert run_here("quarantine", "list").returncode == 0


@pytest.mark.parametrize("text", [r"\ud800", r"\u0000", r"\udc00\ud800"])
def test_the_raw_table_itself_refuses_what_no_text_can_hold(engine: Engine, text: str) -> None:
    insert = (
        "INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data) VALUES ('p',"
        " now(), CAST(:document AS jsonb))"
    )
    with pytest.raises(DBAPIError, match=r"cannot be converted|surrogate"):
        execute(engine, insert, document=f'{{"apy": "{text}"}}')
