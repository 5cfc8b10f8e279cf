"""Durations, ages, sizes and counts as people read them, at the limits between two units."""

from __future__ import annotations

import pytest

from common.quantities import age, count, duration, file_size

MINUTE, HOUR, DAY = 60, 3_600, 86_400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (125.2, "2 min 5 s"),
        (2 * HOUR - 0.6, "119 min 59 s"),
        (2 * HOUR - 0.4, "2 h"),
        (3 * HOUR + 12 * MINUTE, "3 h 12 min"),
        (2 * DAY - 31, "47 h 59 min"),
        (2 * DAY - 1, "2 days"),
        (5.2 * DAY, "5 days"),
    ],
)
def test_duration_has_the_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3.0, "0 minutes"),
        (60.0, "1 minute"),
        (40 * MINUTE, "40 minutes"),
        (5 * HOUR, "5 hours"),
        (419 * DAY, "419 days"),
        (1_170 * DAY, "3.2 years"),
    ],
)
def test_age_has_one_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (1, "1 byte"),
        (812, "812 bytes"),
        (999.6, "1.0 kB"),
        (3_400, "3.4 kB"),
        (9_960, "10 kB"),
        (999_600, "1.0 MB"),
        (145_000_000, "145 MB"),
        (1_600_000_000, "1.6 GB"),
        (3_407_000_000_000, "3,407 GB"),
    ],
)
def test_size_has_a_unit_of_its_magnitude(size_bytes: float, text: str) -> None:
    assert file_size(size_bytes) == text


def test_count_has_separators_and_a_plural() -> None:
    assert [count(number, "row") for number in (0, 1, 36_231_930)] == [
        "0 rows",
        "1 row",
        "36,231,930 rows",
    ]
