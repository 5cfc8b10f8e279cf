"""Numbers as a reader wants them: APY in percent, TVL in USD with K, M, B, ages in words.

In: numbers or None. Out: text; a dash where nothing is known. Nothing is computed here but the
rounding.
"""

from __future__ import annotations

import math

UNKNOWN = "–"
SECONDS_PER_DAY = 86_400


def percent(value: float | None) -> str:
    """An APY with three sensible digits: 0.042 %, 4.21 %, 187.3 %, 12,345 %, 1.2M %."""
    return UNKNOWN if value is None else f"{points(value)} %"


def points(value: float | None) -> str:
    """A difference of APYs, or an APY without its unit."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size >= 1e6:
        return _scaled(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 0.1 or size < 0.0005 else 3
    return _minus(f"{value:,.{digits}f}")


def signed_points(value: float | None) -> str:
    """A change of APY in points, with its sign."""
    words = points(value)
    return (
        f"+{words}"
        if value is not None and value > 0 and any(digit in words for digit in "123456789")
        else words
    )


def usd(value: float | None) -> str:
    """$532, $1.25K, $12.5M, $3.41B."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    words = (
        _scaled(abs(value))
        if abs(value) >= 999.5
        else f"{abs(value):.0f}"
        if abs(value) >= 10 or value == 0
        else f"{abs(value):.2f}"
    )
    return f"{'−' if value < 0 else ''}${words}"


def share(value: float | None) -> str:
    """A share of one as percent: 81.3 %; never rounded up to all or down to nothing."""
    if value is None:
        return UNKNOWN
    if 0.0 < value < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < value < 1.0 else f"{value * 100:.3g} %"


def ratio(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}" if value < 10 else f"{value:.3g}"


def count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def age(seconds: float | None) -> str:
    """How long ago: 40 minutes, 5 hours, 12 days, 3.2 years."""
    if seconds is None:
        return UNKNOWN
    for limit, size, unit in (
        (5400, 60, "minute"),
        (2 * SECONDS_PER_DAY, 3600, "hour"),
        (730 * SECONDS_PER_DAY, SECONDS_PER_DAY, "day"),
    ):
        if seconds < limit:
            whole = max(0, round(seconds / size))
            return f"{whole} {unit}{'' if whole == 1 else 's'}"
    return f"{seconds / (365.25 * SECONDS_PER_DAY):.1f} years"


def _scaled(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size * 0.9995:
            return _minus(f"{value / size:#.3g}".rstrip(".") + unit)
    return _minus(f"{value:.3g}")


def _minus(words: str) -> str:
    return words.replace("-", "−")
