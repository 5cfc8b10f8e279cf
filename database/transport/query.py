"""Parts that both transports share: the portable form of a query.

Both transports return the same rows with the same Spark types: numeric as double, json as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from sqlalchemy import Connection

from common.errors import SchemaMismatch
from config_spark import Settings
from database.schema.merge_sql import quoted
from database.transport.tags import Step, add_tag_columns

FETCH_SIZE = 10_000
"""Rows that a read fetches at a time. Without it pgjdbc loads the whole result into memory."""

_SPARK_TYPES: dict[int, tuple[str, T.DataType]] = {
    # type oid (pg_type.dat): the cast that makes it portable, and the Spark type of the result
    16: ("boolean", T.BooleanType()),
    20: ("bigint", T.LongType()),
    21: ("integer", T.IntegerType()),
    23: ("integer", T.IntegerType()),
    25: ("text", T.StringType()),
    114: ("text", T.StringType()),
    700: ("double precision", T.DoubleType()),
    701: ("double precision", T.DoubleType()),
    1042: ("text", T.StringType()),
    1043: ("text", T.StringType()),
    1082: ("date", T.DateType()),
    1184: ("timestamptz", T.TimestampType()),
    1700: ("double precision", T.DoubleType()),
    2950: ("text", T.StringType()),
    3802: ("text", T.StringType()),
}


@dataclass(frozen=True)
class PortableQuery:
    """A SELECT that both drivers read with the same types.

    Attributes:
        sql: the SELECT, with every column cast.
        schema: Spark schema of its rows.
    """

    sql: str
    schema: T.StructType


@dataclass(frozen=True)
class ArrowTransform:
    """A function from a frame's Arrow batches to the rows to stage; it runs inside the writing
    task.

    The rows go from Python to PostgreSQL directly, without a way back through the JVM.

    Attributes:
        function: for `mapInArrow`.
        schema: types of its rows; they are cast to it.
    """

    function: Step
    schema: pa.Schema


def tag_rows(transform: ArrowTransform | None) -> Step:
    """Return the function for `mapInArrow` that prepares rows for staging, with its types and tag
    columns.
    """
    if transform is None:
        return add_tag_columns(None)
    return add_tag_columns(transform.function, transform.schema)


class Transport(Protocol):
    """Moves rows between PostgreSQL and Spark."""

    def read(
        self,
        spark: SparkSession,
        settings: Settings,
        query: PortableQuery,
        predicates: Sequence[str],
        snapshot: str | None,
    ) -> DataFrame:
        """Return the rows of a query as a lazy frame.

        Args:
            spark: the session.
            settings: settings of the database.
            query: the SELECT.
            predicates: SQL conditions; each is one partition.
            snapshot: exported snapshot that all partitions read; None reads the current state.
        """

    def write(
        self,
        frame: DataFrame,
        settings: Settings,
        staging: str,
        transform: ArrowTransform | None = None,
    ) -> int:
        """Append a frame to the existing staging table, with the tag columns of each row.

        Returns:
            The number of rows that were sent.
        """


def portable_query(connection: Connection, source: str) -> PortableQuery:
    """Return the portable form of a SELECT or a table.

    Args:
        connection: connection to the database.
        source: a SELECT or the name of a table.

    Raises:
        SchemaMismatch: a column has a type without a portable form.
    """
    select = (
        source
        if re.match(r"\s*(select|with)\b", source, re.IGNORECASE)
        else f"SELECT * FROM {source}"
    )
    # LIMIT 0: only the types are needed; %%: psycopg2 reads % as a parameter
    result = connection.exec_driver_sql(
        f"SELECT * FROM ({select}) AS source LIMIT 0".replace("%", "%%")
    )
    casts, fields = [], []
    for name, oid, *_ in result.cursor.description:
        if oid not in _SPARK_TYPES:
            raise SchemaMismatch(
                f"column {name} has type oid {oid}, which Spark can't read from both drivers; cast"
                " it in the query, to text for instance"
            )
        cast, spark_type = _SPARK_TYPES[oid]
        casts.append(f"CAST(source.{quoted(name)} AS {cast}) AS {quoted(name)}")
        fields.append(T.StructField(name, spark_type))
    return PortableQuery(
        f"SELECT {', '.join(casts)} FROM ({select}) AS source", T.StructType(fields)
    )
