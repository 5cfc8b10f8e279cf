"""Durations, ages, sizes and counts as text for a person.

Takes seconds, bytes and numbers of things. Programs read the plain numbers of `--json`.
"""

from __future__ import annotations

# Seconds
MINUTE, HOUR, DAY = 60, 3_600, 86_400
DAYS_PER_YEAR = 365.25


def duration(seconds: float) -> str:
    """Return a duration by its two largest units: 0.4 s, 45 s, 2 min 5 s, 3 h 12 min, 5 days."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 2 * MINUTE:
        return f"{whole} s"
    if whole < 2 * HOUR:
        return _two_units(whole, MINUTE, "min", "s")
    # rounded to minutes first: 2 days less a second are not "47 h 60 min"
    minutes = round(seconds / MINUTE)
    if minutes * MINUTE < 2 * DAY:
        return _two_units(minutes, HOUR // MINUTE, "h", "min")
    return count(round(seconds / DAY), "day")


def age(seconds: float) -> str:
    """Return an age in its largest fitting unit: 40 minutes, 5 hours, 419 days, 3.2 years."""
    for limit, size, unit in (
        (1.5 * HOUR, MINUTE, "minute"),
        (2 * DAY, HOUR, "hour"),
        (730 * DAY, DAY, "day"),
    ):
        if seconds < limit:
            # clocks of two machines differ: a row may be of the next second
            return count(max(0, round(seconds / size)), unit)
    return f"{seconds / (DAYS_PER_YEAR * DAY):.1f} years"


def file_size(size_bytes: float) -> str:
    """Return a size with up to three digits: 812 bytes, 3.4 kB, 145 MB, 1.6 GB."""
    if size_bytes < 999.5:
        return count(round(size_bytes), "byte")
    for factor, unit in ((1e3, "kB"), (1e6, "MB")):
        if size_bytes < 999.5 * factor:
            return _scaled(size_bytes / factor, unit)
    return _scaled(size_bytes / 1e9, "GB")


def count(number: int, noun: str) -> str:
    """Return a number of things: 1 row, 36,231,930 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _two_units(whole: int, size: int, unit: str, small_unit: str) -> str:
    large, rest = divmod(whole, size)
    return f"{large} {unit} {rest} {small_unit}" if rest else f"{large} {unit}"


def _scaled(value: float, unit: str) -> str:
    # 9.96 and more have two digits before the point
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"
