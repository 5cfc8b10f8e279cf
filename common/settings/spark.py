"""Settings of Spark."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from common.settings.text_forms import MEMORY

Transport = Literal["jdbc", "adbc"]
Executor = Literal["spark", "inprocess"]


class SparkSettings(BaseSettings):
    """Spark: the session, and how rows move between Spark and PostgreSQL."""

    read_transport: Transport = Field(
        "jdbc", description="how Spark reads tables: JDBC, or Arrow through COPY (`adbc`)"
    )
    write_transport: Transport = Field("adbc", description="how Spark loads staging tables")
    executor: Literal["auto", "spark", "inprocess"] = Field(
        "auto",
        description="what computes the metrics, and the forecasts of the engine `lightgbm`: Spark,"
        " or this machine without a JVM (`inprocess`); `auto` chooses by the rows to read in"
        " `run_spark_local.py` and in Cloud Run jobs, and is Spark in the demo, the jobs' scripts"
        " and on Dataproc",
    )
    spark_master: str | None = Field(
        None, description="Spark master; unset: `local[*]`, and the platform's own in production"
    )
    spark_driver_memory: Annotated[str, Field(pattern=MEMORY)] | None = Field(
        None,
        description="memory of the local Spark driver; unset: 2 GiB, and 800 bytes for each row of"
        " a forecast",
    )
    shuffle_partitions: Annotated[int, Field(ge=1, le=10_000)] = Field(
        8, description="value of `spark.sql.shuffle.partitions`"
    )
    spark_event_logs: Annotated[int, Field(ge=0, le=1_000)] = Field(
        20,
        description=(
            "number of Spark sessions whose event logs are kept in YIELDSPARK_HOME, for the command"
            " `history`; 0: none; ENVIRONMENT=production writes none"
        ),
    )
    spark_event_log_days: Annotated[int, Field(ge=1, le=3_650)] = Field(
        14, description="age at which an event log is deleted; days"
    )
