"""The number of rows that a metrics run will read, for the size of its batch."""

from __future__ import annotations

from datetime import date
from typing import Protocol

from config_spark import Settings
from data_processing.planning.plan import plan_metrics, validate_request
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from database.schema.tables import OWN_SCHEMA

DRY_RUN_TABLE = f"{OWN_SCHEMA}.plan_of_a_dry_run"


class Options(Protocol):
    """The options of a run that its plan depends on. Days are UTC; `end` is exclusive."""

    @property
    def start(self) -> date | None: ...
    @property
    def end(self) -> date | None: ...
    @property
    def full_refresh(self) -> bool: ...


def rows_to_read(settings: Settings, options: Options) -> int:
    """Plan a run without Spark, and write nothing.

    Args:
        settings: the database, with current tables.
        options: options of the run.

    Returns:
        The number of raw rows that the run will read.

    Raises:
        ConfigurationError: the options contradict each other or the database.
        DatabaseError: the database refused a statement.
    """
    engine = make_engine(settings)
    request = Request(options.full_refresh, options.start, options.end)
    validate_request(settings, engine, request)
    plan = plan_metrics(settings, engine, request, table=DRY_RUN_TABLE, dry_run=True)
    return plan.statistics.rows_to_read
