"""The record of decisions, `yieldspark.promotion`: a row for each, whether it said yes or no, by a
night's judgement or by hand.

In and out: rows of the table. It decides nothing and moves no alias.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from database.connections.engine import checked_connection
from database.ledger.runs import who_is_asking
from database.schema.tables import promotion

BY_HAND, ROLLED_BACK = "by_hand", "rolled_back"


def record(
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
    """Inside the caller's transaction."""
    row = {
        "decided_by": who_is_asking(),
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


def decisions(database: Engine, *, engine: str, horizon: int) -> list[dict[str, Any]]:
    """All of one model, the newest first."""
    rows = (
        select(promotion)
        .where(promotion.c.engine == engine, promotion.c.horizon_days == horizon)
        .order_by(promotion.c.id.desc())
    )
    with checked_connection(database) as connection:
        return [dict(row) for row in connection.execute(rows).mappings()]


def served_before(
    database: Engine, version: str | None, *, engine: str, horizon: int
) -> str | None:
    """The version that served before `version` (None: persistence) came to; None where none did.
    Going back is no coming.
    """
    came = [
        row
        for row in decisions(database, engine=engine, horizon=horizon)
        if row["serving_version"] == version and row["decision"] != ROLLED_BACK
    ]
    return next(
        (str(row["champion"]) for row in came if row["champion"] not in (None, version)), None
    )
