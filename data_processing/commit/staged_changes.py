"""Prepares a run's staging for its checks and its merge, inside the run's transaction.

Moves provisional days out of staging, restores stored values that differ by rounding only, and
creates the temporary tables of coverage changes and retired days. The checks read these tables, and
`update_coverage` applies them after the merge.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.commit.provisional_days import separate_provisional_days
from data_processing.planning.adopted_days import reuse_stored_values
from data_processing.planning.run_plan import Plan
from data_processing.raw.observed_days import create_retired_days
from data_processing.raw.pool_coverage import coverage_changes


def stage_changes(connection: Connection, *, settings: Settings, plan: Plan, staging: str) -> None:
    """Prepare staging and create the tables of changes; nothing has been merged yet.

    Args:
        connection: the run's transaction, with staging locked.
        settings: metrics table and carry limit.
        plan: the run's plan; its table exists.
        staging: the run's staging table.
    """
    table = plan.decision.table
    statements = [
        # first: coverage, staleness and checks must not see days that are not over
        *separate_provisional_days(plan, staging),
        reuse_stored_values(staging, settings),
        *coverage_changes(table, staging),
    ]
    if plan.request.retire_missing:
        statements.append(create_retired_days(table, staging))
    for statement in statements:
        connection.execute(text(statement))
