"""Locks and atomic writes of files.

Locks are advisory (`flock`): a process loses its locks when it ends, also by SIGKILL.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.05


def take_lock(path: Path, *, seconds: float | None = None, create: bool = False) -> int:
    """Take the exclusive lock of a file or folder.

    Args:
        path: the file or folder.
        seconds: time to wait for another process; None waits without a limit.
        create: create the file if it is missing. A folder is refused then.

    Returns:
        The file descriptor that has the lock; `os.close` releases it.

    Raises:
        TimeoutError: another process has the lock for longer than `seconds`.
        OSError: the path cannot be opened.
    """
    # a folder can be locked too, but only if it is opened for reading
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        if seconds is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            _poll_lock(descriptor, path, seconds)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path, *, seconds: float | None = None, create: bool = False) -> Iterator[None]:
    """Hold the lock of `take_lock` inside the block."""
    descriptor = take_lock(path, seconds=seconds, create=create)
    try:
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file by one rename: after a crash it has its old text or all of the new one.

    Args:
        path: the file; a symbolic link is replaced, not followed.
        text: its new content, written as UTF-8.
        mode: its permissions.

    Raises:
        OSError: the folder cannot be written or its disk is full; the file is unchanged.
    """
    # in the same folder: a rename is atomic only inside one file system
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            # without it, some file systems order the rename before the data
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _poll_lock(descriptor: int, path: Path, seconds: float) -> None:
    # `flock` waits without a limit or not at all
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"another process has locked {path}") from None
            time.sleep(POLL_SECONDS)
