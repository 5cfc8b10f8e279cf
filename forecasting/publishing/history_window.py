"""How much of the forecast history gate and intervals use, in target days."""

from __future__ import annotations

# target days that are used: after four and a half half-lives of the gate a day counts a twentieth
PAST_DAYS = 90
# target days with a model's forecast and an actual value, below which persistence is published
MIN_DAYS = 40
