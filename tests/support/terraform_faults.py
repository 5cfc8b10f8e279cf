"""Puts faults into a copy of the configuration, to test that the rules find them. All faults go
into one copy, which is planned once; each must be found by its own message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """A fault of the configuration and the rule that finds it.

    Attributes:
        file: Path relative to the checkout.
        old: Text that `new` replaces.
        new: Faulty text.
        finding: Part of the rules' message.
    """

    file: str
    old: str
    new: str
    finding: str


def put_back(faults: Mapping[str, Fault], folder: Path) -> None:
    """Put every fault into the copy of a checkout.

    Raises:
        AssertionError: A text is missing, so that no fault is skipped silently.
    """
    for name, fault in faults.items():
        path = folder / fault.file
        text = path.read_text(encoding="utf-8")
        assert fault.old in text, f"{name}: {fault.file} has no {fault.old!r}"
        path.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
