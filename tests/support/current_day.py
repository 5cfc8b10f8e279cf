"""pytest plugin for tests of the current day: no test begins in the last minutes of a UTC day.

A test reads the clock when it runs, with `today`, and never when its module is imported: a suite
may run over midnight.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

import pytest

LAST_MINUTES = timedelta(minutes=5)
"""Longer than a test of the current day runs."""


def today() -> date:
    """Return the current UTC day, which does not change during a test."""
    return datetime.now(UTC).date()


def midnight_of(day: date) -> datetime:
    """Return the start of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def seconds_until_a_test_may_begin(now: datetime) -> float:
    """Return the seconds until midnight in the last minutes of a day, else 0."""
    until_midnight = midnight_of(now.date()) + timedelta(days=1) - now
    return until_midnight.total_seconds() if until_midnight < LAST_MINUTES else 0.0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    if wait := seconds_until_a_test_may_begin(datetime.now(UTC)):
        time.sleep(wait)
