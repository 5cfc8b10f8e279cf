"""Parses a text file of pool ids.

One id a line; blank lines and comments after `#` are skipped. The callers name the option and the
next step in their own errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def read_pool_ids(path: Path) -> list[str]:
    """Read the pool ids of a file.

    Args:
        path: UTF-8 text, with or without a byte-order mark.

    Returns:
        Each id once, in the order of the file; empty if the file names no pool.

    Raises:
        OSError: the file can't be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return unique_ids(line.partition("#")[0] for line in lines)


def unique_ids(texts: Iterable[str]) -> list[str]:
    """Return the trimmed texts that are not empty, each once, in their order."""
    return list(dict.fromkeys(filter(None, (text.strip() for text in texts))))
