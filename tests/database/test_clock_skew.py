"""New rows on a server whose clock is behind that of its predecessor, as after a failover: each row
is read once.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.last_run import OVERLAP
from data_processing.planning.plan import JOB
from data_processing.planning.run_plan import Plan
from database.ledger.runs import open_run
from tests.data_processing.test_metrics_plan import settled
from tests.support.commit_runs import NEWEST, DailyRun, at
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_plans import NOW, TODAY, add_run, planned, raw
from tests.support.metrics_store import (
    execute,
    put_into_quarantine,
    put_rows,
    rows_of,
    without_jvm,
)

__all__ = ["settled"]

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
MAY_10 = date(2024, 5, 10)


def keep(engine: Engine, settings: Settings, plan: Plan) -> datetime:
    """Record the plan as that of a successful run; returns its watermark."""
    assert plan.decision.arrivals
    add_run(
        engine,
        settings,
        plan.decision.watermark,
        TODAY,
        unused_since=plan.decision.unused_since.isoformat() if plan.decision.unused_since else None,
        seen=plan.decision.arrivals.to_json(),
    )
    return plan.decision.watermark


def put_row(engine: Engine, number: int, inserted: datetime, day: date = MAY_10) -> None:
    """Insert a row of pool `a` with a given insertion timestamp."""
    put_rows(engine, [raw(number, "a", day)])
    execute(
        engine,
        "UPDATE raw_defillama_pool_history SET insertion_timestamp = :at WHERE id = :id",
        at=inserted,
        id=number,
    )


def no_session(_: int) -> SparkSession:
    raise AssertionError("a Spark session was asked for")


@pytest.mark.parametrize("skew", [timedelta(seconds=5), 2 * HOUR])
def test_reads_new_rows_after_the_clock_goes_back(
    database: Settings, engine: Engine, skew: timedelta
) -> None:
    """After the clock goes back, the watermark is in the future."""
    put_rows(engine, [raw(n, "a", MAY_10 + timedelta(days=n)) for n in range(20)])
    assert run_metrics(without_jvm(database), now=NOW)["status"] == "succeeded"
    assert run_metrics(database, session=no_session, now=NOW)["status"] == "nothing_to_do"
    put_rows(engine, [RawRow(100, "a", raw(0, "a", MAY_10).timestamp + HOUR, {"apy": 7.0})])
    execute(
        engine,
        "UPDATE yieldspark.run_ledger SET watermark = clock_timestamp() + :skew",
        skew=skew,
    )
    (foreseen,) = run_metrics(database, dry_run=True, now=NOW)["plan"]["warnings"]
    assert "the database server's clock says" in foreseen
    assert "are read again. Check the clocks" in foreseen
    assert run_metrics(without_jvm(database), now=NOW)["rows"]["updated"] > 0
    stored = "SELECT actual_apy FROM pool_daily_metrics WHERE pool_id = 'a' AND date = :day"
    assert [float(row["actual_apy"]) for row in rows_of(engine, stored, day=MAY_10)] == [7.0]
    again = run_metrics(database, session=no_session, now=NOW)
    assert (again["status"], again["jvm_started"]) == ("nothing_to_do", False)


def test_row_of_the_overlap_is_new_once(settled: Settings, engine: Engine) -> None:
    watermark = keep(engine, settled, planned(settled)[0])
    assert planned(settled)[0].is_empty
    put_row(engine, 1000, watermark - 5 * SECOND)
    plan, pools = planned(settled)
    assert (pools["a"]["write_from"], plan.decision.since) == (
        date(2024, 1, 1),
        watermark - OVERLAP,
    )
    keep(engine, settled, plan)
    assert planned(settled)[0].is_empty


def test_row_that_replaces_another_is_new(settled: Settings, engine: Engine) -> None:
    """The numbers of rows are equal, the rows are not."""
    watermark = keep(engine, settled, planned(settled)[0])
    execute(engine, "DELETE FROM raw_defillama_pool_history WHERE id = 5")
    put_row(engine, 1000, watermark - 5 * SECOND)
    assert "a" in planned(settled)[1]


def test_decision_of_the_overlap_is_new_once(settled: Settings, engine: Engine) -> None:
    execute(engine, "UPDATE raw_defillama_pool_history SET insertion_timestamp = '2024-05-31'")
    watermark = keep(engine, settled, planned(settled)[0])
    put_into_quarantine(engine, 3, "apy_beyond_limit", "dropped", watermark - 5 * SECOND)
    plan, pools = planned(settled)
    assert {pool: row["write_from"] for pool, row in pools.items()} == {"a": date(2024, 1, 2)}
    keep(engine, settled, plan)
    assert planned(settled)[0].is_empty


def test_clock_that_passes_the_watermark_again_is_detected(
    settled: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Three hours passed here, one on the server: its clock went back two hours in between."""
    execute(engine, "UPDATE raw_defillama_pool_history SET insertion_timestamp = '2024-05-31'")
    plan, _ = planned(settled)
    watermark = keep(engine, settled, plan)
    put_row(engine, 1000, watermark - HOUR)
    assert planned(settled)[0].is_empty
    execute(
        engine,
        "UPDATE yieldspark.run_ledger SET plan = jsonb_set(plan, '{seen,machine_clock}',"
        " to_jsonb(CAST(:at AS text))) WHERE plan ? 'seen'",
        at=(datetime.now(UTC) - 2 * HOUR).isoformat(),
    )
    plan, pools = planned(settled)
    assert pools["a"]["write_from"] == MAY_10
    assert plan.decision.since is not None
    assert abs(watermark - plan.decision.since - 2 * HOUR - OVERLAP) < timedelta(minutes=1)
    (warning,) = plan.to_json()["warnings"]
    assert "s less than this machine's: raw rows inserted since" in warning
    assert warning in caplog.text


