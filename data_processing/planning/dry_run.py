"""Plans of a metrics run that writes nothing, and the number of rows that it will read."""

from __future__ import annotations

from datetime import date, datetime
from typing import Protocol

from sqlalchemy import Engine

from config_spark import Settings
from data_processing.planning.plan import plan_metrics, validate_request
from data_processing.planning.run_plan import Plan
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from database.schema.own_tables import OWN_SCHEMA

# in our own schema, where the role may create tables
DRY_RUN_TABLE = f"{OWN_SCHEMA}.plan_of_a_dry_run"


class Options(Protocol):
    """The options of a run that its plan depends on. Days are UTC; `end` is exclusive."""

    @property
    def start(self) -> date | None: ...
    @property
    def end(self) -> date | None: ...
    @property
    def full_refresh(self) -> bool: ...


def plan_dry_run(
    settings: Settings,
    engine: Engine,
    request: Request,
    now: datetime | None = None,
    *,
    prefers_spark: bool = False,
) -> Plan:
    """Return the plan of a valid request; its temporary table leaves nothing behind.

    Args:
        settings: limits and severities of the checks.
        engine: the database, with current tables.
        request: mode, days and pools of the run.
        now: clock of the run, UTC; default is this machine's.
        prefers_spark: whether EXECUTOR=auto is Spark, whatever the number of rows.
    """
    return plan_metrics(
        settings,
        engine,
        request,
        table=DRY_RUN_TABLE,
        now=now,
        dry_run=True,
        prefers_spark=prefers_spark,
    )


def rows_to_read(settings: Settings, options: Options) -> int:
    """Plan a run without Spark, and write nothing.

    Args:
        settings: the database, with current tables.
        options: options of the run.

    Returns:
        The number of raw rows that the run will read.

    Raises:
        ConfigurationError: the options contradict each other or the database, or a setting is
            wrong.
        DatabaseError: the database refused a statement.
    """
    engine = make_engine(settings)
    request = Request(options.full_refresh, options.start, options.end)
    validate_request(settings, engine, request)
    return plan_dry_run(settings, engine, request).statistics.rows_to_read
