"""Reads and writes of both transports: the same rows, types and snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from sqlalchemy import Engine

from common.errors import SchemaMismatch
from config_spark import Settings
from database.db_utils_spark import (
    MOST_READ_PARTITIONS,
    ArrowTransform,
    execute_sql,
    exported_snapshot,
    read_table_spark,
    transport_for,
    write_table_spark,
)
from database.schema.merge_sql import create_staging
from database.schema.own_tables import OWN_SCHEMA
from database.transport.staged_types import staging_types
from tests.database.test_staging import TRANSPORTS, transported

__all__ = ["transported"]


def _narrow(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return batches with narrower types than the schema has."""
    for batch in batches:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns["source_id"] = columns["source_id"].cast(pa.int32())
        columns["value"] = columns["value"].cast(pa.float32())
        yield pa.RecordBatch.from_pydict(columns)


def test_casts_transformed_rows_to_staging_types(
    spark: SparkSession, transported: Settings, engine: Engine
) -> None:
    frame = spark.createDataFrame([(7, 0.5), (None, None)], "source_id bigint, value double")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            create_staging(
                f"{OWN_SCHEMA}.staged_numbers", staging_types(to_arrow_schema(frame.schema))
            )
        )
    written_rows = transport_for(transported, transported.write_transport).write(
        frame,
        transported,
        f"{OWN_SCHEMA}.staged_numbers",
        ArrowTransform(_narrow, to_arrow_schema(frame.schema)),
    )
    rows = execute_sql(
        transported, f"SELECT source_id, value FROM {OWN_SCHEMA}.staged_numbers ORDER BY 1"
    )
    assert written_rows == 2
    assert rows == [{"source_id": 7, "value": 0.5}, {"source_id": None, "value": None}]


def test_both_transports_read_the_same_rows_and_types(
    spark: SparkSession, database: Settings
) -> None:
    execute_sql(
        database,
        "CREATE TABLE kinds (n numeric(20,8), j jsonb, d date, t timestamptz, b boolean, i integer,"
        ' l bigint, s text, f double precision); INSERT INTO kinds VALUES (1234.56789012, \'{"a":'
        " 1}', '1969-12-31', '2025-08-03 23:59:59.123456+00', true, 7, 1234567890123, 'ä ''x''%',"
        " 0.1), (null, null, null, null, null, null, null, null, null)",
    )
    rows = {}
    for name in TRANSPORTS:
        frame = read_table_spark(
            spark,
            database.model_copy(update={"read_transport": name}),
            "kinds",
            partition_by="s",
            partitions=2,
        )
        rows[name] = (frame.dtypes, sorted(frame.collect(), key=str))
    assert rows["adbc"] == rows["jdbc"]
    kinds = dict(rows["adbc"][0])
    assert kinds == {
        "n": "double",
        "j": "string",
        "d": "date",
        "t": "timestamp",
        "b": "boolean",
        "i": "int",
        "l": "bigint",
        "s": "string",
        "f": "double",
    }


def test_partitioned_read_has_every_row_once(spark: SparkSession, transported: Settings) -> None:
    execute_sql(
        transported,
        "INSERT INTO pools (pool_id) SELECT 'pool-' || n FROM generate_series(1, 500) AS n",
    )
    frame = read_table_spark(
        spark,
        transported,
        "SELECT pool_id FROM pools WHERE pool_id LIKE 'pool-%'",
        partition_by="pool_id",
        partitions=4,
    )
    assert frame.rdd.getNumPartitions() == 4
    assert sorted(row.pool_id for row in frame.collect()) == sorted(
        f"pool-{n}" for n in range(1, 501)
    )


@pytest.mark.parametrize(("partitions", "expected"), [(None, 2), (100, MOST_READ_PARTITIONS)])
def test_read_uses_sparks_parallelism_up_to_its_connection_limit(
    spark: SparkSession, transported: Settings, partitions: int | None, expected: int
) -> None:
    frame = read_table_spark(
        spark,
        transported,
        "SELECT pool_id FROM pools",
        partition_by="pool_id",
        partitions=partitions,
    )
    assert frame.rdd.getNumPartitions() == expected


def test_reads_share_one_snapshot(spark: SparkSession, transported: Settings) -> None:
    execute_sql(transported, "INSERT INTO pools (pool_id) VALUES ('before')")
    with exported_snapshot(transported) as snapshot:
        execute_sql(transported, "INSERT INTO pools (pool_id) VALUES ('after')")
        snapshot_rows = read_table_spark(
            spark, transported, "SELECT pool_id FROM pools", snapshot=snapshot
        ).collect()
    assert [row.pool_id for row in snapshot_rows] == ["before"]


def test_names_a_missing_table(spark: SparkSession, transported: Settings) -> None:
    with pytest.raises(SchemaMismatch, match="nothing_here"):
        read_table_spark(spark, transported, "nothing_here")


def test_uses_the_other_transport_without_a_driver(
    database: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    no_jars = database.model_copy(update={"jars_dir": tmp_path})
    assert type(transport_for(no_jars, "jdbc")).__name__ == "AdbcTransport"
    assert "transport jdbc has no driver here: going on with adbc" in caplog.text


def test_write_table_appends(spark: SparkSession, database: Settings) -> None:
    frame = spark.createDataFrame(
        [("p", datetime(2025, 8, 3, 23, tzinfo=UTC), '{"apy": 1}')],
        "pool_id string, timestamp timestamp, raw_json_data string",
    )
    assert write_table_spark(frame, database, "raw_defillama_pool_history") == 1
    assert execute_sql(
        database,
        "SELECT raw_json_data ->> 'apy' AS apy, timestamp::text AS t FROM"
        " raw_defillama_pool_history",
    ) == [{"apy": "1", "t": "2025-08-03 23:00:00+00"}]
