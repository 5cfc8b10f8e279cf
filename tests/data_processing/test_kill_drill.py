"""Tests that a command that is killed before any of its statements is undone, or completed by the
next one: `models promote` and `rollback`, `db migrate`, `ingest`, and a rollback of a release.

`-m long` kills before every statement, the daily suite before some. `test_release.py` kills a
release, `test_faults.py` jobs.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import RunInProgress
from config_spark import Settings
from data_processing.ingest.defillama import pull as defillama
from database.connections.engine import make_engine
from database.schema.migrate import migrate, require_current
from emulator.services.fake_storage import CUT_AFTER, FakeStorage, Fault
from emulator.services.http_server import serving
from emulator.services.http_service import Request
from forecasting.registry import versions
from tests.cli.test_model_commands import (
    NAMES,
    aliases,
    champion,
    last_decision,
    registered,
)
from tests.support.current_day import midnight_of, today
from tests.support.defillama_pulls import fill
from tests.support.defillama_server import DAY, running
from tests.support.fault_database import backends, closed_gate, ledger, wait_for_backend_at_gate
from tests.support.fault_runs import until
from tests.support.killed_process import (
    EVERY,
    NONE,
    kill_at_each,
    killed,
    migrate_database,
    promote,
    pull,
    roll_back,
    roll_release_back,
    started,
)
from tests.support.metrics_store import execute, rows_of
from tests.support.releases import (
    BUCKET,
    FIRST,
    SECOND,
    cloud_settings,
    latest_version,
    publish_at,
    small_release,
)
from workflows.releases.release import rollback

__all__ = ["registered"]

SHORT_WAIT_SECONDS = 30


@pytest.mark.parametrize(
    ("moved", "statements"),
    [
        (roll_back, "^(INSERT|UPDATE|DELETE)"),
        pytest.param(roll_back, EVERY, marks=pytest.mark.long),
        pytest.param(promote, EVERY, marks=pytest.mark.long),
    ],
)
def test_killed_promotion_is_undone_or_finished_by_next_command(
    registered: Settings, engine: Engine, moved: Callable[..., None], statements: str
) -> None:
    """To the old version, to the new one, and so on: each command is killed one statement later
    than the previous one, and then repeated.
    """
    again = {promote: versions.promote, roll_back: versions.roll_back}[moved]
    decided, is_committed = 2, set()
    for nth, target in enumerate(itertools.cycle(NAMES), start=1):
        if not killed(moved, registered, target, statements=statements, nth=nth):
            break
        served = champion(registered, engine)
        recorded = rows_of(engine, "SELECT serving_version FROM yieldspark.promotion ORDER BY id")
        assert recorded[-1]["serving_version"] == served
        is_committed.add(len(recorded) - decided)
        row = again(registered, engine, target, "again")
        assert (row["champion"], row["serving_version"]) == (served, target)
        is_settled(registered, engine, target)
        decided = len(recorded) + 1
    assert is_committed == {0, 1}, "killed before and after the decision's commit"
    assert nth > 5, "the move had next to no statement to be killed at"
    is_settled(registered, engine, target)


def is_settled(settings: Settings, engine: Engine, serves: str) -> None:
    """Registry, record and a run agree, each version is registered once, and none is pending."""
    assert champion(settings, engine) == last_decision(settings)["serving_version"] == serves
    assert [
        name
        for name, aliases_of_version in aliases(settings).items()
        if "champion" in aliases_of_version
    ] == [serves]
    listed_versions = versions.list_versions(settings, engine)
    assert sorted(version.version for version in listed_versions) == sorted(NAMES)
    assert rows_of(engine, "SELECT version FROM yieldspark.model_outbox") == []


COLUMNS = """
SELECT table_schema, table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns
WHERE table_schema IN ('public', 'yieldspark')
ORDER BY 1, 2, ordinal_position
"""


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)], ids=["some", "all"])
def test_killed_migration_changes_nothing(
    owner_tables: Settings, database: Settings, step: int
) -> None:
    engine = make_engine(owner_tables)
    before, killed_at = rows_of(engine, COLUMNS), [0]
    for nth in kill_at_each(migrate_database, owner_tables, step=step):
        assert rows_of(engine, COLUMNS) == before
        killed_at.append(nth)
    assert killed_at[-1] > 20, "a migration has more statements"
    require_current(engine)
    assert migrate(engine) is False
    assert own_columns(engine) == own_columns(make_engine(database))


def own_columns(engine: Engine) -> list[dict[str, Any]]:
    return [row for row in rows_of(engine, COLUMNS) if row["table_schema"] == "yieldspark"]


def test_second_migration_finishes_if_first_is_killed(
    owner_tables: Settings, database: Settings
) -> None:
    engine = make_engine(owner_tables)
    with closed_gate(engine):
        first = started(
            migrate_database, owner_tables, statements="CREATE TABLE", nth=5, at_gate=True
        )
        wait_for_backend_at_gate(engine)
        second = started(migrate_database, owner_tables, statements=NONE, nth=1)
        until(
            lambda: backends(engine, "wait_event = 'advisory' AND query ~ 'migrate'"),
            "the second migration waits for the first",
        )
        os.kill(first.pid or 0, signal.SIGKILL)
        first.join()
    second.join()
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL, 0)
    require_current(engine)
    assert own_columns(engine) == own_columns(make_engine(database))


@pytest.mark.parametrize("statements", ["^COMMIT", pytest.param(EVERY, marks=pytest.mark.long)])
def test_killed_ingest_is_resumed(database: Settings, engine: Engine, statements: str) -> None:
    pools = ["a", "b"]
    with running() as llama:
        fill(llama, *pools)
        midnight = int(midnight_of(today()).timestamp())
        closes = {midnight - DAY * ago: 1500.0 + ago for ago in range(5)}
        llama.prices = {"coingecko:ethereum": closes, "coingecko:bitcoin": closes}
        settings = database.model_copy(
            update={"defillama_yields_url": llama.url, "defillama_coins_url": llama.url}
        )
        skipped, killed_at = set(), [0]
        for nth in kill_at_each(pull, settings, pools, statements=statements):
            killed_at.append(nth)
            summary = pulled(settings, pools)
            skipped.add(summary["pools_skipped"])
            assert summary["pools_fetched"] + summary["pools_skipped"] == len(pools)
            assert summary["failed"] == []
            is_stored_once(engine, pools)
            assert {status for status, _ in ledger(engine)} <= {"failed", "succeeded"}
            assert ledger(engine)[-1][0] == "succeeded"
            for table in (*STORED, "yieldspark.ingest_progress", "yieldspark.run_ledger"):
                execute(engine, f"TRUNCATE {table}")
        assert skipped == {0, 1, 2}, "killed before, between and after the pools"
        assert killed_at[-1] >= 8, "a pull has more statements"
        is_stored_once(engine, pools)


STORED = {"raw_defillama_pool_history": 3, "pools": 1, "raw_coinmarketcap_ohlcv": 0}
"""Rows of each pool."""


def is_stored_once(engine: Engine, pools: list[str]) -> None:
    for table, rows in STORED.items():
        stored = rows_of(engine, f"SELECT count(*) AS rows FROM {table}")[0]["rows"]
        # closes of the days with a price, and of the day before the first snapshot
        assert stored == (rows * len(pools) or 8), table


def pulled(settings: Settings, pools: list[str]) -> dict[str, Any]:
    """Pull again while the backend of the killed pull still has the lock."""
    deadline = time.monotonic() + SHORT_WAIT_SECONDS
    while True:
        try:
            return defillama.ingest(settings, pool_ids=pools)
        except RunInProgress:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.usefixtures("processes")
def test_killed_release_rollback_names_complete_release(tmp_path: Path) -> None:
    fake = FakeStorage(tmp_path / "storage", [BUCKET])
    with serving([fake]) as url:
        for version in (FIRST, SECOND):
            publish_at(url, small_release(version))
    latest_versions: list[str | None] = []
    while release_rollback_is_killed(fake, after=len(latest_versions) + 1):
        latest_versions.append(latest_version(fake))
        with serving([fake]) as url:
            rollback(cloud_settings(url), FIRST)
            assert latest_version(fake) == FIRST
            rollback(cloud_settings(url), SECOND)
    # latest.json and the manifest are read, the files are listed, and latest.json is written
    assert latest_versions == [SECOND] * 3 + [FIRST]


def release_rollback_is_killed(fake: FakeStorage, *, after: int) -> bool:
    """Return whether the process was killed after request number `after`; False if it ended
    before.
    """
    process: list[ForkServerProcess] = []
    requests = itertools.count(1)

    def kill(_: int, __: Request) -> Fault | None:
        if next(requests) != after:
            return None
        until(lambda: process, "the process has begun")
        os.kill(process[0].pid or 0, signal.SIGKILL)
        return CUT_AFTER

    fake.fault = kill
    with serving([fake]) as url:
        process.append(started(roll_release_back, url, FIRST, statements=NONE, nth=1))
        process[0].join()
    fake.fault = None
    assert process[0].exitcode in (0, -signal.SIGKILL)
    return process[0].exitcode != 0
