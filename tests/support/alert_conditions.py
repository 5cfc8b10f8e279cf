"""Alerts of the plan of terraform/, as tests/support/terraform_inventory.json has them, and what
fires.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from emulator.services import alert_conditions
from emulator.services.alert_conditions import Points
from tests.support.terraform_inventory import INVENTORY

_inventory = json.loads(INVENTORY.read_text(encoding="utf-8"))
ALERTS: Mapping[str, list[dict[str, Any]]] = _inventory["alerts"]
"""Conditions by alert."""

LOG_METRICS: Mapping[str, str] = _inventory["log_metrics"]
"""Filters of metrics that count log entries, by name."""


def firing(points: Points, since: datetime, until: datetime) -> set[str]:
    """Return the alerts that fire at some moment of `[since, until]`."""
    return alert_conditions.firing(ALERTS, points, since, until)
