"""Checks of `doctor` on the database: server, tables, and its clock.

A stopped embedded server is not started. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from cli.doctor.check import Check, Finding
from common.errors import (
    CheckUnfinished,
    DatabaseRefused,
    DatabaseUnreachable,
    YieldSparkError,
)
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.connections.time_limit import statement_time_limit
from database.embedded.folders import wheel_binaries
from database.embedded.resolve import resolve_database
from database.embedded.server import EmbeddedServer
from database.schema.check import find_table_problems
from database.schema.table_use import JOBS_USE

SERVER_FACTS = """
    SELECT current_setting('server_version'), pg_is_in_recovery(),
        current_setting('default_transaction_read_only')::boolean
"""

CLOCK_TOLERANCE_SECONDS = 60.0
# Time limit of each statement
DATABASE_SECONDS = 30.0
# A machine without a clock starts in 1970 or at the date of its firmware
SANE_YEARS = range(2025, 2100)


def database(settings: Settings) -> Finding:
    """Check that the database answers; a stopped embedded server is not started."""
    if is_embedded_and_stopped(settings):
        return Finding(
            "ok",
            (
                f"embedded server not running (programs in {wheel_binaries()}); the first job"
                " starts it"
            ),
            "",
        )
    connected = resolve_database(settings)
    with limited_connection(connected) as connection:
        version, is_standby, is_read_only = connection.execute(text(SERVER_FACTS)).one()
    kind = "embedded" if settings.db_host is None else "DB_HOST"
    address = f"{connected.db_host}:{connected.db_port}/{connected.db_name}"
    server = f"PostgreSQL {version} at {address} ({kind})"
    if is_standby:
        return Finding(
            "warn",
            f"{server} is a standby: no job can write",
            "set DB_HOST to the primary server",
        )
    if is_read_only:
        return Finding(
            "warn",
            f"{server} is read-only: no job can write",
            "set default_transaction_read_only to off for the role and the database",
        )
    return Finding("ok", server)


@contextmanager
def limited_connection(settings: Settings) -> Iterator[Connection]:
    """Open a connection whose statements end after DATABASE_SECONDS.

    Args:
        settings: settings with a running database.

    Raises:
        CheckUnfinished: a statement took longer.
        DatabaseError: as `checked_connection` raises it.
    """
    with checked_connection(make_engine(settings)) as connection:
        with statement_time_limit(connection, DATABASE_SECONDS):
            yield connection


def is_embedded_and_stopped(settings: Settings) -> bool:
    """Return whether the database is the embedded server and it is not running."""
    return (
        settings.db_host is None
        and not EmbeddedServer(settings.yieldspark_home).status()["running"]
    )


def tables(settings: Settings) -> Finding:
    """Check columns, keys, indexes and rights of the tables that the jobs use."""
    if is_embedded_and_stopped(settings):
        return Finding("ok", "not checked: the embedded server is not running")
    try:
        with limited_connection(resolve_database(settings)) as connection:
            report = find_table_problems(connection, JOBS_USE)
    except (DatabaseUnreachable, DatabaseRefused):
        return Finding("warn", "the database does not answer", "see the check `database`")
    if report.problems:
        return Finding(
            "fail",
            "; ".join(report.problems),
            report.missing_rights_message or "change them as described",
        )
    if report.missing_rights_message:
        return Finding(
            "fail",
            f"role {report.role} lacks {', '.join(report.lacking)}",
            report.missing_rights_message,
        )
    if report.missing:
        return Finding(
            "warn", f"missing: {', '.join(report.missing)}", "run `db migrate`, which makes them"
        )
    if report.missing_indexes_message:
        return Finding("warn", "raw history lacks an index", report.missing_indexes_message)
    return Finding("ok", f"columns, keys, indexes and rights of role {report.role} are right")


def clock(settings: Settings) -> Finding:
    """Check that the clock is set, and that the database's clock agrees with it."""
    now = datetime.now(UTC)
    if now.year not in SANE_YEARS:
        return Finding(
            "fail",
            f"the clock is at {now:%Y-%m-%d}",
            "set the clock: as-of days and watermarks come from it",
        )
    # the embedded server has the clock of this machine
    if settings.db_host is None:
        return Finding("ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")
    try:
        with limited_connection(settings) as connection:
            database_now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    # it is a YieldSparkError too, and has a result of its own
    except CheckUnfinished:
        raise
    except YieldSparkError:
        return Finding(
            "ok",
            f"{now:%Y-%m-%d %H:%M:%S} UTC (the database does not answer)",
            "",
        )
    apart = abs((database_now - datetime.now(UTC)).total_seconds())
    if apart > CLOCK_TOLERANCE_SECONDS:
        return Finding(
            "warn",
            f"{apart:.0f} s apart from the database's clock",
            "synchronise both machines (NTP): data age and as-of days depend on them",
        )
    return Finding(
        "ok",
        f"{now:%Y-%m-%d %H:%M:%S} UTC, the database's within {CLOCK_TOLERANCE_SECONDS:.0f} s",
        "",
    )


DATABASE = Check(
    "database",
    database,
    "check DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME; without DB_HOST: `db reset`"
    " makes a new embedded server",
)
TABLES = Check("tables", tables, "set DB_USER to a role that may read them")
CLOCK = Check("clock", clock, "set the clock")
