"""Tests the merge into a table without rows: a plain INSERT that keeps other writers out, and the
usual merge if another session uses the table.
"""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from database.ledger.runs import open_run
from database.schema import merge_sql
from database.schema.merge_sql import MergeTarget
from database.schema.owner_tables import pool_daily_metrics
from database.staging import MergeCounts, merge_staged
from tests.support.metrics_store import execute, rows_of

STAGING = "yieldspark.staging_of_test"
TARGET = MergeTarget(
    pool_daily_metrics,
    {"pool_id": "pool_id", "date": "date"},
    {"actual_apy": "actual_apy"},
    rows="actual_apy IS NOT NULL",
)
DAY = date(2025, 8, 3)
OTHER_ROW = "INSERT INTO pool_daily_metrics (pool_id, date) VALUES ('other', '2025-08-03')"


@pytest.fixture
def staged(engine: Engine) -> Engine:
    """A staging table with two rows of the target and one of another."""
    types = {"pool_id": "text", "date": "date", "actual_apy": "double precision"}
    execute(engine, merge_sql.create_staging(STAGING, types))
    execute(
        engine,
        f"INSERT INTO {STAGING} VALUES ('a', :day, 1.00004, 0, 0), ('b', :day, 2, 0, 0),"
        " ('c', :day, NULL, 0, 0)",
        day=DAY,
    )
    return engine


def merged(engine: Engine) -> MergeCounts:
    with (
        open_run(engine, job="merge_of_test", mode="incremental") as run,
        run.connection.begin(),
    ):
        return merge_staged(run, TARGET, STAGING)


def stored(engine: Engine) -> list[tuple[str, float | None]]:
    rows = rows_of(
        engine, "SELECT pool_id, actual_apy::float8 AS apy FROM pool_daily_metrics ORDER BY 1"
    )
    return [(row["pool_id"], row["apy"]) for row in rows]


def test_first_merge_inserts_and_second_changes_nothing(staged: Engine) -> None:
    assert merged(staged) == MergeCounts(inserted=2, updated=0, unchanged=0)
    assert stored(staged) == [("a", 1.0), ("b", 2.0)]
    assert merged(staged) == MergeCounts(inserted=0, updated=0, unchanged=2)


def test_other_writers_wait_for_the_first_merge_and_readers_do_not(staged: Engine) -> None:
    with (
        open_run(staged, job="merge_of_test", mode="incremental") as run,
        run.connection.begin(),
    ):
        merge_staged(run, TARGET, STAGING)
        assert stored(staged) == []
        with staged.connect() as writer:
            writer.exec_driver_sql("SET lock_timeout = '50ms'")
            with pytest.raises(OperationalError, match="lock timeout"):
                writer.exec_driver_sql(OTHER_ROW)


def test_first_merge_does_not_wait_for_another_writer(staged: Engine) -> None:
    with staged.begin() as writer:
        writer.exec_driver_sql(OTHER_ROW)
        assert merged(staged) == MergeCounts(inserted=2, updated=0, unchanged=0)
    assert stored(staged) == [("a", 1.0), ("b", 2.0), ("other", None)]
