"""Estimates how many rows a batch reads, which decides the size of its machines.

Plans the job on the database of DB_HOST, without a JVM. Falls back to EXPECTED_ROWS where no
database is reachable.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from common.errors import (
    BatchFailed,
    CloudRefused,
    CloudUnavailable,
    ConfigurationError,
    DatabaseError,
    exit_code,
    summarize_error,
)
from config_spark import Settings
from data_processing.planning.plan import plan_metrics, validate_request
from data_processing.planning.run_request import Request
from database.connections.engine import checked_connection, make_engine
from database.embedded.resolve import resolve_database
from database.schema.migrate import migrate, require_current
from database.schema.tables import OWN_SCHEMA

DRY_RUN_TABLE = f"{OWN_SCHEMA}.plan_of_a_dry_run"


@dataclass(frozen=True)
class RowEstimate:
    """Number of rows, and its source for a reader."""

    number: int
    source: str


@dataclass(frozen=True)
class ForecastRequest:
    """A forecast run: the last day whose values it may use (UTC), and its engine."""

    as_of: date | None
    engine: str


def estimate_rows(
    settings: Settings, job: str, request: Request | ForecastRequest, rows: int | None = None
) -> RowEstimate:
    """Return the rows that a job's run reads.

    Args:
        settings: Database of the plan, and EXPECTED_ROWS.
        job: Name of the job, for messages.
        request: The run to plan.
        rows: Number that replaces the plan's.

    Returns:
        `rows`, else the plan's number. EXPECTED_ROWS where the database cannot be reached from
        here, as one in a private network.

    Raises:
        BatchFailed: The plan fails, as the batch would.
        ConfigurationError: The plan rejects the request.
    """
    if rows is not None:
        return RowEstimate(rows, "--rows")
    try:
        database = resolve_database(settings)
        with checked_connection(make_engine(database)):
            pass
    except (DatabaseError, CloudRefused, CloudUnavailable) as error:
        return RowEstimate(
            settings.expected_rows, f"EXPECTED_ROWS, as there is no plan from here: {error}"
        )
    try:
        return RowEstimate(_planned_rows(settings, database, request), "the plan")
    except Exception as error:
        if exit_code(error) == ConfigurationError.exit_code:
            raise
        raise BatchFailed(
            f"the plan of {job} fails, and nothing was submitted: {summarize_error(error)}. Give"
            " --rows to submit without a plan"
        ) from error


def _planned_rows(
    settings: Settings, database: Settings, request: Request | ForecastRequest
) -> int:
    """Plan a run as the job's `--dry-run` does; nothing is written."""
    engine = make_engine(database)
    if settings.db_host:
        require_current(engine)
    else:
        migrate(engine)
    if isinstance(request, Request):
        validate_request(database, engine, request)
        plan = plan_metrics(database, engine, request, table=DRY_RUN_TABLE, dry_run=True)
        return plan.statistics.rows_to_read
    # imported here because the model registry imports pyspark, which no other command needs
    from forecasting.run.plan import plan_forecast

    today = datetime.now(UTC).date()
    return plan_forecast(database, as_of=request.as_of, engine=request.engine, today=today).rows
