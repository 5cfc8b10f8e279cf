"""Tests the soak: two nights of the emulated workflow, one with a fault, and what it checks."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from benchmarks.soak import checks
from benchmarks.soak.__main__ import main
from benchmarks.soak.clock import SoakClock, create_database, set_server_clock
from benchmarks.soak.faults import FAULTS, faults_of_nights
from benchmarks.soak.nights import Night
from benchmarks.soak.source import FLOOD, KINDS, Source
from common.errors import ConfigurationError
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from tests.support.metrics_store import execute, rows_of

FIRST = date(2024, 1, 1)


@pytest.mark.usefixtures("processes", "server_programs", "jvm")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kills need /proc")
def test_two_nights(capsys: pytest.CaptureFixture[str]) -> None:
    """The disk is full in the first night, and the second delivery of the other is skipped.

    Four batches and a release take 40 s on two busy cores; nothing smaller runs the workflow twice.
    """
    options = ["--nights", "2", "--pools", "12", "--days", "60", "--seed", "5", "--json"]
    code = main([*options, "--faults", "double delivery,disk full"])
    output = capsys.readouterr()
    result: dict[str, Any] = json.loads(output.out)
    problems = [check["problems"] for check in result["checks"]]
    assert problems == [[]] * 7, output.err
    assert (code, result["passed"], result["seed"]) == (0, True, 5)
    nights = {night["fault"]: night for night in result["nights"]}
    assert nights["double delivery"]["executions"] == ["succeeded", "skipped"]
    assert "workflow-failed" not in nights["double delivery"]["alerts"]
    assert nights["disk full"]["executions"][0] == "failed"
    assert "workflow-failed" in nights["disk full"]["alerts"]
    assert "seed 5" in output.err


@pytest.mark.long
@pytest.mark.usefixtures("processes", "server_programs", "jvm")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kills need /proc")
def test_a_night_with_each_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes: eleven nights of two or three batches each."""
    nights = ["--nights", str(len(FAULTS)), "--pools", "20", "--days", "60", "--seed", "7"]
    code = main([*nights, "--json"])
    output = capsys.readouterr()
    result: dict[str, Any] = json.loads(output.out)
    assert [check["problems"] for check in result["checks"]] == [[]] * 7, output.err
    assert code == 0
    alerts = {night["fault"]: night["alerts"] for night in result["nights"]}
    assert [fault for fault in alerts if "cost" in alerts[fault]] == ["costly run"]


def source(nights: int = 4, seed: int = 1) -> Source:
    return Source(pools=30, first=FIRST, days=10, nights=nights, seed=seed)


def test_the_same_seed_gives_the_same_rows_and_faults() -> None:
    def rows(seed: int) -> list[Any]:
        made = source(seed=seed)
        nights = [made.rows_of_night(n, silent=n == 1, flooded=n == 2) for n in range(4)]
        return [made.history(), nights]

    assert rows(1) == rows(1) != rows(2)
    chosen = faults_of_nights(FAULTS, 25, random.Random(3))
    assert chosen == faults_of_nights(FAULTS, 25, random.Random(3))
    assert {Counter(chosen)[fault] for fault in FAULTS} == {2, 3}


def test_rows_of_a_night_are_of_every_kind() -> None:
    made = source(nights=12)
    made.history()
    nights = [made.rows_of_night(n, silent=False, flooded=n == 3) for n in range(12)]
    counts = [Counter(row.kind for row in rows) for rows in nights]
    assert all(set(count) <= set(KINDS) for count in counts)
    assert sum(counts, Counter()) + Counter(new=300) == made.inserted
    assert counts[3]["broken"] == FLOOD * 30
    assert sum(count["late"] for count in counts) > 0
    # a row of a night is of its day or of an earlier one, and ids of rows are unique
    for number, rows in enumerate(nights):
        assert max(row.at.date() for row in rows) == made.day(number)
    every = [(row.pool, row.at) for rows in nights for row in rows]
    assert len(set(every)) == len(every)


def test_a_silent_night_is_made_up_for_a_night_later() -> None:
    made = source()
    silent = made.rows_of_night(0, silent=True, flooded=False)
    assert made.newest_day is None or made.newest_day < made.day(0)
    assert not [row for row in silent if row.kind == "new"]
    following = made.rows_of_night(1, silent=False, flooded=False)
    assert Counter(row.at.date() for row in following if row.kind == "new")[made.day(0)] == 30


def test_an_alert_that_is_missing_or_has_no_reason_is_a_problem() -> None:
    since = datetime(2024, 1, 2, tzinfo=UTC)
    silent, loud, right = (Night(number, FAULTS[0], "", since) for number in range(3))
    silent.expected = ["data-age"]
    loud.fired = ["cost"]
    right.fired = right.expected = ["no-success"]
    assert checks._alerts([silent, loud, right]).problems == [
        "night 0: data-age did not fire",
        "night 1: cost fired without a reason",
    ]


@pytest.mark.usefixtures("processes")
def test_the_clock_of_the_database_and_of_the_jobs_is_moved(server: Settings) -> None:
    moment = datetime.now(UTC) - timedelta(days=40)
    clock = SoakClock(moment)
    name = f"soak_clock_{random.SystemRandom().randrange(10**6)}"
    settings = create_database(server, name)
    set_server_clock(server, name, clock.shift_seconds)
    engine: Engine = make_engine(settings)
    try:
        (row,) = rows_of(engine, "SELECT now() AS now, clock_timestamp() AS clock")
        assert all(abs(value - clock.now()) < timedelta(seconds=10) for value in row.values())
        execute(engine, "CREATE TABLE t (id int, at timestamptz DEFAULT now())")
        execute(engine, "INSERT INTO t (id) VALUES (1)")
        (row,) = rows_of(engine, "SELECT at FROM t")
        assert abs(row["at"] - clock.now()) < timedelta(seconds=10)
    finally:
        engine.dispose()
        with make_engine(server).execution_options(isolation_level="AUTOCOMMIT").connect() as admin:
            admin.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    job = load_settings(
        _env_file=None,
        google_api_endpoint="http://127.0.0.1:1",
        clock_shift_seconds=clock.shift_seconds,
    )
    assert abs(job.now() - clock.now()) < timedelta(seconds=10)
    with pytest.raises(ValueError, match="is in the future"):
        clock.set(datetime.now(UTC) + timedelta(days=1))


def test_only_an_emulator_has_another_clock() -> None:
    with pytest.raises(ConfigurationError, match="CLOCK_SHIFT_SECONDS=-60 moves the clock"):
        load_settings(_env_file=None, clock_shift_seconds=-60)
