"""Feature rows of all pools through Spark: no future data, reproducible bits, cross-section."""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sqlalchemy import Engine, insert, text

from database.schema.owner_tables import pool_daily_metrics
from forecasting.features.feature_frame import feature_rows
from forecasting.features.feature_names import (
    CROSS_SECTION,
    FEATURES,
    FLAGS,
    LABELS,
    MARKET,
    MARKET_SERIES,
    NUMBERS,
    ROW_COLUMNS,
    STATISTICS,
    feature_names,
)
from forecasting.features.feature_rows import complete_rows
from forecasting.features.labelled_features import FeatureSpec
from forecasting.features.market_features import PRICES_SCHEMA, add_market, market_changes
from forecasting.features.pool_features import MOVE_LIMIT
from forecasting.features.source_queries import market_query, metrics_query
from tests.support.feature_pools import spec, task_rows
from tests.support.forecast_panels import (
    END,
    METRICS,
    metric_rows,
    panel_rows,
    pool_rows,
    spark_rows,
    store,
)

AS_OF = END - dt.timedelta(days=12)
TICK = 1e-4


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Returns ten pools: some end before the as-of day, one starts, one changes its group, one
    jumps.
    """
    wild = pool_rows(
        "wild",
        [5.0] * 56 + [355_083.0, 0.0, 12.0] + [6.0] * 11,
        [1e6] * 56 + [0.0] * 3 + [1e12] * 11,
        group="stable",
    )
    moved = pool_rows("moved", [3.0, 4.0, 2.0, 5.0, 6.0] * 14, [1e6, 2e6] * 35)
    moved["pool_group"] = ["stable"] * 50 + [None] * 10 + ["moved"] * 10
    return pd.concat(
        [panel_rows(8, 70), wild, moved, pool_rows("comes", [9.0, 1.0] * 5, [1e6] * 10)],
        ignore_index=True,
    )


def collected(
    metrics: DataFrame, feature_spec: FeatureSpec, market: pa.Table | None = None
) -> pd.DataFrame:
    with feature_rows(metrics, feature_spec, market) as frame:
        return frame.toPandas().sort_values(["pool_id", "date"], ignore_index=True)


@pytest.fixture(scope="module")
def all_days(spark: SparkSession, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of all days, from the data of all days."""
    return collected(spark_rows(spark, rows), spec())


def assert_same_bits(actual: pd.DataFrame, expected: pd.DataFrame, names: Sequence[str]) -> None:
    keys = ["pool_id", "date", "pool_group"]
    assert (
        actual[keys].fillna("").to_numpy().tolist() == expected[keys].fillna("").to_numpy().tolist()
    )
    for name in names:
        assert (
            actual[name].to_numpy(np.float64).tobytes()
            == expected[name].to_numpy(np.float64).tobytes()
        ), name


def test_rows_are_the_same_bits_when_all_data_after_the_as_of_day_are_deleted(
    spark: SparkSession, rows: pd.DataFrame, all_days: pd.DataFrame
) -> None:
    """Compares features, scales, baselines, levels, groups, and labels known by the as-of day."""
    past_days = set(rows["date"][rows["date"] <= AS_OF])
    deleted = collected(spark_rows(spark, rows[rows["date"].isin(past_days)]), spec(as_of=AS_OF))
    not_read = collected(spark_rows(spark, rows), spec(as_of=AS_OF))
    of_later = all_days[all_days["date"].isin(past_days)]
    next_day = ("apy_next", "tvl_next", *LABELS)
    past = [name for name in (*FLAGS, *NUMBERS, *FEATURES) if name not in next_day]
    assert len(deleted) == 70 * 10 - 12 * 10
    assert_same_bits(deleted, not_read, [*past, *next_day])
    assert_same_bits(deleted, of_later, past)
    assert_same_bits(deleted[deleted["date"] < AS_OF], of_later[of_later["date"] < AS_OF], next_day)
    assert deleted.loc[deleted["date"] == AS_OF, list(next_day)].isna().all(axis=None)


def test_a_days_rows_are_the_same_bits_whichever_other_days_are_requested(
    spark: SparkSession, rows: pd.DataFrame, all_days: pd.DataFrame
) -> None:
    """A refit reads a year and inference one day: both have the other pools' moves of the day
    before.
    """
    alone = collected(spark_rows(spark, rows), spec(first_day=END))
    assert_same_bits(
        alone,
        all_days[all_days["date"] == END].reset_index(drop=True),
        [*FLAGS, *NUMBERS, *LABELS, *FEATURES],
    )


@pytest.fixture
def other_partitions(spark: SparkSession) -> Iterator[None]:
    names = {
        "spark.sql.shuffle.partitions": "5",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "33",
        "spark.sql.adaptive.enabled": "false",
    }
    before = {name: spark.conf.get(name) for name in names}
    for name, value in names.items():
        spark.conf.set(name, value)
    yield
    for name, old in before.items():
        assert old is not None
        spark.conf.set(name, old)


