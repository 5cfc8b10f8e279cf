"""What git knows of the checkout: its commit, what differs from that, and which files are the
product's.

In: a folder that is the top of a git checkout. Out: names, relative to it, with `/`. It changes
nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigurationError, EnvironmentNotReady


@dataclass(frozen=True)
class WorkingTree:
    """changes are git's own short lines (` M path`, `?? path`) of what differs from the commit;
    none: the tree is the commit.
    """

    commit: str
    changes: tuple[str, ...]


def look_at(root: Path) -> WorkingTree:
    """Raises: ConfigurationError where the folder is not the top of a checkout with a commit,
    EnvironmentNotReady without git.
    """
    inside = _git(root, "rev-parse", "--show-prefix").strip()
    if inside:
        raise ConfigurationError(
            f"{root} is the folder {inside} of another checkout; release from a clone of YieldSpark"
        )
    commit = _git(root, "rev-parse", "--verify", "HEAD").strip()
    changes = _git(root, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    return WorkingTree(commit, tuple(line for line in changes.split("\0") if line))


def files_of(root: Path, paths: Sequence[str]) -> list[str]:
    """The files under these paths that are tracked, or new and not ignored: no cache, no `.env` and
    no editor's leavings. Raises: as `look_at`.
    """
    listed = _git(
        root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths
    )
    return sorted(name for name in listed.split("\0") if name and (root / name).is_file())


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError:
        raise EnvironmentNotReady(
            "git is not installed, and a release is named after the commit; install it (apt install"
            " git)"
        ) from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise ConfigurationError(
            f"git can't read {root}: {words}; release from a clone of YieldSpark that has a commit"
        )
    return done.stdout.decode(errors="surrogateescape")
