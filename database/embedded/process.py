"""The programs of the embedded server, called one by one: initdb, pg_ctl start, pg_ctl stop.

Goes in: `ServerFolders`. Comes out: what happened, in PostgreSQL's own words where it failed. No
retries, no ports and no passwords are decided here.
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
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""For a laptop that also runs Spark: modest memory, and sort space for a merge of a million rows.
fsync keeps its default: on.
"""

PARTIAL = "partial-"
STOP_SECONDS = 60
START_SECONDS = 120
DISK_FULL_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "File size limit exceeded",
)

PASSING_WORDS = (
    'lock file "postmaster.pid"',
    "PID file",
    "is still in use",
    "Address already in use",
)
"""English, as SERVER_ENVIRONMENT asks for."""

ROUTINE = ("LOG:  starting PostgreSQL", "LOG:  listening on", "LOG:  database system")
"""How lines begin that say nothing of what went wrong."""

_LINE_BEGIN = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[\d+\] ")
"""Time and process of a line of the server's log, which differ by run."""


def initialise(folders: ServerFolders, role: str, password: str) -> None:
    """Make the data folder: beside its place first, so that an interrupted initdb leaves nothing
    that looks complete.

    Raises: EnvironmentNotReady with initdb's words.
    """
    for abandoned in folders.cluster.glob(f"{PARTIAL}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # A name of its own each time: an initdb whose caller was killed may still be writing into the
    # abandoned one.
    partial = Path(tempfile.mkdtemp(dir=folders.cluster, prefix=PARTIAL))
    if folders.account:
        # the account owns the folder around it, and may put a link in its place
        os.chown(partial, folders.account.uid, folders.account.gid, follow_symlinks=False)
    with tempfile.NamedTemporaryFile(
        "w", dir=folders.cluster, prefix=".pwfile.", encoding="utf-8"
    ) as pwfile:
        pwfile.write(password)
        pwfile.flush()
        if folders.account:
            os.fchown(pwfile.fileno(), folders.account.uid, folders.account.gid)
        options = [
            "-U",
            role,
            "--auth=scram-sha-256",
            f"--pwfile={pwfile.name}",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        done = run_as(folders.account, [folders.binaries / "initdb", "-D", partial, *options])
    if done.returncode != 0:
        complaint = (
            _last_words(done.stderr or done.stdout) or f"ended with exit code {done.returncode}"
        )
        shutil.rmtree(partial, ignore_errors=True)
        raise_when_disk_full(complaint, folders)
        raise EnvironmentNotReady(
            f"initdb could not make {folders.data}: {complaint}; set DB_HOST to use a server of"
            " your own"
        )
    partial.rename(folders.data)


def check_major_version(folders: ServerFolders) -> None:
    """Raises: EnvironmentNotReady when the data were made by another major version, which
    PostgreSQL cannot open, and when they do not say by which.
    """
    try:
        made_by = read_regular_file(folders.data / "PG_VERSION").strip()
        problem = "" if made_by.isdecimal() else f"holds {made_by[:20]!r} and no version"
    except OSError as error:
        made_by, problem = "", f"can't be read ({error.strerror or error})"
    if problem:
        raise EnvironmentNotReady(
            f"the data in {folders.data} are damaged: PG_VERSION {problem}; put back a copy of the"
            " folder, or delete it: `db reset`"
        )
    installed = (
        run_as(None, [folders.binaries / "postgres", "--version"]).stdout.split()[-1].split(".")[0]
    )
    if made_by != installed:
        raise EnvironmentNotReady(
            f"the data in {folders.data} were made by PostgreSQL {made_by} and the installed server"
            f" is {installed}: take them over with that version's pg_dump and `db psql`, or delete"
            " them: `db reset`"
        )


def launch(folders: ServerFolders, host: str, port: int) -> str:
    """Start the server and wait until it accepts connections; returns what it complained of, empty
    when it runs.
    """
    settings = {"listen_addresses": host, **SERVER_SETTINGS}
    options = " ".join(
        [
            f"-p {port}",
            *(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items()),
        ]
    )
    said_before = folders.log.lstat().st_size if folders.log.exists() else 0
    where: list[str | Path] = ["-D", folders.data, "-l", folders.log]
    command = [
        folders.binaries / "pg_ctl",
        *where,
        "-w",
        "-t",
        str(START_SECONDS),
        "-o",
        options,
        "start",
    ]
    done = run_as(folders.account, command, seconds=START_SECONDS + 30)
    if done.returncode == 0:
        return ""
    said = read_regular_file(folders.log, said_before) if folders.log.exists() else ""
    return _last_words(said) or _last_words(done.stderr or done.stdout)


def stop(folders: ServerFolders) -> bool:
    """Stop the server, whoever started it; returns whether one ran.

    Raises: DatabaseUnreachable when it does not end in time.
    """
    if not runs(folders):
        return False
    pg_ctl: list[str | Path] = [folders.binaries / "pg_ctl", "-D", folders.data]
    done = run_as(folders.account, [*pg_ctl, "-m", "fast", "-w", "-t", str(STOP_SECONDS), "stop"])
    if done.returncode != 0 and (folders.data / "postmaster.pid").exists():
        raise DatabaseUnreachable(
            f"the embedded server in {folders.data} did not stop:"
            f" {_last_words(done.stderr or done.stdout)}; see {folders.log}"
        )
    return True


def runs(folders: ServerFolders) -> bool:
    """Whether the process in postmaster.pid is there, and a server."""
    if recorded_port(folders.data) is None or _is_foreign(folders.data):
        return False
    command: list[str | Path] = [folders.binaries / "pg_ctl", "-D", folders.data, "status"]
    return run_as(folders.account, command).returncode == 0


def recorded_port(data: Path) -> int | None:
    """The port in postmaster.pid (its fourth line; PostgreSQL's source, `miscadmin.h`), None when
    no server has written one.
    """
    try:
        return int(read_regular_file(data / "postmaster.pid").splitlines()[3])
    except (OSError, IndexError, ValueError):
        return None


def drop_foreign_pid_file(data: Path) -> None:
    """Remove postmaster.pid when its process is no server, or when it names none.

    After a crash of the machine its number may belong to another program, or to a zombie that
    nobody reaps in a container, and PostgreSQL would refuse to start for ever. A server that still
    runs holds the data by its shared memory too, which PostgreSQL looks at. Linux only; elsewhere
    PostgreSQL's own check stands.
    """
    if _is_foreign(data):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _is_foreign(data: Path) -> bool:
    try:
        pid = int(read_regular_file(data / "postmaster.pid").splitlines()[0])
    except OSError:
        return False
    except (IndexError, ValueError):
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return name != "postgres" or rest.split()[0] == "Z"


def raise_when_disk_full(complaint: str, folders: ServerFolders) -> None:
    """Raises: EnvironmentNotReady when PostgreSQL's words say that it could not write."""
    if any(words in complaint for words in DISK_FULL_WORDS):
        raise EnvironmentNotReady(
            f"the disk of {folders.cluster} is full ({complaint}); free some space and run again,"
            " nothing committed is lost, or set YIELDSPARK_HOME"
        )


def is_transient(complaint: str) -> bool:
    """Whether PostgreSQL's words are of something that a moment may end: a server that is killed
    and whose children still live, a port, a postmaster.pid that can be removed.
    """
    return any(words in complaint for words in PASSING_WORDS)


def _last_words(text: str, lines: int = 6) -> str:
    said = [_LINE_BEGIN.sub("", line).strip() for line in text.splitlines()]
    telling = [line for line in said if line and not line.startswith(ROUTINE)]
    return " | ".join(telling[-lines:])
