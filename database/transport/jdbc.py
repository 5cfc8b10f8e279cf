"""Reads and writes tables with Spark's JDBC source: the default for reads, the fallback for writes
if ADBC has no driver.

Spark writes one transaction for each task, so a task that is retried after its commit leaves two
attempts in staging. Rows have partition and attempt, and the merge uses the last attempt of each
partition.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_schema

from config_spark import Settings
from database.connections.engine import probe_session
from database.connections.errors import translate_jdbc_errors
from database.connections.parameters import ConnectionParameters, connection_parameters
from database.connections.session_check import JDBC, SESSION_QUERY, check_session
from database.schema.tag_columns import ATTEMPT_TAG, PARTITION_TAG
from database.transport.query import FETCH_SIZE, ArrowTransform, PortableQuery, tag_rows

BATCH_ROWS = 10_000
"""Rows of one INSERT batch."""


def get_jdbc_url(settings: Settings) -> str:
    """Return the JDBC URL of the settings' database, as `ConnectionParameters.jdbc_url`."""
    return connection_parameters(settings).jdbc_url()


def get_jdbc_properties(settings: Settings) -> dict[str, str]:
    """Return driver, login and fetch size, with the password in clear: Spark redacts it, never log
    it.
    """
    return _properties(connection_parameters(settings))


def _properties(parameters: ConnectionParameters) -> dict[str, str]:
    return parameters.jdbc_properties() | {"fetchsize": str(FETCH_SIZE)}


def checked_jdbc(spark: SparkSession, settings: Settings) -> tuple[str, dict[str, str]]:
    """Return URL and properties, after a Spark task has checked a session.

    Args:
        spark: the session that runs the task.
        settings: settings of the database.

    Raises:
        DatabaseRefused: the task is on another server or database, or its session has other
            parameters.
        DatabaseError: the connection fails.
        ConfigurationError: DB_HOST is a Unix socket.
    """
    session = probe_session(settings)
    url, properties = session.parameters.jdbc_url(), _properties(session.parameters)
    with translate_jdbc_errors(session.parameters.sqlalchemy_url()):
        row = spark.read.jdbc(url, f"({SESSION_QUERY}) AS facts", properties=properties).first()
    assert row is not None, "a SELECT without FROM has one row"
    check_session(row, session.parameters, JDBC, session.server)
    return url, properties


class JdbcTransport:
    """Implements `query.Transport` with JDBC."""

    def read(
        self,
        spark: SparkSession,
        settings: Settings,
        query: PortableQuery,
        predicates: Sequence[str],
        snapshot: str | None,
    ) -> DataFrame:
        url, properties = checked_jdbc(spark, settings)
        if snapshot:
            # Runs on the connection of each task, before its query. Both are in one transaction,
            # because a fetch size makes Spark turn autocommit off first.
            properties["sessionInitStatement"] = (
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT"
                f" '{snapshot}'"
            )
        return spark.read.jdbc(
            url,
            f"({query.sql}) AS portable",
            # each of them is a partition with a connection of its own
            predicates=list(predicates),
            properties=properties,
        )

    def write(
        self,
        frame: DataFrame,
        settings: Settings,
        staging: str,
        transform: ArrowTransform | None = None,
    ) -> int:
        rows = from_arrow_schema(transform.schema) if transform else frame.schema
        schema = T.StructType(
            [
                *rows,
                T.StructField(PARTITION_TAG, T.IntegerType()),
                T.StructField(ATTEMPT_TAG, T.LongType()),
            ]
        )
        tagged_rows = frame.mapInArrow(tag_rows(transform), schema)
        # counted by Spark: its JDBC writer does not return a number
        sent = Observation()
        observed_rows = tagged_rows.observe(sent, F.count(F.lit(1)).alias("rows"))
        url, properties = checked_jdbc(frame.sparkSession, settings)
        observed_rows.write.jdbc(
            url, staging, mode="append", properties=properties | {"batchsize": str(BATCH_ROWS)}
        )
        return int(sent.get["rows"])
