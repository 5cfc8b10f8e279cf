"""Rows of days that were not over when a run computed them, marked in
`yieldspark.provisional_days`: the next run of all pools makes them again or takes them away.

In: the run's staging and the marks of earlier runs, inside its commit. Out: rows of the metrics
table and their marks. These rows leave staging before the checks look at it, and are in no
calendar, no age and no stored market series: all that a later run builds on is as if they had not
been computed. Days are UTC.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, text

from data_processing.metrics.pool_metrics import AGES, VALUES
from data_processing.planning.run_plan import Plan
from data_processing.raw.pool_coverage import retire_days
from database.ledger.runs import Run
from database.schema.merge_sql import MergeTarget, qualified
from database.schema.metrics_table import metrics_table_of
from database.schema.tables import provisional_days
from database.staging import merge_staged

log = logging.getLogger(__name__)

PROVISIONAL = qualified(provisional_days)

STAGED_TODAY, STALE = "staged_today", "stale_provisional_days"
"""Temporary tables of a commit."""

KEY = {"pool_id": "pool_id", "date": "date"}


def set_today_aside(plan: Plan, staging: str) -> list[str]:
    """Statements that move the days that are not over from staging to STAGED_TODAY."""
    if plan.provisional_from is None:
        return []
    not_over = f"date >= '{plan.provisional_from}'"
    return [
        f"CREATE TEMPORARY TABLE {STAGED_TODAY} ON COMMIT DROP AS SELECT * FROM {staging} WHERE"
        f" {not_over}",
        f"DELETE FROM {staging} WHERE {not_over}",
    ]


def keep_provisional_days(connection: Connection, run: Run, plan: Plan, staging: str) -> int:
    """Make rows and marks say what this run found of days that are not over; returns how many rows
    of earlier runs it took away. Staging has been merged.

    A run of some days or pools makes its own rows final and leaves the others marked.
    """
    final = f"SELECT pool_id, date FROM {staging} WHERE date IS NOT NULL"
    if plan.is_partial:
        connection.exec_driver_sql(
            f"DELETE FROM {PROVISIONAL} AS p USING ({final}) AS f WHERE f.pool_id = p.pool_id AND"
            " f.date = p.date"
        )
        return 0
    if plan.provisional_from is None:
        return retire_provisional_days(connection, made_again=final)
    again = f"{final} UNION ALL SELECT pool_id, date FROM {STAGED_TODAY}"
    removed = retire_provisional_days(connection, made_again=again)
    metrics = metrics_table_of(connection)
    merge_staged(run, MergeTarget(metrics, KEY, {name: name for name in VALUES}), STAGED_TODAY)
    ages = ", ".join(AGES)
    marked = connection.execute(
        text(
            f"INSERT INTO {PROVISIONAL} (pool_id, date, {ages}, metrics_table, run_id) SELECT"
            f" pool_id, date, {ages}, :table, :run_id FROM {STAGED_TODAY}"
        ),
        {"table": metrics.name, "run_id": run.run_id},
    )
    log.info("%d rows of days that are not over: the next run computes them again", marked.rowcount)
    return removed


def retire_provisional_days(connection: Connection, *, made_again: str | None = None) -> int:
    """Take away the marks of all earlier runs, and of the metrics table the marked rows but for
    those of the SELECT `made_again` (pool_id, date); returns how many rows. Marks of another table
    than METRICS_TABLE go without their rows: this run does not write there.
    """
    again = (
        f"AND NOT EXISTS (SELECT FROM ({made_again}) AS a WHERE a.pool_id = p.pool_id AND a.date ="
        " p.date)"
        if made_again
        else ""
    )
    stale = connection.execute(
        text(
            f"CREATE TEMPORARY TABLE {STALE} ON COMMIT DROP AS SELECT pool_id, date AS from_day,"
            f" date AS to_day FROM {PROVISIONAL} AS p WHERE metrics_table = :table {again}"
        ),
        {"table": metrics_table_of(connection).name},
    ).rowcount
    if stale:
        retire_days(connection, STALE)
    connection.exec_driver_sql(f"DELETE FROM {PROVISIONAL}")
    return stale
