"""The executor without a JVM: reads by Arrow through COPY, computes by numpy in this process.

The features of 180,000 pool-days take 1.4 s of one core, so no other process shares the work.
Imports no Spark.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from config_spark import Settings
from database.connections.engine import probe_session
from database.staging import StagedRows
from database.transport.arrow_copy import read_batches, stage_batches
from database.transport.tag_batches import tag_batches
from forecasting.engines.choose import choose_engine
from forecasting.engines.engine import Engine, FeatureRows
from forecasting.executors.executor import FeatureSource, RowsToStage
from forecasting.features.feature_names import LABELS
from forecasting.features.feature_rows import complete_rows
from forecasting.features.observed_values import staleness_column
from forecasting.features.pool_history import METRICS_SCHEMA

# COPY converts no types, and the columns of the database's owner may have others; "C" is the order
# of code points, in which the engine sorts
_SORTED_METRICS = f"""
SELECT CAST(m.pool_id AS text), CAST(m.date AS date),
    CAST(m.apy AS double precision), CAST(m.tvl AS double precision), CAST(m.pool_group AS text),
    CAST(m.{staleness_column("apy")} AS integer), CAST(m.{staleness_column("tvl")} AS integer)
FROM ({{metrics}}) AS m
ORDER BY CAST(m.pool_id AS text) COLLATE "C", m.date
"""


@dataclass(frozen=True)
class InProcessExecutor:
    """Computes in this process; see `Executor`. Its engine is `lightgbm`."""

    settings: Settings

    def engine(self, name: str) -> Engine:
        return choose_engine(name, self.settings, None)

    def prepare(self, engine: Engine, source: FeatureSource) -> FeatureRows:
        session = probe_session(self.settings).for_tasks
        select = _SORTED_METRICS.format(metrics=source.metrics)
        batches = read_batches(session, select, METRICS_SCHEMA, source.snapshot)
        rows = complete_rows(batches, source.spec, source.market)
        prepared = engine.prepare(rows, source.features, LABELS, source.transfer)
        del rows
        # Arrow keeps what it frees, two copies of the rows, and the fits need as much
        pa.default_memory_pool().release_unused()
        return prepared

    def staged(self, rows: RowsToStage) -> StagedRows:
        table = pa.Table.from_pandas(rows.numbers_as_doubles(), rows.schema, preserve_index=False)

        def load(staging: str) -> int:
            session = probe_session(self.settings).for_tasks
            batches = tag_batches(table.to_batches(), rows.schema, partition=0, attempt=0)
            return stage_batches(session, staging, 0, batches)

        return StagedRows(rows.schema, rows.targets, load)

    def on_loaded(self) -> None:
        """Does nothing: a signal raises KeyboardInterrupt at once."""
