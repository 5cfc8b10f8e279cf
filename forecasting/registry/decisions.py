"""Decisions on model versions, `yieldspark.promotion`: one row each, of a run or of a person.

Reads and writes the table; decides nothing and moves no alias.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from common.local_user import user_at_host
from database.connections.engine import checked_connection
from database.schema.own_tables import promotion

BY_HAND, ROLLED_BACK = "by_hand", "rolled_back"


@dataclass(frozen=True)
class RecordedDecision:
    """A row of `yieldspark.promotion`, in the order of its columns.

    Attributes:
        decided_by: user and host.
        run_id: the forecast run that validated; None for a person's decision.
        as_of: last day of the validation.
        decision: PROMOTED, KEPT, REFUSED, BY_HAND or ROLLED_BACK.
        challenger: version that was decided on.
        champion: serving version before the decision; None for persistence.
        serving_version: serving version after it; None for persistence.
        numbers: numbers of the decision, see `PromotionDecision`.
    """

    id: int
    decided_at: dt.datetime
    decided_by: str
    run_id: str | None
    engine: str
    horizon_days: int
    as_of: dt.date | None
    decision: str
    challenger: str | None
    champion: str | None
    serving_version: str | None
    reason: str
    numbers: Mapping[str, Any]


def record_decision(
    connection: Connection,
    *,
    engine: str,
    horizon: int,
    decision: str,
    challenger: str | None,
    champion: str | None,
    serving_version: str | None,
    reason: str,
    numbers: Mapping[str, Any] | None = None,
    as_of: dt.date | None = None,
    run_id: str | None = None,
) -> None:
    """Inserts a decision, inside the caller's transaction.

    Args:
        engine: name of the forecasting engine.
        horizon: days from the as-of day to the target day.
        decision: PROMOTED, KEPT, REFUSED, BY_HAND or ROLLED_BACK.
        challenger: version that was decided on.
        champion: serving version before the decision; None for persistence.
        serving_version: serving version after it; None for persistence.
        reason: shown by `models show` and the report.
        numbers: numbers of the decision, for JSON.
        as_of: as-of day of the run.
        run_id: id of the run; None for a person's decision.
    """
    row = {
        "decided_by": user_at_host(),
        "engine": engine,
        "horizon_days": horizon,
        "decision": decision,
        "reason": reason,
        "run_id": run_id,
    }
    row |= {
        "challenger": challenger,
        "champion": champion,
        "serving_version": serving_version,
        "numbers": dict(numbers or {}),
        "as_of": as_of,
    }
    connection.execute(insert(promotion).values(row))


def list_decisions(database: Engine, *, engine: str, horizon: int) -> list[RecordedDecision]:
    """Returns all decisions on one model, the newest first."""
    rows = (
        select(promotion)
        .where(promotion.c.engine == engine, promotion.c.horizon_days == horizon)
        .order_by(promotion.c.id.desc())
    )
    with checked_connection(database) as connection:
        return [RecordedDecision(**row) for row in connection.execute(rows).mappings()]


def previous_champion(
    database: Engine, version: str | None, *, engine: str, horizon: int
) -> str | None:
    """Returns the version that served before `version`, or None.

    Args:
        version: serving version; None for persistence.
    """
    # a rollback to `version` does not count: else a second rollback would undo the first
    arrivals = [
        recorded
        for recorded in list_decisions(database, engine=engine, horizon=horizon)
        if recorded.serving_version == version and recorded.decision != ROLLED_BACK
    ]
    return next(
        (recorded.champion for recorded in arrivals if recorded.champion not in (None, version)),
        None,
    )
