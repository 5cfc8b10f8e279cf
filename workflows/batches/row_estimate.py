"""Estimates how many rows a batch reads, which decides the size of its machines.

Plans the job on the database of DB_HOST, without a JVM. Falls back to EXPECTED_ROWS where no
database is reachable.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from common.errors import (
    BatchFailed,
    CloudRefused,
    CloudUnavailable,
    ConfigurationError,
    DatabaseError,
    exit_code,
    summarize_error,
)
from common.jobs import job_spec
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.embedded.resolve import resolve_database
from database.schema.migrate import prepare_tables
from workflows.spec.job_options import JobOptions


@dataclass(frozen=True)
class RowEstimate:
    """Number of rows, and its source for a reader."""

    number: int
    source: str


def estimate_rows(
    settings: Settings, job: str, options: JobOptions, rows: int | None = None
) -> RowEstimate:
    """Return the rows that a job's run reads.

    Args:
        settings: Database of the plan, and EXPECTED_ROWS.
        job: Name of the job, for messages.
        options: Options of the run to plan.
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
    plan_rows = job_spec(job).plan_rows
    if plan_rows is None:
        return RowEstimate(settings.expected_rows, f"EXPECTED_ROWS, as {job} has no plan")
    try:
        database = resolve_database(settings)
        # tells a database that is out of reach from a plan that fails
        with checked_connection(make_engine(database)):
            pass
    except (DatabaseError, CloudRefused, CloudUnavailable) as error:
        return RowEstimate(
            settings.expected_rows, f"EXPECTED_ROWS, as there is no plan from here: {error}"
        )
    try:
        return RowEstimate(_planned_rows(plan_rows, settings, database, options), "the plan")
    except Exception as error:
        # any error here would fail the batch too, after its machines have been paid for
        if exit_code(error) == ConfigurationError.exit_code:
            raise
        raise BatchFailed(
            f"the plan of {job} fails, and nothing was submitted: {summarize_error(error)}. Give"
            " --rows to submit without a plan"
        ) from error


def _planned_rows(
    plan_rows: str, settings: Settings, database: Settings, options: JobOptions
) -> int:
    """Plan a run as the job's `--dry-run` does; nothing is written."""
    prepare_tables(make_engine(database), is_embedded=not settings.db_host, changes=False)
    module, _, function = plan_rows.partition(":")
    rows: int = getattr(import_module(module), function)(database, options)
    return rows
