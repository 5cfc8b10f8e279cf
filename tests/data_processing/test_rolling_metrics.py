"""Tests the transforms from raw rows to metrics against the oracle, with hundreds of generated
pools in one Spark job.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from config_spark import Settings, load_settings
from data_processing.checks.row_checks import raw_row_checks
from data_processing.metrics.market_columns import MARKET, market_columns
from data_processing.metrics.pool_metrics import (
    REJECTED,
    SCHEMA,
    SNAPSHOT_COLUMNS,
    VALUES,
    Provenance,
    compute_pool_metrics,
)
from data_processing.metrics.pool_metrics_spark import INTERVALS, group_by_pool
from data_processing.metrics.raw_rows import parse_raw_rows
from data_processing.metrics.rolling_metrics import (
    WINDOWS_AT_ONCE,
    look_back_days,
    rolling_metrics,
)
from database.schema.owner_tables import METRIC_COLUMNS
from tests.support import metrics_oracle
from tests.support.metrics_histories import START, as_text, world
from tests.support.metrics_oracle import RawRow, World

RAW = (
    "id bigint, pool_id string, timestamp timestamp, snapshot bigint, apy string, tvl string,"
    " not_in_pools boolean, dropped boolean, replaced boolean"
)
COLUMNS = (
    "actual_apy",
    "actual_tvl",
    "apy_staleness_days",
    "tvl_staleness_days",
    "rolling_apy_7d",
    "rolling_apy_30d",
    "stddev_apy_7d",
    "stddev_apy_30d",
    "apy_delta_today_yesterday",
    "stddev_apy_7d_delta",
    "stddev_apy_30d_delta",
)


def limits(source: World) -> Settings:
    return load_settings(
        _env_file=None,
        max_fill_days=source.max_fill_days,
        max_apy_percent=source.max_apy_percent,
        max_tvl_usd=source.max_tvl_usd,
    )


def raw_frame(spark: SparkSession, rows: list[RawRow]) -> DataFrame:
    records = [
        (
            r.id,
            r.pool_id,
            r.timestamp,
            r.id,
            as_text(r.document, "apy"),
            as_text(r.document, "tvlUsd"),
            False,
            False,
            False,
        )
        for r in rows
    ]
    return spark.createDataFrame(records, RAW)


def table(frame: DataFrame) -> dict[tuple[str, date], dict[str, Any]]:
    rows = [row.asDict() for row in frame.collect()]
    keyed = {(row["pool_id"], row["date"]): row for row in rows}
    assert len(keyed) == len(rows), "a pool and day more than once"
    return keyed


def computed(
    spark: SparkSession,
    source: World,
    calendar: list[tuple[Any, ...]],
    rows: list[RawRow] | None = None,
) -> dict[tuple[str, date], dict[str, Any]]:
    """Return the product's rows for `calendar`.

    `rows` are those that a run would read (default: all up to the run's end).
    """
    end = metrics_oracle.run_end(source)
    rows_read = (
        rows
        if rows is not None
        else [
            row
            for row in source.rows
            if end and (row.timestamp.date() < end or row.timestamp > source.now)
        ]
    )
    parsed = parse_raw_rows(raw_frame(spark, rows_read), raw_row_checks(limits(source), source.now))
    snapshots = group_by_pool(parsed, spark.createDataFrame(calendar, INTERVALS))
    days = snapshots.mapInArrow(
        compute_pool_metrics(source.max_fill_days, market_columns(()), Provenance("raw", "run")),
        from_arrow_schema(SCHEMA),
    ).cache()
    rejected = {row.snapshot: row.reason for row in days.where("reason IS NOT NULL").collect()}
    ids = {row.id for row in rows_read}
    reasons = metrics_oracle.quarantine(source).items()
    assert rejected == {number: reason for number, reason in reasons if number in ids}
    return table(days.where("reason IS NULL").drop(*REJECTED, *SNAPSHOT_COLUMNS, *MARKET))


def full_calendar(source: World) -> list[tuple[Any, ...]]:
    end = metrics_oracle.run_end(source)
    calendar = []
    for pool in {row.pool_id for row in source.rows}:
        open_end = None if pool in source.inactive else end
        calendar.append((pool, None, open_end, date(2018, 1, 1), end))
    return calendar


@pytest.mark.parametrize(("seed", "max_fill_days"), [(1, 7), (2, 0), (3, 31)])
def test_generated_pools_equal_the_oracle(
    spark: SparkSession, seed: int, max_fill_days: int
) -> None:
    generated = world(seed, pools=60, days=95, max_fill_days=max_fill_days)
    assert (
        metrics_oracle.differences(
            computed(spark, generated, full_calendar(generated)),
            metrics_oracle.metrics(generated),
            COLUMNS,
        )
        == []
    )


VALUE = st.one_of(
    st.floats(-2e6, 2e6, allow_nan=False).map(lambda value: round(value, 6)),
    st.sampled_from(
        [None, "NaN", "nan", "Infinity", "-inf", "abc", "", "1e5", "1.5d", True, 0, -0.0]
    ),
)
SNAPSHOT = st.tuples(
    st.integers(0, 60),
    st.integers(0, 86_399),
    st.fixed_dictionaries({"apy": VALUE, "tvlUsd": VALUE}),
)


# shrinking would take hundreds of Spark jobs
@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    pools=st.lists(st.lists(SNAPSHOT, min_size=1, max_size=12), min_size=25, max_size=40),
    inactive=st.sets(st.integers(0, 39)),
    fill=st.integers(0, 10),
)
def test_arbitrary_pools_equal_the_oracle(
    spark: SparkSession, pools: list[list[tuple[int, int, Any]]], inactive: set[int], fill: int
) -> None:
    flat = []
    for number, pool in enumerate(pools):
        flat += [(f"p{number}", snapshot) for snapshot in pool]
    midnight = datetime.combine(START, datetime.min.time(), UTC)
    rows = [
        RawRow(n, pool, midnight + timedelta(days=day, seconds=second), document)
        for n, (pool, (day, second, document)) in enumerate(flat)
    ]
    drawn = World(
        rows=rows,
        inactive={f"p{number}" for number in inactive},
        now=midnight + timedelta(days=55, hours=3),
        max_fill_days=fill,
    )
    expected = metrics_oracle.metrics(drawn)
    calendar = full_calendar(drawn) if metrics_oracle.run_end(drawn) else []
    assert (
        not calendar
        or metrics_oracle.differences(computed(spark, drawn, calendar), expected, COLUMNS) == []
    )


def test_read_limited_to_look_back_gives_same_rows(spark: SparkSession) -> None:
    generated = world(4, pools=60, days=120)
    end = metrics_oracle.run_end(generated)
    assert end is not None
    write_from = START + timedelta(days=95)
    read_from = write_from - timedelta(days=look_back_days(generated.max_fill_days))
    rejected = metrics_oracle.quarantine(generated)
    older = {
        row.pool_id
        for row in generated.rows
        if row.id not in rejected and row.timestamp.date() < read_from
    }
    calendar = [
        (pool, read_from if pool in older else None, stop, write_from, end)
        for pool, _, stop, _, _ in full_calendar(generated)
    ]
    rows_read = [row for row in generated.rows if read_from <= row.timestamp.date() < end]
    expected = metrics_oracle.metrics(generated)
    assert (
        metrics_oracle.differences(
            computed(spark, generated, calendar, rows_read), expected, COLUMNS, since=write_from
        )
        == []
    )


def test_the_grid_and_the_windows_shuffle_once(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [(1, "p", datetime(2024, 1, 1, tzinfo=UTC), 1, 1.0, 2.0, None, None)],
        "id bigint, pool_id string, timestamp timestamp, snapshot bigint, apy double, tvl double,"
        " reason string, warning string",
    )
    calendar = spark.createDataFrame(
        [("p", None, date(2024, 2, 1), date(2018, 1, 1), date(2024, 2, 1))], INTERVALS
    )
    plan = group_by_pool(rows, calendar)._jdf.queryExecution().executedPlan().toString()
    assert plan.count("Exchange hashpartitioning") == 1


def test_table_has_exactly_rows_of_tasks() -> None:
    """The names are repeated in the product, because a Python worker must not load the tables."""
    assert sorted(VALUES) == sorted(METRIC_COLUMNS)


def metrics_of(*pools: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the metrics of all days of pools, pool after pool."""
    apy = np.concatenate(pools)
    pool = np.repeat(np.arange(len(pools)), [days.size for days in pools])
    return rolling_metrics(apy, pool, np.arange(apy.size))


def test_pools_at_once_equal_each_pool_alone_to_the_bit() -> None:
    random = np.random.default_rng(17)
    pools = []
    for days in [1, 2, 6, 7, 8, 29, 30, 31, 400, *random.integers(1, 120, 200)]:
        apy = random.normal(5, 3, days) * 10.0 ** random.integers(-8, 8, days)
        apy[random.random(days) < random.choice([0.0, 0.3, 1.0])] = random.choice([np.nan, -0.0])
        pools.append(apy)
    alone = [metrics_of(apy) for apy in pools]
    together = metrics_of(*pools)
    # more windows than are computed at once
    assert sum(apy.size for apy in pools) > 2 * WINDOWS_AT_ONCE
    for name, values in together.items():
        expected = np.concatenate([metrics[name] for metrics in alone])
        assert values.tobytes() == expected.tobytes()


def test_some_days_have_the_values_of_all_days() -> None:
    random = np.random.default_rng(18)
    apy = random.normal(5, 3, 5000)
    pool = np.sort(random.integers(0, 60, 5000))
    rows = np.flatnonzero(random.random(5000) < 0.1)
    every_day = rolling_metrics(apy, pool, np.arange(5000))
    for name, values in rolling_metrics(apy, pool, rows).items():
        assert values.tobytes() == every_day[name][rows].tobytes()


def test_one_value_has_no_deviation_and_a_gap_no_change() -> None:
    apy = np.full(14, np.nan)
    apy[[0, 1, 12]] = 4.0, 6.0, 1.0
    days = metrics_of(apy)
    assert np.isnan([days["stddev_apy_7d"][0], days["apy_delta_today_yesterday"][0]]).all()
    assert days["rolling_apy_7d"][0] == 4.0
    assert days["stddev_apy_7d"][1] == pytest.approx(2**0.5)
    assert days["apy_delta_today_yesterday"][1] == 2.0
    assert np.isnan(
        [
            days["apy_delta_today_yesterday"][2],
            days["stddev_apy_7d_delta"][1],
            days["rolling_apy_7d"][10],
        ]
    ).all()
    assert days["rolling_apy_30d"][12] == pytest.approx(11 / 3)


def test_spike_does_not_change_later_windows() -> None:
    calm, spiked = np.full(80, 0.1), np.full(80, 0.1)
    spiked[5] = 1e15
    assert all(
        (metrics_of(calm)[name][36:] == values[36:]).all()
        for name, values in metrics_of(spiked).items()
    )


def test_pools_across_many_batches_stay_complete(spark: SparkSession) -> None:
    generated = world(5, pools=12, days=90)
    whole = computed(spark, generated, full_calendar(generated))
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    try:
        assert computed(spark, generated, full_calendar(generated)) == whole
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
