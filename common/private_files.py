"""Files and folders that only their owner may read.

In: paths of the product's own state: logs, the model registry, the local cloud, tokens. Out:
folders of mode 700 and files of mode 600, whatever the process's umask is. No link is followed
where a folder may be another account's.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


NAME_BYTES, PATH_BYTES = 255, 4095
"""What file systems take (Linux: NAME_MAX, and PATH_MAX without its NUL)."""


def whole_path(path: Path) -> Path:
    """The path from the root, with the home folder in place of `~`.

    Raises: ValueError where there is no such home, or a name is longer than a file's may be.
    """
    try:
        whole = path.expanduser().absolute()
    except RuntimeError:
        raise ValueError("the account after ~ has no home folder; write the whole path") from None
    longest = max(len(os.fsencode(part)) for part in whole.parts)
    if longest > NAME_BYTES or len(os.fsencode(whole)) > PATH_BYTES:
        raise ValueError(
            f"a name in a path has at most {NAME_BYTES} bytes and a path {PATH_BYTES}; this one has"
            f" {longest} and {len(os.fsencode(whole))}"
        )
    return whole


def private_folder(folder: Path) -> Path:
    """Make the folder where it is missing, and close one of ours to other accounts. Folders above
    it keep their rights. Raises: OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _close_to_others(descriptor, FOLDER)
    finally:
        os.close(descriptor)
    return folder


def private_opener(path: str, flags: int) -> int:
    """As the opener of `open`: a file that is made has mode 600, one of ours gets it."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, FILE)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        _close_to_others(descriptor, FILE)
    return descriptor


def make_private(path: Path) -> None:
    """Make the file where it is missing, and close one of ours to other accounts."""
    with open(path, "ab", opener=private_opener):
        pass


def new_file(path: Path) -> int:
    """A descriptor to write to a file that did not exist. Raises: FileExistsError, for a link
    too.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, FILE)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 600 that is either whole or not there; a link in its place is
    replaced.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).replace(path)


def read_no_link(path: Path, start: int = 0) -> str:
    """The text of a regular file from this byte on, of 1 MiB at most, in a folder that another
    account may change. Raises: OSError, for a link too.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise OSError(f"{path} is no file of its own, but a device or another file's name")
        stream.seek(start)
        return stream.read(1 << 20).decode(errors="replace")


def give_to(folder: Path, uid: int, gid: int) -> None:
    """Give what root owns in the folder, and at last the folder itself, to an account that may
    change it meanwhile. Links are removed: none is ours, and what they lead to is not the
    account's.
    """
    for _, folders, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in [*folders, *files]:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                os.unlink(name, dir_fd=descriptor)
            elif found.st_uid == os.geteuid() and (
                stat.S_ISDIR(found.st_mode) or found.st_nlink == 1
            ):
                # a file with two names may be a file of root's elsewhere
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(folder, uid, gid, follow_symlinks=False)


def open_to_others(folder: Path) -> list[Path]:
    """The folder and what is below it that other accounts may read or write. A folder of ours that
    is closed is not looked into: nobody gets through it.
    """
    if not folder.exists():
        return []
    paths = [folder] if folder.stat().st_mode & OTHERS else []
    return paths and [folder, *(path for path in sorted(folder.rglob("*")) if _is_open(path))]


def _is_open(path: Path) -> bool:
    return not path.is_symlink() and bool(path.stat().st_mode & OTHERS)


def _close_to_others(descriptor: int, mode: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
        os.fchmod(descriptor, mode)
