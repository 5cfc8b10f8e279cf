"""Numbers as text: APY in percent, TVL in USD with K, M or B, ages in the largest fitting unit.

Returns a dash for an unknown number; computes nothing but the rounding.
"""

from __future__ import annotations

import math

from common import quantities

UNKNOWN = "–"


def percent(value: float | None) -> str:
    """Returns an APY with three significant digits: 0.042 %, 4.21 %, 187.3 %, 12,345 %, 1.2M %."""
    return UNKNOWN if value is None else f"{points(value)} %"


def points(value: float | None) -> str:
    """Returns a difference of APYs, or an APY without its unit."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size >= 1e6:
        return _scaled(value)
    if size >= 1000:
        digits = 0
    elif size >= 100:
        digits = 1
    elif size >= 0.1 or size < 0.0005:
        digits = 2
    else:
        digits = 3
    return _minus(f"{value:,.{digits}f}")


def signed_points(value: float | None) -> str:
    """Returns a change of APY in points, with its sign."""
    number = points(value)
    # a change that is rounded to zero has no sign
    is_rise = value is not None and value > 0 and any(digit in number for digit in "123456789")
    return f"+{number}" if is_rise else number


def usd(value: float | None) -> str:
    """Returns an amount: $532, $1.25K, $12.5M, $3.41B."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size >= 999.5:
        amount = _scaled(size)
    elif size >= 10 or value == 0:
        amount = f"{size:.0f}"
    else:
        amount = f"{size:.2f}"
    return f"{'−' if value < 0 else ''}${amount}"


def share(value: float | None) -> str:
    """Returns a share as percent: 81.3 %; never rounded up to 100 % or down to 0 %."""
    if value is None:
        return UNKNOWN
    if 0.0 < value < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < value < 1.0 else f"{value * 100:.3g} %"


def ratio(value: float | None) -> str:
    """Returns a ratio with three decimals, or three significant digits from 10 on."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if value < 10 else f"{value:.3g}"


def count(value: int | None) -> str:
    """Returns a number of things with thousands separators."""
    return UNKNOWN if value is None else f"{value:,}"


def age(seconds: float | None) -> str:
    """Returns an age: 40 minutes, 5 hours, 419 days, 3.2 years."""
    return UNKNOWN if seconds is None else quantities.age(seconds)


def duration(seconds: float | None) -> str:
    """Returns a duration: 0.4 s, 45 s, 2 min 5 s, 3 h 12 min."""
    return UNKNOWN if seconds is None else quantities.duration(seconds)


def _scaled(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size * 0.9995:
            return _minus(f"{value / size:#.3g}".rstrip(".") + unit)
    return _minus(f"{value:.3g}")


def _minus(number: str) -> str:
    return number.replace("-", "−")
