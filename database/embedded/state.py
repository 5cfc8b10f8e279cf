"""The small files in which the embedded server's home keeps its port, its password and the place of
its data.

In: the files, in whatever state they are. Out: their values, checked. A damaged port is not worth
failing for; a damaged password or place of data is an error that names the file.
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
PASSWORD = re.compile(r"[!-~]+")
SHOWN_LETTERS = 40


def read_port(file: Path) -> int | None:
    """The port in the file; None without a file, and, with a warning, for what is no port."""
    if not file.exists():
        return None
    content = _text(file)
    if content.isdecimal() and int(content) in PORT_NUMBERS:
        return int(content)
    log.warning(
        "%s holds %r and no port from %d to %d; the embedded server takes another port",
        file,
        content[:SHOWN_LETTERS],
        PORT_NUMBERS.start,
        PORT_NUMBERS.stop - 1,
    )
    return None


def read_password(file: Path, data: Path) -> SecretStr:
    """The password in the file, without the line end that an editor adds.

    Args: data is the folder that it opens. Raises: DatabaseRefused for a file that holds none.
    """
    if not file.exists():
        raise password_file_error(file, data, "is gone")
    content = _text(file)
    if not PASSWORD.fullmatch(content):
        raise password_file_error(file, data, "holds no password" if content else "is empty")
    return SecretStr(content)


def password_file_error(file: Path, data: Path, problem: str) -> DatabaseRefused:
    return DatabaseRefused(
        f"the password file {file} {problem} while data are in {data}; put it back, or delete the"
        " data: `db reset`"
    )


def read_cluster_folder(file: Path, system_folders: tuple[Path, ...]) -> Path:
    """The folder that the file names. `db reset` deletes that folder, so that only a folder which
    this product makes is accepted. Raises: EnvironmentNotReady.
    """
    content = _text(file)
    cluster = Path(content)
    if cluster.parent in system_folders and CLUSTER_NAME.fullmatch(cluster.name):
        return cluster
    raise EnvironmentNotReady(
        f"{file} is damaged: it holds {content[:SHOWN_LETTERS]!r} and not the folder of the"
        " server's data; delete it, or where YIELDSPARK_HOME was moved, write the folder below"
        f" {system_folders[0]} that has the data into it"
    )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").strip()
