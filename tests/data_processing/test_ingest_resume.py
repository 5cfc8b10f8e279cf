"""Tests an ingest that ends early: the next one resumes it, and no stored pool is lost."""

from __future__ import annotations

import signal
import threading

import pytest
from sqlalchemy import Engine, text

from common.errors import SourceUnavailable
from config_spark import Settings
from data_processing.ingest.defillama.client import RetryPolicy
from data_processing.ingest.defillama.pull import ingest
from database.ledger.run_records import RunRecord, last_runs
from tests.data_processing.test_defillama import llama, pauses, settings
from tests.support.defillama_pulls import Pauses, days_ago, fill, rows, stored
from tests.support.defillama_server import (
    STALLED,
    DefiLlamaServer,
    Failure,
)

__all__ = ["llama", "pauses", "settings"]


def test_ingest_resumes_after_outage(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    names = [f"p{number:02}" for number in range(20)]
    fill(llama, *names)
    llama.down_after_charts = 8
    with pytest.raises(SourceUnavailable, match="5 pools in a row got no answer"):
        ingest(settings, concurrency=1, retry_policy=pauses.retry_policy(attempts=2))
    assert [pool_id for pool_id, _ in stored(engine)] == names[:8]
    assert len(set(llama.requested_charts())) <= 8 + 5 + 1
    assert last_runs(engine)["ingest"].status == "failed"

    llama.down_after_charts = None
    llama.requests.clear()
    summary = ingest(settings, retry_policy=pauses.retry_policy())
    assert (summary["pools_chosen"], summary["pools_fetched"], summary["pools_skipped"]) == (
        20,
        12,
        8,
    )
    assert sorted(llama.requested_charts()) == names[8:]
    assert stored(engine) == [(name, 3) for name in names]
    assert last_runs(engine)["ingest"].mode == "resume"

    assert ingest(settings, retry_policy=pauses.retry_policy())["pools_fetched"] == 20


def test_ingest_that_stored_nothing_is_not_resumed(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    """The owner's job updates every row of `pools` during the pull."""
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
    """Two interrupts; between them another job rewrites a pool's raw rows."""
    names = [f"p{number}" for number in range(8)]
    fill(llama, *names)
    llama.charts["p1"] = []

    def interrupted(after: str) -> RunRecord:
        def interrupt(message: str) -> None:
            if message.startswith(after):
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            ingest(settings, progress=interrupt, concurrency=1, retry_policy=pauses.retry_policy())
        run = last_runs(engine)["ingest"]
        assert run.status == "cancelled"
        return run

    check = interrupted("3 of 8 pools,").checks[0]
    assert (check["name"], check["passed"]) == ("every_pool_fetched", False)
    assert check["found"].startswith("5 of 8 pools not fetched yet: the next `ingest` continues")
    with engine.begin() as connection:
        connection.execute(text("UPDATE pools SET last_updated = clock_timestamp()"))
        connection.execute(text("DELETE FROM raw_defillama_pool_history WHERE pool_id = 'p0'"))
    check = interrupted("2 of 6 pools,").checks[0]
    assert check["found"].startswith("4 of 8 pools not fetched yet")
    llama.requests.clear()
    assert ingest(settings, retry_policy=pauses.retry_policy())["pools_skipped"] == 4
    assert sorted(llama.requested_charts()) == names[4:]
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
    "others", [STALLED, Failure(429, {"Retry-After": "200"})], ids=["silent server", "long pause"]
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
        # a request whose socket is closed ends with the time limit for silence at the latest
        ingest(settings, progress=interrupt, concurrency=3, retry_policy=RetryPolicy(silence=5.0))
    assert stored(engine) == [("p00", 3)]
    assert last_runs(engine)["ingest"].status == "cancelled"

    llama.release.set()
    fetching = [
        thread
        for thread in set(threading.enumerate()) - of_other_tests
        if thread.name.startswith("defillama-")
    ]
    for thread in fetching:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in fetching)
    assert len(llama.requested_charts()) <= 4
    llama.always.clear()
    assert ingest(settings)["pools_skipped"] == 1
