"""Chooses and opens the executor of a run with a forecasting engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from config_spark import Settings
from database.ledger.runs import Run
from spark.executor_choice import IN_PROCESS_POOL_DAYS, ExecutorChoice, choose_executor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from forecasting.executors.executor import Executor


def executor_of_engine(
    settings: Settings, engine: str, rows_to_read: int, *, prefers_spark: bool
) -> ExecutorChoice:
    """Returns the executor by the rule of all jobs; SynapseML always needs Spark.

    Args:
        engine: name of the forecasting engine.
        rows_to_read: pool-days of metrics that the run reads.
        prefers_spark: whether EXECUTOR=auto is Spark, whatever the number of rows.
    """
    if engine == "synapseml":
        return ExecutorChoice("spark", "the engine synapseml is LightGBM on Spark")
    return choose_executor(
        settings, rows_to_read, limit=IN_PROCESS_POOL_DAYS, prefers_spark=prefers_spark
    )


@contextmanager
def open_executor(
    choice: ExecutorChoice, settings: Settings, run: Run, session: Callable[[], SparkSession]
) -> Iterator[Executor]:
    """Yields the chosen executor.

    Args:
        run: the open run; the start of a JVM is its stage `session`.
        session: makes the Spark session; called only for Spark.
    """
    # each of both loads libraries that the other does without
    if choice.name == "inprocess":
        from forecasting.executors.in_process import InProcessExecutor

        yield InProcessExecutor(settings)
        return
    from forecasting.executors.on_spark import spark_executor

    with spark_executor(settings, run, session) as executor:
        yield executor
