"""Tests INCLUDE_TODAY: rows of the partial day are marked, and no later run, check or forecast uses
them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import NotEnoughHistory
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from database.schema.migrate import migrate
from forecasting.publishing.actuals import update_actuals
from forecasting.run.as_of_day import forecast_as_of_day
from tests.support import metrics_oracle
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import DAY, RawRow, World
from tests.support.metrics_store import (
    execute,
    job_rows,
    put_market,
    put_rows,
    rows_of,
    settings_of,
    without_jvm,
)

LENIENT = (
    "many_pools_missing=off,rows_far_below_yesterday=off,null_share=off,some_pools_missing=off"
)

MARKED = "SELECT pool_id, date FROM yieldspark.provisional_days"


def moment(day: int, hour: int) -> dt.datetime:
    return dt.datetime.combine(START + day * DAY, dt.time(hour), dt.UTC)


def with_today(source: World) -> Mapping[Any, Mapping[str, Any]]:
    """Return the rows of active pools after the last complete day, as if today ended now."""
    end = metrics_oracle.run_end(source)
    past_rows = [row for row in source.rows if row.timestamp <= source.now]
    tomorrow = dt.datetime.combine(source.now.date() + DAY, dt.time(), dt.UTC)
    days = metrics_oracle.metrics(replace(source, rows=past_rows, now=tomorrow))
    return {
        key: row
        for key, row in days.items()
        if key[0] not in source.inactive and (end is None or key[1] >= end)
    }


def calculate(settings: Settings, source: World, *, today: bool, **options: Any) -> dict[str, Any]:
    chosen = settings_of(settings, source).model_copy(
        update={"include_today": today, "check_severities": LENIENT}
    )
    return run_metrics(without_jvm(chosen), Request(**options), now=source.now)


def check(engine: Engine, source: World, *, today: bool) -> None:
    """Check table, marks and ages. Rows of unfinished days have no row in `value_staleness`."""
    plain, partial = metrics_oracle.metrics(source), with_today(source) if today else {}
    marked = {(row["pool_id"], row["date"]): row for row in rows_of(engine, MARKED)}
    assert marked.keys() == partial.keys()
    actual = job_rows(engine)
    ages = {
        (row["pool_id"], row["date"]): row
        for row in rows_of(engine, "SELECT * FROM yieldspark.provisional_days")
    }
    for key, row in ages.items():
        actual[key] |= {name: row[name] for name in ("apy_staleness_days", "tvl_staleness_days")}
    assert metrics_oracle.differences_of_tables(actual, {**plain, **partial}) == []
    last = rows_of(engine, "SELECT max(last_day) AS day FROM yieldspark.pool_coverage")[0]["day"]
    assert last == max((day for _, day in plain), default=None)
    late = "SELECT count(*) AS rows FROM yieldspark.{} WHERE date >= :end"
    for table in ("value_staleness", "market_series"):
        end = metrics_oracle.run_end(source) or source.now.date()
        assert rows_of(engine, late.format(table), end=end) == [{"rows": 0}], table


class Growing:
    """A world that grows by hours: rows are inserted once their time is reached."""

    def __init__(self, engine: Engine, seed: int, days: int) -> None:
        self.engine, self.random = engine, Random(seed)
        whole = world(seed, pools=14, days=days)
        self.later = sorted(
            (row for row in whole.rows if row.timestamp.year == 2024), key=lambda row: row.timestamp
        )
        self.now = replace(whole, rows=[], now=moment(days - 12, 12))
        self.grow(0)

    def grow(self, hours: int) -> None:
        now = self.now.now + hours * dt.timedelta(hours=1)
        come = [row for row in self.later if row.timestamp <= now and self.random.random() < 0.9]
        self.later = [row for row in self.later if row not in come]
        self.now = replace(self.now, rows=[*self.now.rows, *come], now=now)
        put_rows(self.engine, come)
        put_market(self.engine, self.now)

    def switch_a_pool(self) -> None:
        pool = self.random.choice(sorted({row.pool_id for row in self.now.rows}))
        self.now = replace(self.now, inactive=self.now.inactive ^ {pool})
        put_market(self.engine, self.now)


def test_switching_the_setting_at_random_equals_a_full_refresh(database: Settings) -> None:
    _switch(database, 51, steps=8)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_switches(seed: int, database: Settings) -> None:
    _switch(database, seed, steps=16)


def _switch(database: Settings, seed: int, *, steps: int) -> None:
    engine = make_engine(database)
    growing = Growing(engine, seed, days=60)
    marked = 0
    for _ in range(steps):
        today, full = growing.random.random() < 0.6, growing.random.random() < 0.15
        calculate(database, growing.now, today=today, full_refresh=full)
        check(engine, growing.now, today=today)
        marked += len(rows_of(engine, MARKED))
        if growing.random.random() < 0.3:
            growing.switch_a_pool()
        growing.grow(growing.random.choice([0, 1, 6, 12, 24, 30]))
    assert marked > 0
    calculate(database, growing.now, today=False)
    check(engine, growing.now, today=False)
    again = calculate(database, growing.now, today=False, full_refresh=True)["rows"]
    assert (again["inserted"], again["updated"], again["removed"]) == (0, 0, 0)


@pytest.fixture
def small(engine: Engine) -> World:
    """Two pools over ten days; the first one has a row of today."""
    days_of_pools = [*product(("a", "b"), range(10)), ("a", 10)]
    rows = [
        RawRow(number, pool, moment(day, 9), {"apy": 1.0 + day, "tvlUsd": 10.0 + number})
        for number, (pool, day) in enumerate(days_of_pools, start=1)
    ]
    source = World(rows, now=moment(10, 12))
    put_rows(engine, rows)
    put_market(engine, source)
    return source


def test_day_is_final_on_next_day_without_new_row(
    small: World, database: Settings, engine: Engine
) -> None:
    calculate(database, small, today=True)
    check(engine, small, today=True)
    assert len(rows_of(engine, MARKED)) == 2, "every active pool has the day, as any other"
    tomorrow = replace(small, now=moment(11, 3))
    result = calculate(database, tomorrow, today=True)
    assert (result["rows"]["inserted"], result["status"]) == (0, "succeeded")
    check(engine, tomorrow, today=True)
    assert rows_of(engine, MARKED) == []
    assert calculate(database, tomorrow, today=True)["status"] == "nothing_to_do"


def test_rows_are_removed_without_setting_and_other_columns_stay(
    small: World, database: Settings, engine: Engine
) -> None:
    today = small.now.date()
    execute(
        engine,
        "INSERT INTO pool_daily_metrics (pool_id, date, forecasted_apy) VALUES ('a', :day, 4)",
        day=today,
    )
    calculate(database, small, today=True)
    result = run_metrics(
        settings_of(database, small).model_copy(update={"check_severities": LENIENT}),
        session=lambda rows: pytest.fail("no Spark session is needed"),
        now=small.now,
    )
    assert (result["status"], result["rows"]["removed"], result["jvm_started"]) == (
        "succeeded",
        2,
        False,
    )
    remaining = rows_of(engine, "SELECT * FROM pool_daily_metrics WHERE date = :day", day=today)
    assert [(row["pool_id"], row["forecasted_apy"], row["actual_apy"]) for row in remaining] == [
        ("a", 4, None)
    ]
    assert calculate(database, small, today=False)["status"] == "nothing_to_do"


def test_run_of_some_pools_finalizes_only_its_own_days(
    small: World, database: Settings, engine: Engine
) -> None:
    calculate(database, small, today=True)
    tomorrow = replace(small, now=moment(11, 3))
    calculate(database, tomorrow, today=True, pools=("a",))
    assert [row["pool_id"] for row in rows_of(engine, MARKED)] == ["b"]
    calculate(database, tomorrow, today=False)
    check(engine, tomorrow, today=False)


def test_forecasts_and_scores_ignore_provisional_day(
    small: World, database: Settings, engine: Engine
) -> None:
    calculate(database, small, today=True)
    day, tomorrow = small.now.date(), small.now.date() + DAY
    execute(
        engine,
        "INSERT INTO yieldspark.forecast_evaluation (pool_id, target_date, horizon_days, target,"
        " engine, as_of, forecast, persistence, model_version, run_id) VALUES ('a', :day, 1, 'apy',"
        " 'lightgbm', :before, 1, 1, 'v', 'r')",
        day=day,
        before=day - DAY,
    )
    assert forecast_as_of_day(database, as_of=None, today=tomorrow) == day - DAY
    with pytest.raises(NotEnoughHistory, match="has no observed value"):
        forecast_as_of_day(database, as_of=day, today=tomorrow)
    with engine.begin() as connection:
        assert update_actuals(connection) == 0
    calculate(database, replace(small, now=moment(11, 3)), today=True)
    assert forecast_as_of_day(database, as_of=None, today=tomorrow) == day
    with engine.begin() as connection:
        assert update_actuals(connection) == 1


def test_today_is_not_missing_pools(database: Settings, engine: Engine) -> None:
    """Two of 30 pools have a row of today: no check warns or blocks."""
    days_of_pools = [*product(range(30), range(3)), (0, 3), (1, 3)]
    rows = [
        RawRow(number, f"p{pool:02}", moment(day, 9), {"apy": 1.0, "tvlUsd": 1.0})
        for number, (pool, day) in enumerate(days_of_pools, start=1)
    ]
    source = World(rows, now=moment(3, 12))
    put_rows(engine, rows)
    put_market(engine, source)
    settings = settings_of(database, source).model_copy(update={"include_today": True})
    result = run_metrics(without_jvm(settings), now=source.now)
    assert [entry["name"] for entry in result["checks"] if not entry["passed"]] == []
    assert len(rows_of(engine, MARKED)) == 30


def test_change_of_metrics_table_removes_marks_and_keeps_rows(
    small: World, database: Settings, engine: Engine
) -> None:
    calculate(database, small, today=True)
    other = database.model_copy(update={"metrics_table": "other"})
    migrate(make_engine(other))
    day = small.now.date()
    execute(engine, "INSERT INTO other (pool_id, date, actual_apy) VALUES ('b', :day, 7)", day=day)
    calculate(other, small, today=False, full_refresh=True)
    assert rows_of(engine, MARKED) == []
    remaining = rows_of(engine, "SELECT pool_id, actual_apy FROM other WHERE date = :day", day=day)
    assert [(row["pool_id"], row["actual_apy"]) for row in remaining] == [("b", 7)]


def test_history_that_begins_today_with_later_rows(database: Settings, engine: Engine) -> None:
    """The later row is in the future until its hour; it is read once and stays one row of
    quarantine.
    """
    document = {"apy": 5.0, "tvlUsd": 10.0}
    rows = [
        RawRow(1, "a", moment(0, 9), document),
        RawRow(2, "a", moment(0, 15), document | {"apy": 6.0}),
        RawRow(3, "b", moment(0, 15), document),
    ]
    put_rows(engine, rows)
    early, late = World(rows, now=moment(0, 12)), World(rows, now=moment(0, 16))
    put_market(engine, early)
    for source, apys in ((early, [5]), (late, [5, 6])):
        calculate(database, source, today=True)
        check(engine, source, today=True)
        metrics = rows_of(engine, "SELECT actual_apy FROM pool_daily_metrics ORDER BY 1")
        assert [row["actual_apy"] for row in metrics] == apys
    calculate(database, replace(late, now=moment(1, 1)), today=True)
    check(engine, replace(late, now=moment(1, 1)), today=True)
    assert rows_of(engine, MARKED) == []
