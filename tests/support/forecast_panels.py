"""Generated metrics for forecast tests: pools whose APY returns to its mean, with gaps.

Columns are those of `pool_daily_metrics` and the staleness of the values; APY in percent, TVL in
USD. A missing day is carried forward as the metrics job does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema
from sqlalchemy import Engine

from database.schema.metrics_table import metrics_name
from tests.support.metrics_store import insert_at_once

END = dt.date(2024, 6, 30)

SHORT = {
    "train_days": 60,
    "model_threads": 2,
    "model_parameters_file": Path(__file__).with_name("few_rounds.json"),
}
"""Settings of a model that learns a small panel quickly: a quarter of the rounds, larger steps."""

FEW_DAYS = {"TRAIN_DAYS": "30", "VALIDATION_DAYS": "20"}
"""Variables of a model that learns from few days of the sample, and forecasts few."""

MAX_CARRY = 7

SCHEMA = T.StructType(
    [
        T.StructField("pool_id", T.StringType()),
        T.StructField("date", T.DateType()),
        *(
            T.StructField(name, T.DoubleType())
            for name in ("actual_apy", "actual_tvl", "eth_open", "btc_open", "gas_price_gwei")
        ),
        T.StructField("pool_group", T.StringType()),
        T.StructField("apy_staleness_days", T.IntegerType()),
        T.StructField("tvl_staleness_days", T.IntegerType()),
    ]
)
METRICS = [
    "pool_id",
    "date",
    "apy",
    "tvl",
    "pool_group",
    "apy_staleness_days",
    "tvl_staleness_days",
]
AS_READ = {name: name for name in SCHEMA.names} | {"actual_apy": "apy", "actual_tvl": "tvl"}


def pool_rows(
    pool_id: str,
    apy: Sequence[float | None],
    tvl: Sequence[float | None],
    *,
    end: dt.date = END,
    group: str | None = None,
) -> pd.DataFrame:
    """Returns one pool's metrics, one value a day up to `end`; None is a missing day."""
    days = [end - dt.timedelta(days=len(apy) - 1 - offset) for offset in range(len(apy))]
    carried_apy, apy_age = _carried(apy)
    carried_tvl, tvl_age = _carried(tvl)
    number = np.array([(day - dt.date(2020, 1, 1)).days for day in days], dtype=float)
    return pd.DataFrame(
        {
            "pool_id": pool_id,
            "date": days,
            "actual_apy": carried_apy,
            "actual_tvl": carried_tvl,
            "eth_open": 2000.0 + 300.0 * np.sin(number / 9.0),
            "btc_open": 40000.0 + 3000.0 * np.sin(number / 13.0),
            "gas_price_gwei": 20.0 + 5.0 * np.cos(number / 5.0),
            "pool_group": group,
            "apy_staleness_days": apy_age,
            "tvl_staleness_days": tvl_age,
        },
        dtype=object,
    )


def panel_rows(pools: int, days: int, *, seed: int = 7, end: dt.date = END) -> pd.DataFrame:
    """Returns pools p00, p01, .. in two groups; every fifth has a gap of three days."""
    random = np.random.default_rng(seed)
    frames = []
    for number in range(pools):
        mean, spread = float(random.uniform(2, 30)), float(random.uniform(0.1, 2))
        apy: list[float | None] = list(
            np.maximum(mean + spread * random.standard_normal(days), 0.0)
        )
        tvl: list[float | None] = list(
            np.exp(random.uniform(11, 17) + np.cumsum(0.02 * random.standard_normal(days)))
        )
        if number % 5 == 4:
            apy[days // 2 : days // 2 + 3] = [None] * 3
        frames.append(
            pool_rows(f"p{number:02d}", apy, tvl, end=end, group="stable" if number % 2 else None)
        )
    return pd.concat(frames, ignore_index=True)


def history_rows(history: Path) -> pd.DataFrame:
    """Returns the last snapshot of each day of a real history (Parquet); no value is carried."""
    raw = pq.read_table(history, columns=["pool_id", "timestamp", "apy", "tvl_usd"]).to_pandas()
    raw["date"] = pd.to_datetime(raw["timestamp"], utc=True).dt.date
    days: pd.DataFrame = (
        raw.sort_values("timestamp").groupby(["pool_id", "date"], as_index=False).last()
    )
    days = days.rename(columns={"apy": "actual_apy", "tvl_usd": "actual_tvl"})
    days[
        [
            "pool_group",
            "apy_staleness_days",
            "tvl_staleness_days",
            "eth_open",
            "btc_open",
            "gas_price_gwei",
        ]
    ] = None
    return days


def metric_rows(rows: pd.DataFrame) -> pa.Table:
    """Returns the rows as `metrics_query` reads them, in the same order."""
    plain = rows[SCHEMA.names].astype(object)
    table = pa.Table.from_pandas(
        plain.where(plain.notna(), None), to_arrow_schema(SCHEMA), preserve_index=False
    )
    return table.rename_columns(AS_READ).select(METRICS)


def spark_rows(spark: SparkSession, rows: pd.DataFrame) -> DataFrame:
    """Returns the rows of `metric_rows` in Spark."""
    return spark.createDataFrame(_tuples(rows), SCHEMA).withColumnsRenamed(AS_READ).select(*METRICS)


def store(engine: Engine, rows: pd.DataFrame) -> None:
    """Inserts the rows as the metrics job does: metrics table and staleness."""
    ages = ["apy_staleness_days", "tvl_staleness_days"]
    names = [name for name in SCHEMA.names if name not in ages]
    stale = rows[(rows[ages] != 0).any(axis=1)]
    with engine.begin() as connection:
        for table, part, columns in (
            (metrics_name(engine), rows, names),
            ("yieldspark.value_staleness", stale, ["pool_id", "date", *ages]),
        ):
            into = f"{table} ({', '.join(columns)}) VALUES %s"
            insert_at_once(connection, into, _tuples(part, columns))


def _tuples(rows: pd.DataFrame, columns: Sequence[str] = SCHEMA.names) -> list[tuple[object, ...]]:
    plain = rows[list(columns)].astype(object)
    return [tuple(row) for row in plain.where(plain.notna(), None).itertuples(index=False)]


def _carried(values: Sequence[float | None]) -> tuple[list[float | None], list[int | None]]:
    carried: list[float | None] = []
    ages: list[int | None] = []
    last, age = None, 0
    for value in values:
        last, age = (value, 0) if value is not None else (last, age + 1)
        has_value = last is not None and age <= MAX_CARRY
        carried.append(float(last) if has_value and last is not None else None)
        ages.append(age if has_value else None)
    return carried, ages
