"""Tests raw rows with an insertion timestamp older than the last run: a dry run, `doctor` and the
next run report their days until a run has read them, and report no other rows.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from cli.doctor.raw_history import unread_rows
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from tests.data_processing.test_metrics_plan import NOW, TODAY, raw
from tests.support.metrics_store import execute, put_rows, rows_of

FIRST = date(2024, 4, 1)
OLD = datetime(2024, 5, 1, tzinfo=UTC)
DAYS = 60


class History:
    """Two pools with a snapshot a day, read by a first run."""

    def __init__(self, settings: Settings, engine: Engine, spark: SparkSession) -> None:
        self.settings, self.engine, self.spark = settings, engine, spark
        self.number = 0
        self.put(*((pool, n) for pool in "ab" for n in range(DAYS)))
        self.run()

    def put(self, *days: tuple[str, int], inserted: datetime | None = None) -> None:
        """Snapshots of (pool, day number); `inserted` is what a copy keeps of the original."""
        rows = [
            raw(self.number + n, pool, FIRST + timedelta(days=day))
            for n, (pool, day) in enumerate(days, start=1)
        ]
        put_rows(self.engine, rows)
        if inserted:
            execute(
                self.engine,
                "UPDATE raw_defillama_pool_history SET insertion_timestamp = :at WHERE id > :last",
                at=inserted,
                last=self.number,
            )
        self.number += len(rows)

    def run(self, now: datetime = NOW, **asked: Any) -> dict[str, Any]:
        return run_metrics(self.settings, Request(**asked), session=self._session, now=now)

    def _session(self, _: int) -> SparkSession:
        return self.spark

    def warnings(self, **asked: Any) -> list[str]:
        """What a dry run warns of."""
        plan = run_metrics(self.settings, Request(**asked), dry_run=True, now=NOW)["plan"]
        return list(plan["warnings"])


@pytest.fixture
def history(database: Settings, engine: Engine, spark: SparkSession) -> History:
    return History(database, engine, spark)


def test_restored_rows_are_reported_until_they_are_read(history: History) -> None:
    assert history.warnings() == []
    assert unread_rows(history.settings)[0] == "ok"
    history.put(("a", 3), ("a", 5), ("b", 5), ("c", 5), inserted=OLD)
    (said,) = history.warnings()
    assert "4 raw rows of 2 days (2024-04-04: 1, 2024-04-06: 3) were read by no run" in said
    assert "--start 2024-04-04 --end 2024-05-14`, or `--full-refresh`" in said
    result, found, fix = unread_rows(history.settings)
    assert (result, f"{found}. {fix}") == ("warn", said)

    assert history.run()["status"] == "nothing_to_do"
    history.put(("a", DAYS))
    assert history.run()["status"] == "succeeded"
    plan = rows_of(
        history.engine, "SELECT plan FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1"
    )[0]["plan"]
    assert (plan["rows_unread"], plan["warnings"]) == (4, [said])
    assert history.warnings() == [said]

    assert history.warnings(full_refresh=True) == []
    asked: dict[str, Any] = {"start": date(2024, 4, 4), "end": date(2024, 5, 14)}
    assert history.warnings(**asked) == []
    assert history.run(**asked)["status"] == "succeeded"
    assert history.warnings() == []


def test_backfill_that_ends_too_early_leaves_rows_unread(history: History) -> None:
    history.put(("a", 3), ("a", DAYS - 5), inserted=OLD)
    asked: dict[str, Any] = {"start": FIRST, "end": FIRST + timedelta(days=20)}
    history.run(**asked)
    (said,) = history.warnings()
    assert "2 raw rows of 2 days" in said
    end = FIRST + timedelta(days=DAYS)
    history.run(start=FIRST + timedelta(days=4), end=end)
    (said,) = history.warnings()
    assert "1 raw rows of 1 days (2024-04-04: 1)" in said
    history.run(pools=("a",), full_refresh=True)
    assert history.warnings() == [said]
    history.run(full_refresh=True)
    assert history.warnings() == []


def test_deleted_pruned_or_rewritten_rows_are_not_reported(history: History) -> None:
    execute(history.engine, "DELETE FROM raw_defillama_pool_history WHERE id % 7 = 0")
    assert history.warnings() == []
    history.put(("a", DAYS))
    history.run()
    assert history.warnings() == []
    execute(history.engine, "TRUNCATE raw_defillama_pool_history")
    history.put(*((pool, n) for pool in "ab" for n in range(DAYS + 1)))
    history.run()
    assert history.warnings() == []
    history.put(("b", 7), inserted=OLD)
    (said,) = history.warnings()
    assert "1 raw rows of 1 days (2024-04-08: 1)" in said


def test_unfinished_day_and_rows_without_timestamp_are_not_reported(history: History) -> None:
    """Such rows are read when their day is over, or in every run."""
    history.put(("a", DAYS), ("a", (TODAY - FIRST).days), ("b", (TODAY - FIRST).days + 1))
    history.run()
    assert history.warnings() == []
    execute(
        history.engine,
        "ALTER TABLE raw_defillama_pool_history ALTER insertion_timestamp DROP NOT NULL",
    )
    execute(
        history.engine,
        "UPDATE raw_defillama_pool_history SET insertion_timestamp = NULL WHERE id % 5 = 0",
    )
    assert history.warnings() == []
    history.run(now=NOW + timedelta(days=3))
    assert history.warnings() == []


def test_rows_before_first_count_are_taken_as_read(history: History) -> None:
    """After an update from a version without the table."""
    execute(history.engine, "DELETE FROM yieldspark.raw_day_counts")
    history.put(("a", 3), inserted=OLD)
    assert history.warnings() == []
    history.put(("a", DAYS))
    history.run()
    counted = "SELECT sum(snapshots) AS snapshots FROM yieldspark.raw_day_counts"
    assert rows_of(history.engine, counted) == [{"snapshots": 2 * DAYS + 2}]
    history.put(("a", 3), inserted=OLD)
    assert len(history.warnings()) == 1
