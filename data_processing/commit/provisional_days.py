"""Marks rows of days that were not over when a run computed them, in `yieldspark.provisional_days`.

The next run of all pools computes them again or removes them. They leave staging before the checks,
and are in no coverage, staleness or stored market series, so that later runs build on the tables as
if they had not been computed. Days are UTC.
"""

from __future__ import annotations

import logging

from sqlalchemy import text

from data_processing.metrics.pool_metrics import STALENESS, VALUES
from data_processing.planning.run_plan import Plan
from data_processing.raw.pool_coverage import retire_days
from database.ledger.runs import Run
from database.schema.merge_sql import MergeTarget, qualified
from database.schema.metrics_table import metrics_table_of
from database.schema.own_tables import provisional_days
from database.staging import merge_staged

log = logging.getLogger(__name__)

PROVISIONAL = qualified(provisional_days)

STAGED_TODAY, STALE = "staged_today", "stale_provisional_days"
"""Temporary tables of the run's transaction."""

KEY = {"pool_id": "pool_id", "date": "date"}


def separate_provisional_days(plan: Plan, staging: str) -> list[str]:
    """Return statements that move the days that are not over from staging to STAGED_TODAY.

    Args:
        plan: the run's plan.
        staging: the run's staging table.
    """
    first = plan.decision.provisional_from
    if first is None:
        return []
    not_over = f"date >= '{first}'"
    return [
        f"""
    CREATE TEMPORARY TABLE {STAGED_TODAY} ON COMMIT DROP AS
    SELECT *
    FROM {staging}
    WHERE {not_over}""",
        # checks, coverage and merge of staging are for complete days
        f"DELETE FROM {staging} WHERE {not_over}",
    ]


def update_provisional_days(run: Run, plan: Plan, staging: str) -> int:
    """Write the rows and marks of days that are not over, after staging has been merged.

    A run of some days or pools makes its own rows final and leaves the others marked.

    Args:
        run: the open run, in its transaction.
        plan: its plan.
        staging: its staging table.

    Returns:
        How many rows of earlier runs were removed.
    """
    connection = run.connection
    final = f"SELECT pool_id, date FROM {staging} WHERE date IS NOT NULL"
    if plan.is_partial:
        connection.exec_driver_sql(f"""
        DELETE FROM {PROVISIONAL} AS p
        USING ({final}) AS f
        WHERE f.pool_id = p.pool_id
            AND f.date = p.date""")
        return 0
    if plan.decision.provisional_from is None:
        return remove_provisional_days(run, computed_again=final)
    again = f"{final} UNION ALL SELECT pool_id, date FROM {STAGED_TODAY}"
    # before the merge: this run's marks replace those of earlier runs
    removed = remove_provisional_days(run, computed_again=again)
    metrics = metrics_table_of(connection)
    merge_staged(run, MergeTarget(metrics, KEY, {name: name for name in VALUES}), STAGED_TODAY)
    staleness = ", ".join(STALENESS)
    marked = connection.execute(
        text(f"""
        INSERT INTO {PROVISIONAL} (pool_id, date, {staleness}, metrics_table, run_id)
        SELECT pool_id, date, {staleness}, :table, :run_id
        FROM {STAGED_TODAY}"""),
        {"table": metrics.name, "run_id": run.run_id},
    )
    log.info("%d rows of days that are not over: the next run computes them again", marked.rowcount)
    return removed


def remove_provisional_days(run: Run, *, computed_again: str | None = None) -> int:
    """Remove the marks of all earlier runs, and the marked rows of the metrics table.

    Marks of another table than METRICS_TABLE are removed without their rows, because this run does
    not write there.

    Args:
        run: the open run, in its transaction.
        computed_again: SELECT of pool_id and date of rows that stay; None removes all.

    Returns:
        How many rows were removed.
    """
    stays = ""
    if computed_again:
        stays = f"""
            AND NOT EXISTS (
                SELECT FROM ({computed_again}) AS a
                WHERE a.pool_id = p.pool_id
                    AND a.date = p.date
            )"""
    stale = run.connection.execute(
        text(f"""
        CREATE TEMPORARY TABLE {STALE} ON COMMIT DROP AS
        SELECT pool_id, date AS from_day, date AS to_day
        FROM {PROVISIONAL} AS p
        WHERE metrics_table = :table{stays}"""),
        {"table": metrics_table_of(run.connection).name},
    ).rowcount
    if stale:
        retire_days(run, STALE)
    run.connection.exec_driver_sql(f"DELETE FROM {PROVISIONAL}")
    return stale
