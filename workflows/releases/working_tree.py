"""Reads the git checkout: its commit, its changes and its files. Changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigurationError, EnvironmentNotReady


@dataclass(frozen=True)
class WorkingTree:
    """State of a checkout.

    Attributes:
        commit: Commit that is checked out.
        changes: Differences from the commit, as git's short lines (` M path`, `?? path`).
    """

    commit: str
    changes: tuple[str, ...]


def read_status(root: Path) -> WorkingTree:
    """Return the state of a checkout.

    Raises:
        ConfigurationError: `root` is not the top of a checkout with a commit.
        EnvironmentNotReady: git is not installed.
    """
    inside = _git(root, "rev-parse", "--show-prefix").strip()
    if inside:
        raise ConfigurationError(
            f"{root} is the folder {inside} of another checkout; release from a clone of YieldSpark"
        )
    commit = _git(root, "rev-parse", "--verify", "HEAD").strip()
    # -z: paths are not quoted; a rename would be two paths
    changes = _git(root, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    return WorkingTree(commit, tuple(line for line in changes.split("\0") if line))


def files_of(root: Path, paths: Sequence[str]) -> list[str]:
    """Return the files under these paths that are tracked, or new and not ignored, relative to
    `root`.

    Raises:
        ConfigurationError: `root` is not the top of a checkout with a commit.
        EnvironmentNotReady: git is not installed.
    """
    output = _git(
        root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths
    )
    # a tracked file may be deleted in the working tree
    return sorted(name for name in output.split("\0") if name and (root / name).is_file())


def _git(root: Path, *arguments: str) -> str:
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError:
        raise EnvironmentNotReady(
            "git is not installed, and a release is named after the commit; install it (apt install"
            " git)"
        ) from None
    if process.returncode:
        message = process.stderr.decode(errors="replace").strip()
        raise ConfigurationError(
            f"git cannot read {root}: {message}; release from a clone of YieldSpark with a commit"
        )
    # a path may be no UTF-8
    return process.stdout.decode(errors="surrogateescape")
