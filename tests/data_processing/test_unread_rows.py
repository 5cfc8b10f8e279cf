"""Tests raw rows with an insertion timestamp older than the last run: a dry run, `doctor` and the
next run report their days until a run has read them, and report no other rows.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine

from cli.doctor.raw_history import unread_rows
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from tests.support.metrics_plans import NOW, TODAY, raw
from tests.support.metrics_store import execute, put_rows, rows_of, without_jvm

FIRST = date(2024, 4, 1)
OLD = datetime(2024, 5, 1, tzinfo=UTC)
DAYS = 60


class History:
    """Two pools with a snapshot a day, which a first run has read."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings, self.engine = without_jvm(settings), engine
        self.number = 0
        self.put(*product("ab", range(DAYS)))
        self.run()

    def put(self, *days: tuple[str, int], inserted: datetime | None = None) -> None:
        """Insert snapshots of (pool, day number).

        `inserted` is their insertion timestamp, as a copy keeps it.
        """
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

    def run(self, now: datetime = NOW, **options: Any) -> dict[str, Any]:
        return run_metrics(self.settings, Request(**options), now=now)

    def warnings(self, **options: Any) -> list[str]:
        """Return the warnings of a dry run."""
        plan = run_metrics(self.settings, Request(**options), dry_run=True, now=NOW)["plan"]
        return list(plan["warnings"])


@pytest.fixture
def history(database: Settings, engine: Engine) -> History:
    return History(database, engine)


def test_restored_rows_are_reported_until_they_are_read(history: History) -> None:
    assert history.warnings() == []
    assert unread_rows(history.settings)[0] == "ok"
    history.put(("a", 3), ("a", 5), ("b", 5), ("c", 5), inserted=OLD)
    (warning,) = history.warnings()
    assert "4 raw rows of 2 days (2024-04-04: 1, 2024-04-06: 3) were read by no run" in warning
    assert "--start 2024-04-04 --end 2024-05-14`, or `--full-refresh`" in warning
    result, problem, fix = unread_rows(history.settings)
    assert (result, f"{problem}. {fix}") == ("warn", warning)

    assert history.run()["status"] == "nothing_to_do"
    history.put(("a", DAYS))
    assert history.run()["status"] == "succeeded"
    plan = rows_of(
        history.engine, "SELECT plan FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1"
    )[0]["plan"]
    assert (plan["rows_unread"], plan["warnings"]) == (4, [warning])
    assert history.warnings() == [warning]

    assert history.warnings(full_refresh=True) == []
    options: dict[str, Any] = {"start": date(2024, 4, 4), "end": date(2024, 5, 14)}
    assert history.warnings(**options) == []
    assert history.run(**options)["status"] == "succeeded"
    assert history.warnings() == []


def test_backfill_that_ends_too_early_leaves_rows_unread(history: History) -> None:
    history.put(("a", 3), ("a", DAYS - 5), inserted=OLD)
    options: dict[str, Any] = {"start": FIRST, "end": FIRST + timedelta(days=20)}
    history.run(**options)
    (warning,) = history.warnings()
    assert "2 raw rows of 2 days" in warning
    end = FIRST + timedelta(days=DAYS)
    history.run(start=FIRST + timedelta(days=4), end=end)
    (warning,) = history.warnings()
    assert "1 raw rows of 1 days (2024-04-04: 1)" in warning
    history.run(pools=("a",), full_refresh=True)
    assert history.warnings() == [warning]
    history.run(full_refresh=True)
    assert history.warnings() == []


def test_deleted_pruned_or_rewritten_rows_are_not_reported(history: History) -> None:
    execute(history.engine, "DELETE FROM raw_defillama_pool_history WHERE id % 7 = 0")
    assert history.warnings() == []
    history.put(("a", DAYS))
    history.run()
    assert history.warnings() == []
    execute(history.engine, "TRUNCATE raw_defillama_pool_history")
    history.put(*product("ab", range(DAYS + 1)))
    history.run()
    assert history.warnings() == []
    history.put(("b", 7), inserted=OLD)
    (warning,) = history.warnings()
    assert "1 raw rows of 1 days (2024-04-08: 1)" in warning


def test_unfinished_day_and_rows_without_timestamp_are_not_reported(history: History) -> None:
    """A run reads such rows once their day is over, or always."""
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
    """As after an update from a version without the table."""
    execute(history.engine, "DELETE FROM yieldspark.raw_day_counts")
    history.put(("a", 3), inserted=OLD)
    assert history.warnings() == []
    history.put(("a", DAYS))
    history.run()
    query = "SELECT sum(snapshots) AS snapshots FROM yieldspark.raw_day_counts"
    assert rows_of(history.engine, query) == [{"snapshots": 2 * DAYS + 2}]
    history.put(("a", 3), inserted=OLD)
    assert len(history.warnings()) == 1
