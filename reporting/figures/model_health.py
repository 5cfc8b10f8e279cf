"""Model health: drift of the newest forecast run, and decisions on the serving model.

Reads the checks of the newest successful forecast run and `yieldspark.promotion`; returns plain
rows. Shares are between 0 and 1.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection

DRIFT_CHECKS = ("feature_drift", "new_pools_share", "fallback_share")
MAX_DECISIONS = 8

NEWEST_CHECKS = """
SELECT as_of, checks
FROM yieldspark.run_ledger
WHERE job = 'forecast_pools'
    AND status = 'succeeded'
ORDER BY started_at DESC, run_id
LIMIT 1
"""
NEWEST_DECISIONS = """
SELECT decided_at, decided_by, engine, horizon_days, as_of, decision, challenger, champion,
    serving_version, reason
FROM yieldspark.promotion
ORDER BY id DESC
LIMIT :decisions
"""


def model_health(engine: Engine) -> dict[str, Any]:
    """Reads drift and decisions.

    Args:
        engine: the database.

    Returns:
        as_of: as-of day of the run, None without one; drift: its checks by name, those of
        DRIFT_CHECKS that it has; decisions: the newest MAX_DECISIONS, newest first.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        run = connection.execute(text(NEWEST_CHECKS)).mappings().first()
        rows = connection.execute(text(NEWEST_DECISIONS), {"decisions": MAX_DECISIONS}).mappings()
        decisions = [dict(row) for row in rows]
    checks = run["checks"] if run else []
    drift = {check["name"]: check for check in checks if check["name"] in DRIFT_CHECKS}
    return {"as_of": run["as_of"] if run else None, "drift": drift, "decisions": decisions}
