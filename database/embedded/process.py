"""Runs the programs of the embedded server: initdb, pg_ctl start, pg_ctl stop.

Errors have PostgreSQL's own message. Retries, ports and passwords are decided by the caller.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from common.errors import DatabaseUnreachable, EnvironmentNotReady
from common.private_files import read_regular_file
from database.embedded.folders import ServerFolders, run_as

SERVER_SETTINGS = {
    # TCP alone, which Java's driver needs
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""Settings for a laptop that also runs Spark: modest memory, and sort memory for a merge of a
million rows. fsync keeps its default, on.
"""

PARTIAL = "partial-"
STOP_SECONDS = 60
START_SECONDS = 120
DISK_FULL_MESSAGES = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "File size limit exceeded",
)

TRANSIENT_MESSAGES = (
    'lock file "postmaster.pid"',
    "PID file",
    "is still in use",
    "Address already in use",
)
"""Parts of messages, in English as SERVER_ENVIRONMENT sets."""

ROUTINE = ("LOG:  starting PostgreSQL", "LOG:  listening on", "LOG:  database system")
"""Beginnings of log lines that are not about an error."""

_LINE_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[\d+\] ")
"""Time and process of a log line."""


def initialise(folders: ServerFolders, role: str, password: str) -> None:
    """Create the data folder.

    Args:
        folders: folders of the server.
        role: name of the superuser.
        password: its password.

    Raises:
        EnvironmentNotReady: initdb failed; the message has its error.
    """
    # left by an initdb that was killed
    for abandoned in folders.cluster.glob(f"{PARTIAL}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # a new name each time: an initdb whose caller was killed may still write into the old folder
    partial = Path(tempfile.mkdtemp(dir=folders.cluster, prefix=PARTIAL))
    if folders.account:
        # the account owns the parent folder, so it can replace the folder by a link
        os.chown(partial, folders.account.uid, folders.account.gid, follow_symlinks=False)
    # not on the command line, which every user of the machine can read
    with tempfile.NamedTemporaryFile(
        "w", dir=folders.cluster, prefix=".pwfile.", encoding="utf-8"
    ) as pwfile:
        pwfile.write(password)
        pwfile.flush()
        if folders.account:
            # a temporary file is readable for its owner alone
            os.fchown(pwfile.fileno(), folders.account.uid, folders.account.gid)
        options = [
            "-U",
            role,
            "--auth=scram-sha-256",
            f"--pwfile={pwfile.name}",
            "-E",
            "UTF8",
            # texts have the same order on every machine
            "--locale=C",
        ]
        done = run_as(folders.account, [folders.binaries / "initdb", "-D", partial, *options])
    if done.returncode != 0:
        error = _log_tail(done.stderr or done.stdout) or f"ended with exit code {done.returncode}"
        shutil.rmtree(partial, ignore_errors=True)
        raise_when_disk_full(error, folders)
        raise EnvironmentNotReady(
            f"initdb can't create {folders.data}: {error}; set DB_HOST to use a server of your own"
        )
    # by one rename: an interrupted initdb leaves no folder that looks complete
    partial.rename(folders.data)


def check_major_version(folders: ServerFolders) -> None:
    """Check that the installed server can read the data.

    Raises:
        EnvironmentNotReady: the data are damaged or belong to another major version.
    """
    try:
        version = read_regular_file(folders.data / "PG_VERSION").strip()
        problem = "" if version.isdecimal() else f"holds {version[:20]!r} and no version"
    except OSError as error:
        version, problem = "", f"can't be read ({error.strerror or error})"
    if problem:
        raise EnvironmentNotReady(
            f"the data in {folders.data} are damaged: PG_VERSION {problem}; restore a copy of the"
            " folder, or delete it: `db reset`"
        )
    output = run_as(None, [folders.binaries / "postgres", "--version"]).stdout
    installed = output.split()[-1].split(".")[0]
    if version != installed:
        raise EnvironmentNotReady(
            f"the data in {folders.data} were made by PostgreSQL {version} and the installed server"
            f" is {installed}: copy them with that version's pg_dump and `db psql`, or delete"
            " them: `db reset`"
        )


def launch(folders: ServerFolders, host: str, port: int) -> str:
    """Start the server and wait until it accepts connections.

    Returns:
        PostgreSQL's error, empty if the server runs.
    """
    settings = {"listen_addresses": host, **SERVER_SETTINGS}
    options = " ".join(
        [
            f"-p {port}",
            *(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items()),
        ]
    )
    log_size = folders.log.lstat().st_size if folders.log.exists() else 0
    command: list[str | Path] = [
        folders.binaries / "pg_ctl",
        "-D",
        folders.data,
        "-l",
        folders.log,
        "-w",
        "-t",
        str(START_SECONDS),
        "-o",
        options,
        "start",
    ]
    # pg_ctl's own limit comes first
    done = run_as(folders.account, command, seconds=START_SECONDS + 30)
    if done.returncode == 0:
        return ""
    # the part that this attempt wrote
    new_log = read_regular_file(folders.log, log_size) if folders.log.exists() else ""
    return _log_tail(new_log) or _log_tail(done.stderr or done.stdout)


def stop(folders: ServerFolders) -> bool:
    """Stop the server, whichever process started it; returns whether it was running.

    Raises:
        DatabaseUnreachable: it does not end in time.
    """
    if not is_running(folders):
        return False
    pg_ctl: list[str | Path] = [folders.binaries / "pg_ctl", "-D", folders.data]
    # fast: ends the clients' sessions instead of waiting for them
    done = run_as(folders.account, [*pg_ctl, "-m", "fast", "-w", "-t", str(STOP_SECONDS), "stop"])
    # without this file the server has ended in the meantime
    if done.returncode != 0 and (folders.data / "postmaster.pid").exists():
        raise DatabaseUnreachable(
            f"the embedded server in {folders.data} did not stop:"
            f" {_log_tail(done.stderr or done.stdout)}; see {folders.log}"
        )
    return True


def is_running(folders: ServerFolders) -> bool:
    """Whether the process in postmaster.pid exists and is a server."""
    if recorded_port(folders.data) is None or _is_foreign(folders.data):
        return False
    command: list[str | Path] = [folders.binaries / "pg_ctl", "-D", folders.data, "status"]
    return run_as(folders.account, command).returncode == 0


def recorded_port(data: Path) -> int | None:
    """Return the port in postmaster.pid (fourth line; PostgreSQL's `miscadmin.h`), None if there is
    none.
    """
    try:
        return int(read_regular_file(data / "postmaster.pid").splitlines()[3])
    except (OSError, IndexError, ValueError):
        return None


def drop_foreign_pid_file(data: Path) -> None:
    """Remove postmaster.pid if its process is no server. Linux only.

    After a crash of the machine, the process id may belong to another program or to a zombie of a
    container, and PostgreSQL would never start again. A server that runs also owns the shared
    memory of the data, which PostgreSQL checks.
    """
    if _is_foreign(data):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _is_foreign(data: Path) -> bool:
    try:
        pid = int(read_regular_file(data / "postmaster.pid").splitlines()[0])
    except OSError:
        return False
    # a truncated file names no server
    except (IndexError, ValueError):
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    # no such process: PostgreSQL replaces the file itself
    except OSError:
        return False
    # the name is in parentheses and may contain some itself (proc(5))
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return name != "postgres" or rest.split()[0] == "Z"


def raise_when_disk_full(message: str, folders: ServerFolders) -> None:
    """Raise EnvironmentNotReady if PostgreSQL's message is about a full disk."""
    if any(part in message for part in DISK_FULL_MESSAGES):
        raise EnvironmentNotReady(
            f"the disk of {folders.cluster} is full ({message}); free some space and run again,"
            " nothing committed is lost, or set YIELDSPARK_HOME"
        )


def is_transient(message: str) -> bool:
    """Whether a retry may succeed: a killed server whose children still run, a port in use, or a
    postmaster.pid that can be removed.
    """
    return any(part in message for part in TRANSIENT_MESSAGES)


def _log_tail(text: str, lines: int = 6) -> str:
    """Return the last lines of a log that are about an error."""
    messages = [_LINE_PREFIX.sub("", line).strip() for line in text.splitlines()]
    errors = [message for message in messages if message and not message.startswith(ROUTINE)]
    return " | ".join(errors[-lines:])
