"""Computes a run with Spark: reads, parses, groups and computes while staging is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pyspark.sql import DataFrame, Observation, SparkSession

from config_spark import Settings
from data_processing.checks.row_checks import MAX_NUMBER_LENGTH
from data_processing.executors.computed_rows import ComputedRows
from data_processing.executors.executor_inputs import ExecutorInputs
from data_processing.metrics.market_columns import market_columns
from data_processing.metrics.pool_metrics import SCHEMA, compute_pool_metrics
from data_processing.metrics.pool_metrics_spark import group_by_pool
from data_processing.metrics.raw_rows import parse_raw_rows, row_count_columns
from data_processing.planning.plan_sql import INTERVAL_COLUMNS
from database.db_utils_spark import (
    ArrowTransform,
    StagedFrame,
    get_spark_session,
    read_table_spark,
    transport_for,
)
from database.ledger.runs import Run
from spark.interrupt import interruptible, stop_if_interrupted
from spark.session import stop_session


@contextmanager
def job_session(
    settings: Settings, run: Run, rows: int, create: Callable[[int], SparkSession] | None
) -> Iterator[SparkSession]:
    """Yield the Spark session of a run; a signal cancels its jobs.

    Args:
        settings: master and memory.
        run: the open run; the start is its stage `session`.
        rows: raw rows that the run reads.
        create: creates the session; None makes one that is stopped at the end.
    """
    with run.stage("session"):
        spark = create(rows) if create else get_spark_session(settings, run.job, rows_to_read=rows)
        run.jvm_started = True
        # shown in the event log
        spark.sparkContext.setJobGroup(run.run_id, run.job)
    try:
        with interruptible(spark):
            yield spark
    finally:
        if create is None:
            stop_session(spark)


def compute_on_spark(spark: SparkSession, inputs: ExecutorInputs) -> ComputedRows:
    """Return the rows of a run, lazily."""
    settings = inputs.settings
    raw, intervals = _read(spark, inputs)
    parsed = parse_raw_rows(raw, inputs.checks)
    grouped = group_by_pool(parsed, intervals)
    # a name of its own: Spark finds the metrics of a query by name, also those of an earlier run
    row_counts = Observation(f"raw rows of {inputs.provenance.run_id}")
    # counted after the shuffle, where the rows of a repeated task count once
    grouped = grouped.observe(row_counts, *row_count_columns(inputs.checks)).drop("warning")
    # Spark is lazy and this transform runs inside the writing task (`database.transport.adbc`), so
    # all work of the rows above is part of the load
    transform = ArrowTransform(
        compute_pool_metrics(
            settings.max_fill_days,
            market_columns(inputs.plan.decision.market),
            inputs.provenance,
        ),
        SCHEMA,
    )

    def raw_row_counts() -> Mapping[str, int]:
        counts: Mapping[str, int] = row_counts.get
        stop_if_interrupted()
        return counts

    transport = transport_for(settings, settings.write_transport)
    staged = StagedFrame(grouped, inputs.targets, transform).rows(settings, transport)
    return ComputedRows(staged, raw_row_counts)


def _read(spark: SparkSession, inputs: ExecutorInputs) -> tuple[DataFrame, DataFrame]:
    """Return the raw and stored rows to read, and each pool's intervals."""
    settings, snapshot = inputs.settings, inputs.snapshot
    raw = read_table_spark(
        spark, settings, _without_long_texts(inputs.rows), partition_by="pool_id", snapshot=snapshot
    )
    select_intervals = f"SELECT {INTERVAL_COLUMNS} FROM {inputs.plan.decision.table}"
    intervals = read_table_spark(spark, settings, select_intervals, snapshot=snapshot)
    return raw, intervals


def _without_long_texts(rows: str) -> str:
    """Return the SELECT with texts cut behind the longest number: the others are refused in any
    case, and a text of 10 MB in each row of a batch would fill the memory.
    """
    apy, tvl = (f"left({name}, {MAX_NUMBER_LENGTH + 1}) AS {name}" for name in ("apy", "tvl"))
    return (
        f"SELECT id, pool_id, timestamp, snapshot, {apy}, {tvl}, not_in_pools, dropped, replaced"
        f" FROM ({rows}) AS source"
    )
