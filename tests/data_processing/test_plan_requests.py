"""Tests the plan of a requested run: backfills, some pools, retries and invalid requests."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import ConfigurationError
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.plan import JOB
from data_processing.planning.run_request import Request, parse_pools, request_from_run
from database.ledger.runs import open_run
from tests.data_processing.test_metrics_plan import settled
from tests.support.metrics_plans import NOW, TODAY, add_run, planned, raw
from tests.support.metrics_store import put_rows, rows_of

__all__ = ["settled"]


def test_backfill_covers_every_pool_with_data(settled: Settings) -> None:
    plan, pools = planned(settled, Request(start=date(2024, 4, 1), end=date(2024, 4, 11)))
    assert (
        plan.decision.mode,
        plan.statistics.start,
        plan.decision.end,
        plan.out_of_range_rows,
    ) == (
        "backfill",
        date(2024, 4, 1),
        date(2024, 4, 11),
        None,
    )
    assert {pool: row["read_end"].date() for pool, row in pools.items()} == {
        "a": date(2024, 4, 11),
        "b": date(2024, 4, 11),
        "old": TODAY,
    }
    before, nobody = planned(settled, Request(start=date(2023, 1, 1), end=date(2023, 2, 1)))
    assert (before.is_empty, nobody) == (True, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": date(2024, 1, 1)}, "--end"),
        ({"end": date(2024, 1, 1)}, "--start"),
        ({"start": date(2024, 1, 2), "end": date(2024, 1, 2)}, "2024-01-02"),
        (
            {"start": date(2024, 1, 2), "end": date(2024, 1, 3), "full_refresh": True},
            "--full-refresh",
        ),
    ],
)
def test_rejects_invalid_interval(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Request(**arguments)


def test_recomputes_only_requested_pools(settled: Settings, engine: Engine) -> None:
    put_rows(
        engine,
        [
            raw(1000, "a", date(2024, 5, 10)),
            raw(1001, "b", date(2024, 5, 10)),
            raw(1002, "b", date(1970, 1, 1)),
        ],
    )
    plan, pools = planned(settled, Request(pools=("b", "old")))
    assert (list(pools), plan.is_partial, plan.out_of_range_rows) == (["b"], True, None)
    assert list(planned(settled, Request(full_refresh=True, pools=("old",)))[1]) == ["old"]
    add_run(engine, settled, datetime.now(UTC), TODAY, request={"pools": ["b"]})
    assert set(planned(settled)[1]) == {"a", "b"}


def test_error_names_unknown_pool(settled: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no raw rows of nobody"):
        run_metrics(settled, Request(pools=("a", "nobody")), now=NOW)


def test_pools_come_from_a_file_or_from_the_option_itself(tmp_path: Path) -> None:
    pool_file = tmp_path / "pools.txt"
    pool_file.write_text("a # the first\n\n b\na\n", encoding="utf-8")
    assert parse_pools(str(pool_file)) == parse_pools(" a,b,,a") == ("a", "b")
    assert parse_pools(None) is None
    assert parse_pools("a" * 5000) == ("a" * 5000,)
    for nothing in ("", ",", str(tmp_path / "empty")):
        (tmp_path / "empty").write_text("# none\n", encoding="utf-8")
        with pytest.raises(ConfigurationError, match="names no pool"):
            parse_pools(nothing)
    (tmp_path / "latin1").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="latin1 can't be read as a text file of pool ids"):
        parse_pools(str(tmp_path / "latin1"))


@pytest.mark.parametrize("status", ["failed", "blocked", "cancelled"])
def test_retry_keeps_days_of_failed_run(settled: Settings, engine: Engine, status: str) -> None:
    put_rows(engine, [raw(1000, "a", TODAY - timedelta(days=3)), raw(1001, "a", TODAY)])
    add_run(
        engine,
        settled,
        datetime.now(UTC),
        TODAY,
        status=status,
        run_id="lost",
        request=Request().to_json(),
    )
    request = request_from_run(engine, JOB, "lost")
    assert request == request_from_run(engine, JOB, "last") == Request(until=TODAY)
    plan, pools = planned(settled, request, now=NOW + timedelta(days=2))
    assert (plan.decision.end, pools["a"]["write_end"], plan.decision.unused_since is None) == (
        TODAY,
        TODAY,
        False,
    )
    backfill = Request(start=date(2024, 3, 1), end=date(2024, 3, 5), pools=("a",))
    add_run(
        engine,
        settled,
        datetime.now(UTC),
        TODAY,
        status=status,
        mode="backfill",
        run_id="filled",
        request=backfill.to_json(),
    )
    assert request_from_run(engine, JOB, "filled") == backfill


@pytest.mark.parametrize(
    ("lost", "mode"),
    [
        (Request(retire_missing=True), "full_refresh"),
        (Request(retire_missing=True, pools=("a",)), "full_refresh"),
        (
            Request(start=date(2024, 3, 1), end=date(2024, 3, 5), retire_missing=True),
            "backfill",
        ),
    ],
)
def test_run_that_retires_days_and_its_retry_recompute_requested_days(
    settled: Settings, engine: Engine, lost: Request, mode: str
) -> None:
    assert lost.mode == mode
    add_run(
        engine,
        settled,
        datetime.now(UTC),
        TODAY,
        status="failed",
        mode=mode,
        run_id="lost",
        request=lost.to_json(),
    )
    again = request_from_run(engine, JOB, "lost")
    assert (again.mode, again.retire_missing, again.pools) == (mode, True, lost.pools)


def test_only_a_failed_run_can_be_retried(settled: Settings, engine: Engine) -> None:
    with pytest.raises(
        ConfigurationError, match="is succeeded; only a run that is failed, blocked, cancelled"
    ):
        request_from_run(engine, JOB, "last")
    with pytest.raises(ConfigurationError, match="no such run"):
        request_from_run(engine, JOB, "nobody")


def test_wrong_use_records_no_run(settled: Settings, engine: Engine) -> None:
    """`--retry last` would take it for the failed run."""
    before = rows_of(engine, "SELECT run_id FROM yieldspark.run_ledger")
    for wrong in (
        Request(start=date(2024, 5, 1), end=date(2024, 6, 2)),
        Request(pools=("nobody",)),
    ):
        with pytest.raises(ConfigurationError):
            run_metrics(settled, wrong, now=NOW)
    assert rows_of(engine, "SELECT run_id FROM yieldspark.run_ledger") == before


def test_run_of_killed_driver_can_be_retried_at_once(settled: Settings, engine: Engine) -> None:
    filled = Request(start=date(2024, 3, 1), end=date(2024, 3, 5))
    add_run(
        engine,
        settled,
        datetime.now(UTC),
        TODAY,
        status="running",
        mode="backfill",
        run_id="killed",
        request=filled.to_json(),
    )
    assert (
        request_from_run(engine, JOB, "last") == request_from_run(engine, JOB, "killed") == filled
    )
    with (
        open_run(engine, job=JOB, mode="incremental") as run,
        pytest.raises(ConfigurationError, match="is running; only a run that is failed"),
    ):
        request_from_run(engine, JOB, run.run_id)


def test_rejects_end_in_future(settled: Settings) -> None:
    with pytest.raises(ConfigurationError, match="2024-06-02 is in the future"):
        run_metrics(settled, Request(start=date(2024, 5, 1), end=date(2024, 6, 2)), now=NOW)
