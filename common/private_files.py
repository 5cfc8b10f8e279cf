"""Files and folders that only their owner may read: logs, the model registry, tokens.

Creates folders of mode 700 and files of mode 600, whatever the umask is. Does not follow links
where a folder may belong to another account.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from common.files import write_atomically

FOLDER, FILE = 0o700, 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


# Limits of file systems (Linux: NAME_MAX, and PATH_MAX without its NUL)
NAME_BYTES, PATH_BYTES = 255, 4095


def absolute_path(path: Path) -> Path:
    """Return the path from the root, with `~` replaced by the home folder.

    Raises:
        ValueError: the home folder does not exist, or a name is too long for a file.
    """
    try:
        absolute = path.expanduser().absolute()
    except RuntimeError:
        raise ValueError("the account after ~ has no home folder; write the whole path") from None
    longest = max(len(os.fsencode(part)) for part in absolute.parts)
    if longest > NAME_BYTES or len(os.fsencode(absolute)) > PATH_BYTES:
        raise ValueError(
            f"a name in a path has at most {NAME_BYTES} bytes and a path {PATH_BYTES}; this one has"
            f" {longest} and {len(os.fsencode(absolute))}"
        )
    return absolute


def private_folder(folder: Path) -> Path:
    """Create the folder if it is missing, and remove other accounts' rights from one of ours.

    Folders above it keep their rights.

    Returns:
        The folder.

    Raises:
        OSError: the folder cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER, exist_ok=True)
    # rights are changed by descriptor: a path may lead elsewhere a moment later
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _close_to_others(descriptor, FOLDER)
    finally:
        os.close(descriptor)
    return folder


def private_opener(path: str, flags: int) -> int:
    """Opener for `open`: a new file has mode 600, and an existing one of ours gets it."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, FILE)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        _close_to_others(descriptor, FILE)
    return descriptor


def make_private(path: Path) -> None:
    """Create the file if it is missing, and remove other accounts' rights from one of ours."""
    with open(path, "ab", opener=private_opener):
        pass


def create_exclusively(path: Path) -> int:
    """Create a file and return a descriptor to write to it.

    Raises:
        FileExistsError: the path exists, also as a link.
    """
    # O_EXCL fails for an existing path, so no prepared file or link receives the content
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, FILE)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 600 by one rename; a link at the path is replaced."""
    write_atomically(path, text, mode=FILE)


def read_regular_file(path: Path, start: int = 0) -> str:
    """Read a regular file in a folder that another account may change.

    Args:
        path: the file.
        start: offset in bytes.

    Returns:
        At most 1 MiB of its text.

    Raises:
        OSError: the path is a link, a device, or has a second name.
    """
    # without O_NONBLOCK, opening a named pipe would wait for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError(f"{path} is a device or a second name of a file, not a regular file")
        stream.seek(start)
        return stream.read(1 << 20).decode(errors="replace")


def change_owner(folder: Path, uid: int, gid: int) -> None:
    """Give root's files in a folder, and then the folder, to an account that may change it
    meanwhile.

    Links are removed, because their targets may be outside the folder.
    """
    # the content before its folder: the new owner of a folder could exchange what is in it
    for _, folders, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in [*folders, *files]:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            is_single = stat.S_ISDIR(status.st_mode) or status.st_nlink == 1
            if stat.S_ISLNK(status.st_mode):
                os.unlink(name, dir_fd=descriptor)
            elif status.st_uid == os.geteuid() and is_single:
                # a file with two names may also be one of root's files elsewhere
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(folder, uid, gid, follow_symlinks=False)


def find_shared_paths(folder: Path) -> list[Path]:
    """Return the folder and the paths below it that other accounts may access.

    Returns:
        An empty list if the folder itself is private: nobody else can enter it.
    """
    if not folder.exists():
        return []
    paths = [folder] if folder.stat().st_mode & OTHERS else []
    return paths and [folder, *(path for path in sorted(folder.rglob("*")) if _is_shared(path))]


def _is_shared(path: Path) -> bool:
    return not path.is_symlink() and bool(path.stat().st_mode & OTHERS)


def _close_to_others(descriptor: int, mode: int) -> None:
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and status.st_mode & OTHERS:
        os.fchmod(descriptor, mode)
