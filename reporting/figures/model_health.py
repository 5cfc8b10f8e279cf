"""Model health: drift of the newest forecast run, and decisions on the serving model.

Reads the checks of the newest successful forecast run and `yieldspark.promotion`; returns one
`ModelHealth`. Shares are between 0 and 1.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from forecasting.registry.decisions import RecordedDecision

DRIFT_CHECKS = ("feature_drift", "new_pools_share", "fallback_share")
MAX_DECISIONS = 8

# a run that failed may have ended before its checks
NEWEST_CHECKS = """
SELECT as_of, checks
FROM yieldspark.run_ledger
WHERE job = 'forecast_pools'
    AND status = 'succeeded'
ORDER BY started_at DESC, run_id
LIMIT 1
"""
NEWEST_DECISIONS = """
SELECT *
FROM yieldspark.promotion
ORDER BY id DESC
LIMIT :decisions
"""


@dataclass(frozen=True)
class ModelHealth:
    """Drift of the newest forecast run, and decisions on the serving model.

    Attributes:
        as_of: as-of day of the run; None without one.
        drift: its checks by name, those of DRIFT_CHECKS that it has.
        decisions: the newest MAX_DECISIONS, newest first.
    """

    as_of: dt.date | None
    drift: Mapping[str, Mapping[str, Any]]
    decisions: tuple[RecordedDecision, ...]


def model_health(engine: Engine) -> ModelHealth:
    """Reads drift and decisions.

    Args:
        engine: the database.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        run = connection.execute(text(NEWEST_CHECKS)).mappings().first()
        rows = connection.execute(text(NEWEST_DECISIONS), {"decisions": MAX_DECISIONS}).mappings()
        decisions = tuple(RecordedDecision(**row) for row in rows)
    checks = run["checks"] if run else []
    drift = {check["name"]: check for check in checks if check["name"] in DRIFT_CHECKS}
    return ModelHealth(run["as_of"] if run else None, drift, decisions)
