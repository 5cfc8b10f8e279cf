"""Functions of the database folder that jobs use, under the owner's names.

Jobs read with `read_table_spark`, commit with `upsert_via_staging` or `commit_run`, and never see
which transport carried the rows.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from sqlalchemy import Table, text

from common.errors import EnvironmentNotReady
from common.settings import spark as spark_settings
from config_spark import Settings
from database import staging
from database.connections.engine import checked_connection, make_engine
from database.connections.parameters import connection_parameters
from database.connections.snapshots import exported_snapshot
from database.ledger.runs import Run, open_run
from database.schema.merge_sql import MergeTarget
from database.staging import MergeCounts, StagedRows
from database.transport.jdbc import (
    JdbcTransport,
    checked_jdbc,
    get_jdbc_properties,
    get_jdbc_url,
)
from database.transport.partitions import hash_predicates
from database.transport.query import ArrowTransform, Transport, portable_query
from spark.interrupt import stop_if_interrupted
from spark.jar_sets import has_jdbc_jar
from spark.session import get_spark_session, is_local_spark

__all__ = [
    "ArrowTransform",
    "MergeCounts",
    "MergeTarget",
    "StagedFrame",
    "commit_run",
    "execute_sql",
    "exported_snapshot",
    "get_jdbc_properties",
    "get_jdbc_url",
    "get_spark_session",
    "read_table_spark",
    "upsert_via_staging",
    "write_table_spark",
]

log = logging.getLogger(__name__)

MOST_READ_PARTITIONS = 32
"""Each partition of a read is a connection, and a scan of all rows for those whose hash is its own.
PostgreSQL allows 100 connections by default, and more scans than the server has cores add no speed.
"""


def transport_for(settings: Settings, preferred: spark_settings.Transport) -> Transport:
    """Return the preferred transport, or the other one with a warning if its driver is missing.

    Args:
        settings: settings of the database. A Unix socket needs ADBC.
        preferred: READ_TRANSPORT or WRITE_TRANSPORT.

    Raises:
        EnvironmentNotReady: neither driver is installed.
    """
    has_adbc = importlib.util.find_spec("adbc_driver_postgresql") is not None
    if has_adbc and connection_parameters(settings).is_socket:
        preferred = "adbc"
    # if the platform sets the master, the release has put the JDBC jar on the class path, not into
    # a folder of ours
    has_jdbc = has_jdbc_jar(settings) or not is_local_spark(settings)
    if not has_adbc and not has_jdbc:
        raise EnvironmentNotReady(
            "no PostgreSQL driver for Spark: neither the JDBC jar nor adbc-driver-postgresql is"
            " installed. Run `doctor`"
        )
    if (preferred == "adbc" and not has_adbc) or (preferred == "jdbc" and not has_jdbc):
        log.warning(
            "transport %s has no driver here: going on with %s",
            preferred,
            "jdbc" if preferred == "adbc" else "adbc",
        )
    if has_adbc and (preferred == "adbc" or not has_jdbc):
        # imported here: the package may be missing
        from database.transport.adbc import AdbcTransport

        return AdbcTransport()
    return JdbcTransport()


def read_table_spark(
    spark: SparkSession,
    settings: Settings,
    source: str,
    *,
    partition_by: str | None = None,
    partitions: int | None = None,
    snapshot: str | None = None,
) -> DataFrame:
    """Return rows as a lazy frame; numeric becomes double, json becomes text.

    Args:
        spark: the session.
        settings: settings of the database.
        source: a SELECT or the name of a table.
        partition_by: column whose hash splits the read; None reads one partition.
        partitions: number of partitions, MOST_READ_PARTITIONS at most; default is Spark's
            parallelism.
        snapshot: id of `exported_snapshot`; None reads the current state.

    Raises:
        SchemaMismatch: the table or a column is missing.
    """
    with checked_connection(make_engine(settings)) as connection:
        query = portable_query(connection, source)
    parts = min(partitions or spark.sparkContext.defaultParallelism, MOST_READ_PARTITIONS)
    predicates = hash_predicates(partition_by, parts)
    return transport_for(settings, settings.read_transport).read(
        spark, settings, query, predicates, snapshot
    )


@dataclass(frozen=True)
class StagedFrame:
    """A frame that is loaded once and merged into each target, in order.

    Attributes:
        frame: its columns are boolean, int, bigint, double, string, date or timestamp.
        targets: tables and columns to merge into.
        transform: turns the frame's Arrow batches into the rows to stage, inside the writing task;
            None loads the frame as it is.
    """

    frame: DataFrame
    targets: Sequence[MergeTarget]
    transform: ArrowTransform | None = None

    def rows(self, settings: Settings, transport: Transport) -> StagedRows:
        """Return the rows, which `transport` loads."""
        schema = self.transform.schema if self.transform else to_arrow_schema(self.frame.schema)

        def load(staging: str) -> int:
            return transport.write(self.frame, settings, staging, self.transform)

        return StagedRows(schema, self.targets, load)


def commit_run(
    run: Run,
    settings: Settings,
    staged: Sequence[StagedFrame],
    *,
    transport: Transport | None = None,
    on_loaded: Callable[[], None] | None = None,
    **options: Any,
) -> MergeCounts:
    """`staging.commit_run` of frames.

    Args:
        run: the open run.
        settings: the database.
        staged: frames to load.
        transport: carries the rows to PostgreSQL; None uses that of the settings.
        on_loaded: as in `staging.commit_run`.
        **options: as in `staging.commit_run`.
    """
    writer = transport or transport_for(settings, settings.write_transport)

    def loaded() -> None:
        if on_loaded:
            on_loaded()
        # Spark's last job was nearly done when the signal came, so that nothing was cancelled
        stop_if_interrupted()

    rows = [frame.rows(settings, writer) for frame in staged]
    return staging.commit_run(run, rows, on_loaded=loaded, **options)


def upsert_via_staging(
    frame: DataFrame, settings: Settings, table: Table, *, job: str = "upsert"
) -> MergeCounts:
    """Upsert a frame into a table by its primary key, as a run of its own in the ledger.

    Args:
        frame: its columns are columns of the table, the key among them.
        settings: settings of the database.
        table: the target.
        job: name of the run's job.

    Raises:
        RunInProgress: another run of the job holds the lock.
        CheckFailed: a check failed, nothing was written.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    keys = {column.name: column.name for column in table.primary_key}
    columns = {name: name for name in frame.columns if name not in keys}
    with open_run(
        make_engine(settings), job=job, mode="upsert", code_version=settings.code_version
    ) as run:
        # the session of the frame is a JVM that runs already
        run.jvm_started = True
        return commit_run(run, settings, [StagedFrame(frame, [MergeTarget(table, keys, columns)])])


def write_table_spark(frame: DataFrame, settings: Settings, table: str) -> int:
    """Append a frame to an existing table by JDBC; return the number of its rows.

    For a target with a key use `upsert_via_staging`: a retried task appends its rows twice.
    """
    written = Observation()
    # counted while it is written: a count() would compute the frame twice
    counted = frame.observe(written, F.count(F.lit(1)).alias("rows"))
    url, properties = checked_jdbc(frame.sparkSession, settings)
    counted.write.jdbc(url, table, mode="append", properties=properties)
    return int(written.get["rows"])


def execute_sql(
    settings: Settings, statement: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Run one statement in a transaction of its own.

    Returns:
        Its rows as dicts; empty for a statement that returns none.
    """
    with checked_connection(make_engine(settings)) as connection:
        result = connection.execute(text(statement), dict(parameters or {}))
        return [dict(row) for row in result.mappings()] if result.returns_rows else []
