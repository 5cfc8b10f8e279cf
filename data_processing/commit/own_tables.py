"""Updates YieldSpark's own tables in the transaction of a metrics run, after the merge.

They are coverage, observed and provisional days, quarantine with its resolutions, day counts and
the stored market series.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from config_spark import Settings
from data_processing.commit import rejected_rows
from data_processing.commit.provisional_days import update_provisional_days
from data_processing.commit.resolution import update_resolutions
from data_processing.planning.run_plan import Plan
from data_processing.planning.unread_rows import store_day_counts
from data_processing.raw.market_series import invalidate_market_series, store_market_series
from data_processing.raw.observed_days import (
    RETIRED_DAYS_IN_COVERAGE,
    delete_retired_days,
    store_observed_days,
)
from data_processing.raw.pool_coverage import update_coverage
from data_processing.raw.rows_without_pool import quarantine_rows_without_pool
from database.ledger.runs import Run
from database.undo.replaced_rows import keep_differences

log = logging.getLogger(__name__)


def update_own_tables(
    connection: Connection, *, settings: Settings, run: Run, plan: Plan, staging: str
) -> None:
    """Update all own tables by the rows that the run has merged, and keep what they replace.

    Args:
        connection: the run's transaction, in which `copy_compared_tables` and `stage_changes` have
            run.
        settings: limits and severities of the checks.
        run: the open run; it receives the number of removed days.
        plan: its plan.
        staging: its staging table.
    """
    run.rows["removed"] = _update_days(run, plan, staging)
    # first: the resolutions compare the exact timestamps that this sets
    rejected_rows.add_raw_json(connection)
    update_resolutions(connection, settings, plan, run.run_id, staging=staging)
    quarantine_unread_rows(connection, settings, run, plan)
    store_day_counts(connection, plan.day_counts, is_partial=plan.is_partial)
    _store_market(connection, plan)
    keep_differences(run)


def quarantine_unread_rows(
    connection: Connection, settings: Settings, run: Run, plan: Plan
) -> None:
    """Quarantine the rows that Spark does not read: market rows and rows without a pool.

    Args:
        connection: the run's transaction.
        settings: limits and severities of the checks.
        run: the open run.
        plan: its plan.
    """
    rejected_rows.quarantine_market_rows(connection, settings, run.run_id, plan.decision.now)
    if not plan.is_partial:
        quarantine_rows_without_pool(connection, settings, run)


def _update_days(run: Run, plan: Plan, staging: str) -> int:
    """Update coverage, observed and provisional days; return how many days lost their metrics."""
    removed = update_coverage(run, staging)
    store_observed_days(run, staging)
    if plan.request.retire_missing:
        retired = f"SELECT count(*) FROM ({RETIRED_DAYS_IN_COVERAGE}) AS retired"
        removed += run.connection.exec_driver_sql(retired).scalar_one()
        delete_retired_days(run)
    removed += update_provisional_days(run, plan, staging)
    if removed:
        log.warning("%d days have lost their metrics", removed)
    return removed


def _store_market(connection: Connection, plan: Plan) -> None:
    if not plan.is_partial:
        store_market_series(connection, plan.complete_market)
    elif plan.statistics.start:
        # a partial run used the series for its own days and pools only: the other pools must
        # still see what changed, and these pools must see it if the series changes back
        invalidate_market_series(connection, plan.decision.market, plan.statistics.start)
