"""Tests the rules of `tests/support/run_rules.py` that need no plan."""

from __future__ import annotations

import pytest

from tests.support.run_rules import cron_faults


@pytest.mark.parametrize("cron", ["15 2 * * *", "*/15 0-6,22 * jan-mar MON-fri", "0 0 31 12 7"])
def test_a_cron_that_is_right(cron: str) -> None:
    assert cron_faults(cron) == []


@pytest.mark.parametrize(
    "cron", ["60 2 * * *", "0 24 * * *", "0 2 0 * *", "0 2 * foo *", "0 2 * *"]
)
def test_a_cron_that_is_wrong(cron: str) -> None:
    assert cron_faults(cron) != []
