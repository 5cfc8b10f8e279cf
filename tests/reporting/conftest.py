"""Fixtures of the tests of report and dashboard."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _main_module_restored() -> Iterator[None]:
    # AppTest leaves its page as the main module, which a process of multiprocessing would run
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main
