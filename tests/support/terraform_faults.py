"""A fault that is put back into a copy of the configuration, to see that a rule finds it.

All faults go into one copy, which is planned once; each must be found by a sentence of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """old is a text of the file, and new what replaces it; finding is a part of the sentence that
    the rules say about it. file is below the checkout.
    """

    file: str
    old: str
    new: str
    finding: str


def put_back(faults: Mapping[str, Fault], folder: Path) -> None:
    """Put every fault into the copy of a checkout. Raises: AssertionError for a text that is gone,
    so that no fault is left out silently.
    """
    for name, fault in faults.items():
        path = folder / fault.file
        text = path.read_text(encoding="utf-8")
        assert fault.old in text, f"{name}: {fault.file} has no {fault.old!r}"
        path.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
