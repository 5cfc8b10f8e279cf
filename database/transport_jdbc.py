"""Spark's own JDBC both ways: the owner's way, and the fallback where ADBC has no driver.

Spark writes one transaction a task, so a task that is retried after its commit leaves two attempts
in staging: rows carry partition and attempt, and the merge keeps the last attempt of each
partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from config_spark import Settings
from database.connection import host_in_url, metrics_option
from database.staging_tags import ATTEMPT_TAG, PARTITION_TAG
from database.transport import FETCH_SIZE, LastStep, PortableQuery, tagged

BATCH_ROWS = 10_000


def get_jdbc_url(settings: Settings) -> str:
    """`jdbc:postgresql://..` without user and password. `stringtype=unspecified` lets text go into
    jsonb columns.
    """
    options = (
        f"sslmode={settings.db_sslmode}&currentSchema={settings.db_schema}"
        "&stringtype=unspecified&reWriteBatchedInserts=true"
        f"&options={quote(metrics_option(settings), safe='')}"
    )
    return (
        f"jdbc:postgresql://{host_in_url(settings)}:{settings.db_port}/{settings.db_name}?{options}"
    )


def get_jdbc_properties(settings: Settings) -> dict[str, str]:
    """Driver, login and fetch size. Holds the password in clear: Spark redacts it, never log it
    yourself.
    """
    properties = {
        "driver": "org.postgresql.Driver",
        "user": settings.db_user,
        "fetchsize": str(FETCH_SIZE),
        "ApplicationName": "yieldspark",
    }
    properties["tcpKeepAlive"] = "true"
    if settings.db_password:
        properties["password"] = settings.db_password.get_secret_value()
    return properties


class JdbcTransport:
    """The `jdbc` side of `transport.Transport`."""

    def read(
        self,
        spark: SparkSession,
        settings: Settings,
        query: PortableQuery,
        predicates: Sequence[str],
        snapshot: str | None,
    ) -> DataFrame:
        properties = get_jdbc_properties(settings)
        if snapshot:
            properties["sessionInitStatement"] = (
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT"
                f" '{snapshot}'"
            )
        return spark.read.jdbc(
            get_jdbc_url(settings),
            f"({query.sql}) AS portable",
            predicates=list(predicates),
            properties=properties,
        )

    def write(
        self, frame: DataFrame, settings: Settings, staging: str, last_step: LastStep | None = None
    ) -> int:
        schema = T.StructType(
            [
                *(last_step or frame).schema,
                T.StructField(PARTITION_TAG, T.IntegerType()),
                T.StructField(ATTEMPT_TAG, T.LongType()),
            ]
        )
        tagged_rows = frame.mapInArrow(tagged(last_step), schema)
        sent = Observation()
        counted = tagged_rows.observe(sent, F.count(F.lit(1)).alias("rows"))
        properties = get_jdbc_properties(settings) | {"batchsize": str(BATCH_ROWS)}
        counted.write.jdbc(get_jdbc_url(settings), staging, mode="append", properties=properties)
        return int(sent.get["rows"])