def test_rows_from_before_the_clock_went_back_are_not_new(
    settled: Settings, engine: Engine
) -> None:
    """Their insertion timestamps are in the future for a while."""
    put_row(engine, 1000, datetime.now(UTC) + 2 * HOUR)
    plan, pools = planned(settled)
    assert pools["a"]["write_from"] == MAY_10
    keep(engine, settled, plan)
    assert planned(settled)[0].is_empty
    put_row(engine, 1001, datetime.now(UTC), MAY_10 + timedelta(days=3))
    assert planned(settled)[1]["a"]["write_from"] == MAY_10


def test_row_with_a_future_insertion_time_is_read_later(settled: Settings, engine: Engine) -> None:
    put_row(engine, 1000, datetime.now(UTC) + 2 * HOUR, TODAY + timedelta(days=2))
    keep(engine, settled, planned(settled)[0])
    pools = planned(settled, now=NOW + timedelta(days=4))[1]
    assert pools["a"]["write_end"] == TODAY + timedelta(days=3)


def test_reports_a_spike_after_the_clock_goes_back(database: Settings, engine: Engine) -> None:
    daily_run = DailyRun(database, engine)
    daily_run.store_history(["p"])
    add_run(engine, database, datetime.now(UTC) + 2 * HOUR, NEWEST)
    snapshots: list[tuple[int, dict[str, Any]]] = [
        (hour, {"tvlUsd": tvl}) for hour, tvl in ((1, 1e6), (2, 1e8), (3, 1e6))
    ]
    daily_run.insert_rows(
        [RawRow(0, "p", at(NEWEST, hour), document) for hour, document in snapshots]
    )
    assert daily_run.run_checks()["spike"]["failing"] == 1


def test_keeps_the_order_of_runs_after_the_clock_goes_back(
    database: Settings, engine: Engine
) -> None:
    add_run(engine, database, datetime.now(UTC), TODAY, run_id="before")
    execute(engine, "UPDATE yieldspark.run_ledger SET started_at = now() + interval '2 hours'")
    for _ in range(2):
        with open_run(engine, job=JOB, mode="incremental") as run:
            run.nothing_to_do()
    rows = rows_of(
        engine, "SELECT run_id, started_at, finished_at FROM yieldspark.run_ledger ORDER BY 2"
    )
    assert [rows[0]["run_id"], rows[-1]["run_id"]] == ["before", run.run_id]
    assert len({row["started_at"] for row in rows}) == 3
    assert all(row["finished_at"] >= row["started_at"] for row in rows[1:])
