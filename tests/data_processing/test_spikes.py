"""Tests which snapshots the check of a commit reports as spikes, on a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.commit import spikes as spike_sql
from data_processing.planning.run_request import Request
from database import commit_checks as batch_checks
from tests.support.commit_runs import DAY, NEWEST, POOLS, TODAY, DailyRun, at, numbered
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_plans import add_run
from tests.support.metrics_store import put_rows


@pytest.fixture
def daily_run(database: Settings, engine: Engine) -> DailyRun:
    return DailyRun(database, engine)


Snapshots = list[tuple[float, Any]]

SPIKES: dict[str, Snapshots] = {
    "there and back": [(0, 100_000), (2, 1_100_000), (4, 101_000)],
    "down and back": [(0, 100_000), (2, 9_000), (4, 101_000)],
    "to zero and back": [(0, 100_000), (2, 0), (4, 101_000)],
    "over midnight": [(-3, 100_000), (-1, 2_000_000), (0.5, 100_000)],
    "an unusable row between": [(0, 100_000), (1, "bad"), (2, 1_100_000), (4, 101_000)],
    "a missing value between": [(0, 100_000), (1, None), (2, 1_100_000), (4, 101_000)],
}

NO_SPIKES: dict[str, Snapshots] = {
    "no more than the factor": [(0, 100_000), (2, 1_000_000), (4, 101_000)],
    "it stays": [(0, 100_000), (2, 1_100_000), (4, 1_100_000)],
    "six hours": [(0, 100_000), (2, 1_100_000), (6, 101_000)],
    "two snapshots": [(0, 100_000), (2, 1_100_000)],
    "from nothing to little": [(0, 1), (2, 999), (4, 1)],
    "corrected at the same moment": [(0, 100_000), (2, 1_100_000), (2, 101_000), (4, 100_000)],
    "already in quarantine": [(0, 100_000), (2, 2e12), (4, 101_000)],
}


@pytest.mark.parametrize("measure", ["apy", "tvlUsd"])
def test_spike_definition(
    daily_run: DailyRun, monkeypatch: pytest.MonkeyPatch, measure: str
) -> None:
    """An APY of 1 % corresponds to a TVL of 1,000 USD, with limits equally far away."""
    monkeypatch.setattr(batch_checks, "SAMPLE_ROWS", 100)
    kinds = SPIKES | NO_SPIKES
    unit = 0.001 if measure == "apy" else 1.0
    daily_run.settings = daily_run.settings.model_copy(update={"max_apy_percent": 1e6})
    daily_run.store_history(list(kinds))
    for pool, snapshots in kinds.items():
        values = [
            (hour, value * unit if isinstance(value, int | float) else value)
            for hour, value in snapshots
        ]
        daily_run.insert_rows(
            [
                RawRow(0, pool, at(NEWEST, hour), {measure: value, "apyBase": 1})
                for hour, value in values
            ]
        )
    entry = daily_run.run_checks()["spike"]
    assert {row["pool_id"] for row in entry["sample"]} == set(SPIKES)
    assert {row["measure"] for row in entry["sample"]} == {measure.removesuffix("Usd")}
    assert entry["failing"] == len(SPIKES)


@pytest.mark.parametrize(
    ("setting", "value", "kind", "is_one"),
    [
        ("spike_window_hours", 7.0, "six hours", True),
        ("spike_window_hours", 3.0, "there and back", False),
        ("max_spike_factor", 5.0, "no more than the factor", True),
        ("max_spike_factor", 20.0, "there and back", False),
    ],
)
def test_spike_by_setting(
    daily_run: DailyRun, setting: str, value: float, kind: str, is_one: bool
) -> None:
    daily_run.settings = daily_run.settings.model_copy(update={setting: value})
    daily_run.store_history([kind])
    daily_run.insert_rows(
        [
            RawRow(0, kind, at(NEWEST, hour), {"tvlUsd": tvl})
            for hour, tvl in (SPIKES | NO_SPIKES)[kind]
        ]
    )
    assert daily_run.run_checks()["spike"]["passed"] is not is_one


def test_known_spike_is_not_reported_again(daily_run: DailyRun) -> None:
    daily_run.store_history(POOLS[:1])
    daily_run.insert_rows(
        [
            RawRow(0, POOLS[0], at(NEWEST, hour), {"tvlUsd": value})
            for hour, value in ((1, 1e6), (2, 1e8), (3, 1e6))
        ]
    )
    assert not daily_run.run_checks()["spike"]["passed"]
    add_run(daily_run.engine, daily_run.settings, datetime.now(UTC), TODAY - DAY)
    daily_run.insert_rows([RawRow(0, POOLS[0], at(NEWEST, 4), {"tvlUsd": 1.1e6})])
    assert daily_run.run_checks()["spike"]["passed"]


def test_spike_reports_whether_it_is_value_of_its_day(daily_run: DailyRun) -> None:
    daily_run.store_history(POOLS[:1])
    daily_run.insert_rows(
        [
            RawRow(0, POOLS[0], at(NEWEST, hour), {"tvlUsd": value})
            for hour, value in ((21, 1e6), (23.9, 1e8), (25, 1e6))
        ]
    )
    (spike,) = daily_run.run_checks()["spike"]["sample"]
    assert (spike["before"], spike["spike"], spike["after"], spike["is_value_of_its_day"]) == (
        1e6,
        1e8,
        1e6,
        True,
    )


def test_first_run_looks_for_spikes_in_newest_days(daily_run: DailyRun) -> None:
    old, new = _spike_of(NEWEST - 8 * DAY), _spike_of(NEWEST)
    put_rows(daily_run.engine, numbered(old + new))
    entry = daily_run.run_checks()["spike"]
    assert (entry["failing"], entry["sample"][0]["timestamp"][:10]) == (1, NEWEST.isoformat())


def _spike_of(day: date) -> list[RawRow]:
    values = ((1, 1e6), (2, 1e8), (3, 1e6))
    return [RawRow(0, "p", at(day, hour), {"tvlUsd": value}) for hour, value in values]


def test_backfill_looks_for_spikes_in_its_newest_days(daily_run: DailyRun) -> None:
    daily_run.store_history(POOLS[:1])
    daily_run.insert_rows(
        [
            RawRow(0, POOLS[0], at(NEWEST - 2 * DAY, hour), {"tvlUsd": value})
            for hour, value in ((1, 1e6), (2, 1e8), (3, 1e6))
        ]
    )
    add_run(daily_run.engine, daily_run.settings, datetime.now(UTC), TODAY - DAY)
    assert daily_run.run_checks(Request(start=NEWEST - DAY, end=NEWEST))["spike"]["passed"]
    assert (
        daily_run.run_checks(Request(start=NEWEST - 3 * DAY, end=NEWEST))["spike"]["failing"] == 1
    )


def test_only_newest_rows_are_checked(daily_run: DailyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row of each pool is a normal one."""
    daily_run.store_history(POOLS[:2])
    for pool, hour in zip(POOLS, (1, 6), strict=False):
        daily_run.insert_rows(
            [
                RawRow(0, pool, at(NEWEST, hour + number), {"tvlUsd": value})
                for number, value in enumerate((1e6, 1e8, 1e6))
            ]
        )
    assert daily_run.run_checks()["spike"]["failing"] == 2
    monkeypatch.setattr(spike_sql, "NEWEST_ROWS", 2)
    (spike,) = daily_run.run_checks()["spike"]["sample"]
    assert spike["pool_id"] == POOLS[1]
