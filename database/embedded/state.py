"""Reads the files that store port, password and data folder of the embedded server.

A damaged port is replaced; a damaged password or data folder is an error that names the file.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pydantic import SecretStr

from common.errors import DatabaseRefused, EnvironmentNotReady

log = logging.getLogger(__name__)

PORT_NUMBERS = range(1024, 65536)
CLUSTER_NAME = re.compile(r"[0-9a-f]{16}")
# printable characters without blanks, as `token_urlsafe` writes them
PASSWORD = re.compile(r"[!-~]+")
MAX_QUOTED_CHARACTERS = 40


def read_port(file: Path) -> int | None:
    """Return the stored port; None if there is none, with a warning if the file is damaged."""
    if not file.exists():
        return None
    content = _text(file)
    if content.isdecimal() and int(content) in PORT_NUMBERS:
        return int(content)
    log.warning(
        "%s holds %r and no port from %d to %d; the embedded server takes another port",
        file,
        content[:MAX_QUOTED_CHARACTERS],
        PORT_NUMBERS.start,
        PORT_NUMBERS.stop - 1,
    )
    return None


def read_password(file: Path, data: Path) -> SecretStr:
    """Return the stored password, without the line end that an editor adds.

    Args:
        file: the password file.
        data: the data folder, for the message.

    Raises:
        DatabaseRefused: the file is missing or has no password.
    """
    if not file.exists():
        raise password_file_error(file, data, "is missing")
    content = _text(file)
    if not PASSWORD.fullmatch(content):
        raise password_file_error(file, data, "holds no password" if content else "is empty")
    return SecretStr(content)


def password_file_error(file: Path, data: Path, problem: str) -> DatabaseRefused:
    """Return the error for a password file that does not fit the data.

    Args:
        file: the password file.
        data: the data folder.
        problem: predicate of the message, such as `is missing`.
    """
    return DatabaseRefused(
        f"the password file {file} {problem} while data are in {data}; restore it, or delete the"
        " data: `db reset`"
    )


def read_cluster_folder(file: Path, system_folders: tuple[Path, ...]) -> Path:
    """Return the stored data folder.

    Only folders that this product creates are accepted, because `db reset` deletes the folder.

    Args:
        file: the file that stores it.
        system_folders: allowed parent folders.

    Raises:
        EnvironmentNotReady: the file is damaged.
    """
    content = _text(file)
    cluster = Path(content)
    if cluster.parent in system_folders and CLUSTER_NAME.fullmatch(cluster.name):
        return cluster
    raise EnvironmentNotReady(
        f"{file} is damaged: it holds {content[:MAX_QUOTED_CHARACTERS]!r} and not the folder of the"
        " server's data; delete it, or, if YIELDSPARK_HOME was moved, write into it the path of"
        f" the folder below {system_folders[0]} that has the data"
    )


def _text(file: Path) -> str:
    # a damaged file may have any bytes
    return file.read_text(encoding="utf-8", errors="replace").strip()
