"""The check of `doctor` for raw rows that no metrics run will read."""

from __future__ import annotations

from sqlalchemy import text

from cli.doctor.check import Check, Finding
from cli.doctor.database import is_embedded_and_stopped, limited_connection
from common.errors import DatabaseRefused, DatabaseUnreachable, SchemaMismatch
from common.quantities import count
from config_spark import Settings
from data_processing.metrics.rolling_metrics import affected_days_after
from data_processing.planning.plan import JOB
from data_processing.planning.unread_rows import find_unread_rows
from database.embedded.resolve import resolve_database
from database.schema.merge_sql import qualified
from database.schema.own_tables import raw_day_counts


def unread_rows(settings: Settings) -> Finding:
    """Check raw history for rows that no run has read."""
    if is_embedded_and_stopped(settings):
        return Finding("ok", "not checked: the embedded server is not running")
    try:
        with limited_connection(resolve_database(settings)) as connection:
            table = {"name": qualified(raw_day_counts)}
            table_exists = text("SELECT to_regclass(:name) IS NOT NULL")
            if not connection.execute(table_exists, table).scalar_one():
                return Finding("ok", "not checked: no metrics run has counted raw history yet")
            days, sentence = find_unread_rows(
                connection, JOB, affected_days_after(settings.max_fill_days)
            )
    except (DatabaseUnreachable, DatabaseRefused, SchemaMismatch):
        return Finding(
            "warn", "raw history could not be counted", "see the checks `database` and `tables`"
        )
    if sentence is None:
        return Finding(
            "ok", f"{count(days, 'day')} of raw history, none with rows that no run has read"
        )
    observation, _, command = sentence.partition(". ")
    return Finding("warn", observation, command)


UNREAD_ROWS = Check("unread rows", unread_rows, "see the checks `database` and `tables`")