def test_rows_in_process_are_the_same_bits_as_on_spark(
    rows: pd.DataFrame, all_days: pd.DataFrame
) -> None:
    sorted_rows = metric_rows(rows.sort_values(["pool_id", "date"]))
    in_process = complete_rows(sorted_rows.to_batches(max_chunksize=41), spec(), None).to_pandas()
    assert set(in_process.columns) == set(all_days.columns)
    assert_same_bits(in_process, all_days, [*FLAGS, *NUMBERS, *LABELS, *FEATURES])
    nothing = complete_rows([], spec(), market_changes(PRICES_SCHEMA.empty_table()))
    assert (nothing.num_rows, set(nothing.column_names)) == (
        0,
        {*ROW_COLUMNS, *feature_names(market=True)},
    )


@pytest.mark.usefixtures("other_partitions")
def test_rows_are_the_same_bits_from_other_partitions_and_a_shuffled_input(
    spark: SparkSession, rows: pd.DataFrame, all_days: pd.DataFrame
) -> None:
    shuffled = spark_rows(spark, rows.sample(frac=1.0, random_state=3)).repartition(7, "date")
    assert_same_bits(collected(shuffled, spec()), all_days, [*FLAGS, *NUMBERS, *LABELS, *FEATURES])


def test_rows_are_those_of_the_tasks_with_the_cross_section(
    all_days: pd.DataFrame, rows: pd.DataFrame
) -> None:
    tasks = task_rows(rows.sort_values(["pool_id", "date"]))
    assert set(all_days.columns) == {*ROW_COLUMNS, *FEATURES}
    assert_same_bits(
        all_days,
        tasks,
        [*FLAGS, *NUMBERS, *LABELS, *(name for name in FEATURES if name not in CROSS_SECTION)],
    )


def test_unknown_values_are_null_and_never_nan(spark: SparkSession) -> None:
    numbers = (*NUMBERS, *LABELS, *FEATURES)
    with feature_rows(
        spark_rows(spark, pool_rows("a", [1.0, 2.0, None, 4.0], [None] * 4)), spec()
    ) as frame:
        counts = frame.agg(
            *(F.count_if(F.isnan(name)).alias(name) for name in numbers),
            F.count_if(F.isnull("apy_move_0")).alias("nulls"),
        ).first()
    assert counts is not None
    assert counts.asDict() == dict.fromkeys(numbers, 0) | {"nulls": 4}


def statistics_of(day: pd.DataFrame) -> dict[str, float]:
    """Returns the cross-section of these rows, from their moves in scales."""
    moves = [float(move) for move in day["apy_move_0"].dropna()]
    tvl_moves = [float(move) for move in day["tvl_move_0"].dropna()]
    return {
        "move_mean": statistics.fmean(moves) if moves else math.nan,
        "move_median": statistics.median(moves) if moves else math.nan,
        "move_dispersion": statistics.stdev(moves) if len(moves) > 1 else math.nan,
        "up_share": statistics.fmean(move > 0 for move in moves) if moves else math.nan,
        "tvl_move_mean": statistics.fmean(tvl_moves) if tvl_moves else math.nan,
    }


@pytest.mark.parametrize("scope", ["all", "group"])
def test_the_cross_section_is_of_all_pools_or_of_the_group_on_the_day_and_the_day_before(
    all_days: pd.DataFrame, scope: str
) -> None:
    """Pools without a group form one; the day before is that of the pool's group today."""
    group = (
        all_days["pool_group"].fillna("")
        if scope == "group"
        else pd.Series("", index=all_days.index)
    )
    of_day = {key: statistics_of(day) for key, day in all_days.groupby([all_days["date"], group])}
    nothing = dict.fromkeys(STATISTICS, math.nan)
    for (date, name), day in all_days.groupby([all_days["date"], group]):
        for suffix, then in (("", date), ("_yesterday", date - dt.timedelta(days=1))):
            for statistic, expected in of_day.get((then, name), nothing).items():
                values = day[f"{scope}_{statistic}{suffix}"].to_numpy(float)
                assert values == pytest.approx(
                    [expected] * len(day), rel=1e-5, abs=TICK, nan_ok=True
                ), (date, name, statistic, suffix)
    last = all_days[all_days["date"] == END]
    assert (
        last[[f"{scope}_{name}" for name in STATISTICS if name != "move_dispersion"]]
        .notna()
        .all(axis=None)
    )


def test_groups_of_the_fixture_are_more_than_one_pool_each(all_days: pd.DataFrame) -> None:
    sizes = (
        all_days[all_days["date"] == END]
        .groupby(all_days["pool_group"].fillna(""))["pool_id"]
        .agg(list)
        .to_dict()
    )
    assert sizes == {
        "": ["comes", "p00", "p02", "p04", "p06"],
        "moved": ["moved"],
        "stable": ["p01", "p03", "p05", "p07", "wild"],
    }


