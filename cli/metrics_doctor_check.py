"""What `doctor` asks of raw history: whether it has rows that no metrics run will look at.

In: settings. Out: a finding. Nothing is written and no server is started.
"""

from __future__ import annotations

from sqlalchemy import text

from cli.doctor_checks import Check, Result, asked, is_asleep
from common.errors import DatabaseRefused, DatabaseUnreachable, SchemaMismatch
from config_spark import Settings
from data_processing.metrics.rolling_metrics import affected_days_after
from data_processing.planning.plan import JOB
from data_processing.planning.unread_rows import find_unread_rows
from database.embedded.resolve import resolve_database
from database.schema.merge_sql import qualified
from database.schema.tables import raw_day_counts


def unread_rows(settings: Settings) -> tuple[Result, str, str]:
    """As `cli.doctor_checks.Check.look`."""
    if is_asleep(settings):
        return "ok", "not looked at: the embedded server is not running", ""
    try:
        with asked(resolve_database(settings)) as connection:
            table = {"name": qualified(raw_day_counts)}
            there = text("SELECT to_regclass(:name) IS NOT NULL")
            if not connection.execute(there, table).scalar_one():
                return "ok", "not looked at: no metrics run has counted raw history yet", ""
            days, sentence = find_unread_rows(
                connection, JOB, affected_days_after(settings.max_fill_days)
            )
    except (DatabaseUnreachable, DatabaseRefused, SchemaMismatch):
        return "warn", "raw history could not be counted", "see the checks `database` and `tables`"
    if sentence is None:
        return "ok", f"{days:,} days of raw history, none with rows that no run has read", ""
    found, _, command = sentence.partition(". ")
    return "warn", found, command


UNREAD_ROWS = Check("unread rows", unread_rows, "see the checks `database` and `tables`")
