"""OpenLineage events of a run, from its row in the run ledger, with openlineage-python's own types.

Reads nothing and sends nothing. Datasets are PostgreSQL tables, named as the specification names
them (https://openlineage.io/docs/spec/naming): `postgres://HOST:PORT` and DATABASE.SCHEMA.TABLE. No
part of an event has a login.
"""

from __future__ import annotations

import platform
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from importlib.metadata import version
from typing import Any

from openlineage.client.event_v2 import (
    InputDataset,
    Job,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
)
from openlineage.client.facet_v2 import (
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    tags_run,
)
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from common.jobs import CALCULATE_METRICS, FORECAST_POOLS
from config_spark import Settings
from database.ledger.run_records import RunRecord
from database.schema.own_tables import (
    GOOD,
    OWN_SCHEMA,
    forecast_evaluation,
    forecasts,
    quarantine,
)
from database.schema.owner_tables import pool_daily_metrics, raw_pool_history
from database.schema.table_use import FORECAST_USE, METRICS_USE, TableUse

PRODUCER = "https://github.com/yieldspark/yieldspark"
INTEGRATION = "YIELDSPARK"
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

RUN_NAMESPACE = uuid.UUID("5f2e7c1a-6d0b-4c58-9a43-1d7c0e8b2f64")
"""OpenLineage's ids of runs are UUIDs: those of this namespace and the ledger's id (RFC 9562,
version 5), so that all events of a run have the same.
"""

EXECUTION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""End of a batch's id: the execution of the workflow that started it."""

USES: Mapping[str, Sequence[TableUse]] = {
    CALCULATE_METRICS.name: METRICS_USE,
    FORECAST_POOLS.name: FORECAST_USE,
}
OWN_OUTPUTS: Mapping[str, Sequence[Table]] = {
    CALCULATE_METRICS.name: (quarantine,),
    FORECAST_POOLS.name: (forecasts, forecast_evaluation),
}
READ_TABLE = {CALCULATE_METRICS.name: raw_pool_history, FORECAST_POOLS.name: pool_daily_metrics}
"""The table whose rows a run's `read` counts."""

WRITTEN_TABLE = {CALCULATE_METRICS.name: pool_daily_metrics, FORECAST_POOLS.name: forecasts}
"""The table whose rows a run's `inserted` and `updated` count."""


def start_event(settings: Settings, record: RunRecord) -> RunEvent:
    """Return the event of a run that has begun.

    Args:
        settings: namespace, address of the database, and the batch that runs the job.
        record: the run's row in the run ledger.
    """
    return _event(settings, record, RunState.START, record.started_at, with_counts=False)


def end_event(settings: Settings, record: RunRecord, now: datetime) -> RunEvent:
    """Return the event of a run that has ended: COMPLETE, or FAIL with its error.

    Args:
        settings: as of `start_event`.
        record: the run's row in the run ledger.
        now: end of the run, UTC.
    """
    is_good = record.status in GOOD
    state = RunState.COMPLETE if is_good else RunState.FAIL
    return _event(settings, record, state, now, with_counts=is_good)


def _event(
    settings: Settings, record: RunRecord, state: RunState, at: datetime, *, with_counts: bool
) -> RunEvent:
    job_type = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration=INTEGRATION, jobType="JOB"
    )
    return RunEvent(
        eventTime=at.astimezone(UTC).isoformat(),
        producer=PRODUCER,
        eventType=state,
        run=Run(
            runId=str(uuid.uuid5(RUN_NAMESPACE, record.run_id)),
            facets=dict(_run_facets(settings, record)),
        ),
        job=Job(
            namespace=settings.openlineage_namespace,
            name=record.job,
            facets={"jobType": job_type},
        ),
        inputs=list(_inputs(settings, record, with_counts=with_counts)),
        outputs=list(_outputs(settings, record, with_counts=with_counts)),
    )


def _run_facets(settings: Settings, record: RunRecord) -> Iterator[tuple[str, Any]]:
    if days := _nominal_days(record):
        start, end = (datetime.combine(day, time(), UTC).isoformat() for day in days)
        yield "nominalTime", nominal_time_run.NominalTimeRunFacet(start, end)
    name, engine_version = (
        ("spark", version("pyspark"))
        if record.jvm_started
        else ("python", platform.python_version())
    )
    yield (
        "processing_engine",
        processing_engine_run.ProcessingEngineRunFacet(
            version=engine_version, name=name, openlineageAdapterVersion=settings.code_version
        ),
    )
    if parent := EXECUTION.search(settings.batch_id or ""):
        yield (
            "parent",
            parent_run.ParentRunFacet(
                run=parent_run.Run(runId=parent[0]),
                job=parent_run.Job(settings.openlineage_namespace, settings.workflow_name),
            ),
        )
    if record.error:
        yield "errorMessage", error_message_run.ErrorMessageRunFacet(record.error, "PYTHON")
    values = {
        "run_id": record.run_id,
        "status": record.status,
        "mode": record.mode,
        "engine": record.engine,
    }
    tags = [
        tags_run.TagsRunFacetFields(key, value, INTEGRATION)
        for key, value in values.items()
        if value
    ]
    yield "tags", tags_run.TagsRunFacet(tags)


def _nominal_days(record: RunRecord) -> tuple[date, date] | None:
    """Return the UTC days that a run is about, half-open."""
    if record.start and record.end:
        return record.start, record.end
    return (record.as_of, record.as_of + timedelta(days=1)) if record.as_of else None


def _inputs(settings: Settings, record: RunRecord, *, with_counts: bool) -> Iterator[InputDataset]:
    for use in USES.get(record.job, ()):
        facets: dict[str, Any] = {}
        if with_counts and use.table is READ_TABLE[record.job]:
            facets["inputStatistics"] = (
                input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                    rowCount=record.rows["read"]
                )
            )
        if use.reads:
            yield InputDataset(
                **_dataset(settings, use.table, use.reads), inputFacets=facets or None
            )


def _outputs(
    settings: Settings, record: RunRecord, *, with_counts: bool
) -> Iterator[OutputDataset]:
    uses = [use for use in USES.get(record.job, ()) if use.is_written]
    written = [(use.table, use.inserts) for use in uses]
    written += [(table, tuple(table.c.keys())) for table in OWN_OUTPUTS.get(record.job, ())]
    for table, columns in written:
        facets: dict[str, Any] = {}
        if with_counts and table is WRITTEN_TABLE[record.job]:
            facets["outputStatistics"] = (
                output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                    rowCount=record.rows["inserted"] + record.rows["updated"]
                )
            )
        yield OutputDataset(**_dataset(settings, table, columns), outputFacets=facets or None)


def _dataset(settings: Settings, table: Table, columns: Iterable[str]) -> dict[str, Any]:
    """Return namespace, name and schema of a table, with the columns that the job uses."""
    schema = OWN_SCHEMA if table.schema == OWN_SCHEMA else settings.db_schema
    name = settings.metrics_table if table is pool_daily_metrics else table.name
    fields = [
        schema_dataset.SchemaDatasetFacetFields(
            name=column,
            type=table.c[column].type.compile(dialect=DIALECT),
            description=table.c[column].doc or table.c[column].comment,
        )
        for column in columns
    ]
    return {
        "namespace": f"postgres://{settings.db_host}:{settings.db_port}",
        "name": f"{settings.db_name}.{schema}.{name}",
        "facets": {"schema": schema_dataset.SchemaDatasetFacet(fields)},
    }