def test_all_pools_jumping_on_one_day_and_one_that_begins_on_it(spark: SparkSession) -> None:
    jumping = [
        pool_rows(name, [5.0] * 29 + [355_083.0], [1e6] * 29 + [0.0]) for name in ("a", "b", "c")
    ]
    features = collected(
        spark_rows(spark, pd.concat([*jumping, pool_rows("new", [3.0], [1e6], group="new")])),
        spec(),
    )
    last = features[features["date"] == END].set_index("pool_id")
    of_all = dict(
        zip(
            (f"all_{name}" for name in STATISTICS),
            (MOVE_LIMIT, MOVE_LIMIT, 0.0, 1.0, -MOVE_LIMIT),
            strict=True,
        )
    )
    assert (last[list(of_all)] == pd.Series(of_all)).all(axis=None)
    assert last["group_move_mean"].tolist()[:3] == [MOVE_LIMIT] * 3
    assert last[last.index == "new"].filter(like="group_").isna().all(axis=None)
    assert last["all_move_mean_yesterday"].tolist() == [0.0] * 4


PRICES: dict[int, dict[str, float | None]] = {
    8: {"eth": 100.0, "btc": 50.0, "gas": 10.0},
    7: {"eth": 110.0, "btc": None, "gas": 0.0},
    6: {"eth": 121.0, "btc": 60.0, "gas": 20.0},
    1: {"eth": 200.0, "btc": 70.0, "gas": 20.0},
    0: {"eth": 220.0, "btc": 35.0, "gas": 5.0},
}
"""By days before END: three days without any price, one without BTC, one with gas for nothing."""


def test_market_features_are_log_ratios_and_null_where_a_day_is_missing(
    spark: SparkSession,
) -> None:
    days = [{"date": END - dt.timedelta(days=back), **prices} for back, prices in PRICES.items()]
    market = market_changes(pa.Table.from_pylist(days, PRICES_SCHEMA))
    pools = spark_rows(
        spark, pd.concat([pool_rows(name, [1.0] * 9, [1e6] * 9) for name in ("a", "b")])
    )
    features = collected(pools, spec(), market)
    assert set(features.columns) == {*ROW_COLUMNS, *feature_names(market=True)}
    assert set(feature_names(market=True)) - set(feature_names(market=False)) == set(MARKET)
    for row in features.to_dict("records"):
        back = (END - row["date"]).days
        for name in MARKET_SERIES:
            for span in (1, 7):
                now, then = (PRICES.get(day, {}).get(name) for day in (back, back + span))
                expected = math.log(now / then) if now and then else math.nan
                assert row[f"{name}_change_{span}"] == pytest.approx(
                    expected, rel=1e-6, nan_ok=True
                ), (name, span, back)
    assert features["eth_change_7"].notna().sum() == 4


def test_a_day_without_prices_has_no_market_features() -> None:
    market = market_changes(PRICES_SCHEMA.empty_table())
    days = pa.table({"date": pa.array([END, END - dt.timedelta(days=1)])})
    rows = add_market(days, market).to_pandas()
    assert rows["date"].tolist() == days["date"].to_pylist()
    assert rows[list(MARKET)].isna().all(axis=None)


def rows_of_query(engine: Engine, query: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def test_queries_read_the_metrics_of_their_days_and_no_row_that_has_only_a_forecast(
    engine: Engine,
) -> None:
    a, b = (
        pool_rows(
            "a", [1.0, 2.5, None, None, 3.25, 4.0, 5.0], [1e6, None, 2e6, 3e6, 4e6, 5e6, 6e6]
        ),
        pool_rows("b", [7.0] * 4, [8e6] * 4, group="stable"),
    )
    rows = pd.concat([a, b, pool_rows("late", [None, 5.0], [None, None])], ignore_index=True)
    first, last = END - dt.timedelta(days=5), END - dt.timedelta(days=1)
    store(engine, rows)
    with engine.begin() as connection:
        connection.execute(
            insert(pool_daily_metrics), [{"pool_id": "young", "date": last, "forecasted_apy": 3.0}]
        )
    expected = rows[rows["date"].between(first, last) & (rows["pool_id"] != "late")]
    metrics = rows_of_query(
        engine, metrics_query("pool_daily_metrics", first, last) + " ORDER BY m.pool_id, m.date"
    )
    assert list(metrics[0]) == METRICS
    assert [row["apy_staleness_days"] for row in metrics] == [
        0,
        1,
        2,
        None,
        None,
        None,
        None,
        None,
    ], "an age is written where a value is carried"
    for row in metrics:
        row["apy_staleness_days"] = row["apy_staleness_days"] or 0
        row["tvl_staleness_days"] = row["tvl_staleness_days"] or 0
    assert metrics == metric_rows(expected).to_pylist()
    market = {}
    query = market_query("pool_daily_metrics", first, last) + " ORDER BY date"
    for row in rows_of_query(engine, query):
        market[row["date"]] = [float(row[name]) for name in MARKET_SERIES]
    days = expected.groupby("date")[["eth_open", "btc_open", "gas_price_gwei"]].first()
    assert list(market) == list(days.index)
    assert list(market.values()) == [
        pytest.approx(day, abs=0.01) for day in days.to_numpy(float).tolist()
    ]
