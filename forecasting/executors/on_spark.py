"""The executor on Spark: features of partitions of pools in tasks, results from the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from config_spark import Settings
from database.db_utils_spark import StagedFrame, read_table_spark, transport_for
from database.ledger.runs import Run
from database.staging import StagedRows
from forecasting.engines.choose import choose_engine
from forecasting.engines.engine import Engine, FeatureRows
from forecasting.executors.executor import FeatureSource, RowsToStage
from forecasting.features.feature_frame import feature_rows
from forecasting.features.feature_names import LABELS
from spark.interrupt import interruptible, stop_if_interrupted


@contextmanager
def spark_executor(
    settings: Settings, run: Run, session: Callable[[], SparkSession]
) -> Iterator[SparkExecutor]:
    """Yields the executor; a signal cancels Spark's jobs.

    Args:
        run: the open run; the start of the session is its stage `session`.
        session: makes the session.
    """
    with run.stage("session"):
        spark = session()
        run.jvm_started = True
        # shown in the event log
        spark.sparkContext.setJobGroup(run.run_id, run.job)
    with interruptible(spark):
        yield SparkExecutor(settings, spark)


@dataclass(frozen=True)
class SparkExecutor:
    """Computes in a Spark session; see `Executor`."""

    settings: Settings
    spark: SparkSession

    def engine(self, name: str) -> Engine:
        return choose_engine(name, self.settings, self.spark)

    def prepare(self, engine: Engine, source: FeatureSource) -> FeatureRows:
        metrics = read_table_spark(
            self.spark,
            self.settings,
            source.metrics,
            partition_by="pool_id",
            snapshot=source.snapshot,
        )
        with feature_rows(metrics, source.spec, source.market) as rows:
            return engine.prepare(rows, source.features, LABELS, source.transfer)

    def staged(self, rows: RowsToStage) -> StagedRows:
        # Arrow makes NaN null; the staging checks refuse a number that stays NaN
        frame = self.spark.createDataFrame(
            rows.numbers_as_doubles(), from_arrow_schema(rows.schema)
        )
        transport = transport_for(self.settings, self.settings.write_transport)
        return StagedFrame(frame, rows.targets).rows(self.settings, transport)

    def on_loaded(self) -> None:
        stop_if_interrupted()
