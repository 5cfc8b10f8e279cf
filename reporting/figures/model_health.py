"""What to keep an eye on: how far tonight's features are from those the model learned from, and
which model serves since when and why.

In: the checks of the newest good forecast run, and `yieldspark.promotion`. Out: plain rows; shares
between 0 and 1.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection

DRIFT_CHECKS = ("feature_drift", "new_pools_share", "rule_share")
DECISIONS = 8

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


def watch(engine: Engine) -> dict[str, Any]:
    """as_of: the day of the run that was looked at, None without one; drift: its checks by name, of
    DRIFT_CHECKS those it has; decisions: the newest DECISIONS, newest first. Raises: DatabaseError.
    """
    with checked_connection(engine) as connection:
        run = connection.execute(text(NEWEST_CHECKS)).mappings().first()
        decisions = [
            dict(row)
            for row in connection.execute(
                text(NEWEST_DECISIONS), {"decisions": DECISIONS}
            ).mappings()
        ]
    drift = (
        {check["name"]: check for check in run["checks"] if check["name"] in DRIFT_CHECKS}
        if run
        else {}
    )
    return {"as_of": run["as_of"] if run else None, "drift": drift, "decisions": decisions}
