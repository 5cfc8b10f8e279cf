"""The panel: dense, cut at the as-of day, observed values told from carried ones."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from forecasting.panel import PANEL_COLUMNS, build_panel, metrics_query
from tests.forecast_panels import END, pool_rows, spark_rows


def panel_of(spark: SparkSession, rows: pd.DataFrame, as_of: dt.date = END) -> Any:
    return build_panel(spark_rows(spark, rows), as_of).toPandas().sort_values(["pool_id", "date"], ignore_index=True)


def test_a_pool_has_every_day_from_its_first_to_the_as_of_day(spark: SparkSession) -> None:
    rows = pool_rows("a", [1.0, 2.0, 3.0, 4.0], [10.0] * 4, end=END - dt.timedelta(days=3)).drop(index=[1])
    panel = panel_of(spark, rows)
    assert list(panel.columns) == list(PANEL_COLUMNS)
    assert panel["date"].tolist() == [END - dt.timedelta(days=back) for back in range(6, -1, -1)]
    assert panel["apy"].isna().tolist() == [False, True, False, False, True, True, True]


def test_rows_after_the_as_of_day_are_not_read(spark: SparkSession) -> None:
    rows = pool_rows("a", [1.0, 2.0, 3.0], [10.0] * 3)
    panel = panel_of(spark, rows, END - dt.timedelta(days=1))
    assert panel["apy"].tolist() == [1.0, 2.0]


def test_a_carried_value_is_a_level_but_not_observed(spark: SparkSession) -> None:
    panel = panel_of(spark, pool_rows("a", [1.0, None, 3.0], [10.0, 10.0, None]))
    assert panel["apy"].tolist() == [1.0, 1.0, 3.0]
    assert panel["apy_observed"].tolist() == [True, False, True]
    assert panel["tvl_observed"].tolist() == [True, True, False]
    assert panel["observed_days"].tolist() == [1, 2, 3]


def test_a_value_without_an_age_counts_as_observed(spark: SparkSession) -> None:
    rows = pool_rows("a", [1.0, 2.0], [10.0, None]).assign(apy_age_days=np.nan, tvl_age_days=np.nan)
    rows.loc[1, "actual_tvl"] = None
    panel = panel_of(spark, rows)
    assert panel["apy_observed"].tolist() == [True, True]
    assert panel["tvl_observed"].tolist() == [True, False]


def test_market_series_reach_days_a_pool_lacks_and_groups_default_to_all(spark: SparkSession) -> None:
    dead = pool_rows("dead", [1.0], [10.0], end=END - dt.timedelta(days=2))
    alive = pool_rows("alive", [1.0, 1.0, 1.0], [10.0] * 3, group="stable")
    panel = panel_of(spark, pd.concat([dead, alive]))
    by_pool = dict(iter(panel.groupby("pool_id")))
    assert by_pool["dead"]["eth"].tolist() == by_pool["alive"]["eth"].tolist()
    assert set(by_pool["dead"]["pool_group"]) == {"all"}
    assert set(by_pool["alive"]["pool_group"]) == {"stable"}


def test_query_reads_no_raw_table_and_no_row_that_holds_only_a_forecast() -> None:
    query = metrics_query(dt.date(2024, 1, 1), END)
    assert "raw_" not in query
    assert "BETWEEN DATE '2024-01-01' AND DATE '2024-06-30'" in query
    assert "actual_apy IS NOT NULL OR m.actual_tvl IS NOT NULL" in query


@pytest.mark.parametrize("values", [[0.0, 0.0], [355_083.0, 1.0]])
def test_values_pass_as_they_are(spark: SparkSession, values: list[float | None]) -> None:
    assert panel_of(spark, pool_rows("a", values, [10.0, 10.0]))["apy"].tolist() == values
