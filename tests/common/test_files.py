"""Locks and atomic writes of files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from common.files import locked, take_lock, write_atomically


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_lock_excludes_others_until_it_is_released(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "lock"
    create = kind == "file"
    with locked(path, create=create), pytest.raises(TimeoutError, match=f"has locked {path}"):
        take_lock(path, seconds=0, create=create)
    os.close(take_lock(path, seconds=0, create=create))


def test_lock_with_create_rejects_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        take_lock(tmp_path, create=True)


def test_write_replaces_a_link_and_sets_the_mode(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "file"
    other.write_text("other")
    path.symlink_to(other)
    write_atomically(path, "new", mode=0o644)
    assert (path.read_text(), other.read_text()) == ("new", "other")
    assert stat.S_IMODE(path.lstat().st_mode) == 0o644
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_failed_write_keeps_the_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
