"""Reads rows of the run ledger. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import distinct_on

from database.connections.engine import translate_errors
from database.ledger.run_json import LEDGER_KEYS
from database.schema.own_tables import run_ledger


@dataclass(frozen=True)
class RunRecord:
    """A row of the run ledger.

    Attributes:
        start: first UTC day of the run.
        end: last UTC day of a pull, else exclusive.
        as_of: as-of day of a forecast.
        engine: name of the forecasting engine.
        plan: the plan as JSON.
        rows: rows by outcome; the keys are ROW_COUNTS.
        stages: seconds by stage, in the order they ran.
        seconds: duration; None for a run that has not ended, or was killed.
        checks: as `CheckResult.to_json` writes them.
        error: message of the error that ended the run.
    """

    run_id: str
    job: str
    status: str
    mode: str | None
    start: date | None
    end: date | None
    as_of: date | None
    engine: str | None
    started_at: datetime
    plan: dict[str, Any] | None
    rows: dict[str, int]
    stages: dict[str, float]
    seconds: float | None
    jvm_started: bool
    checks: list[dict[str, Any]]
    error: str | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> RunRecord:
        """Build a record of a row that has all columns of the ledger."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """Return the run as in `--json`: LEDGER_KEYS, dates as ISO text."""
        values = {key: getattr(self, key) for key in LEDGER_KEYS}
        return {
            key: value.isoformat() if isinstance(value, date) else value
            for key, value in values.items()
        }


def read_run(engine: Engine, run_id: str) -> RunRecord:
    """Return a run by its id.

    Raises:
        DatabaseError: the database does not answer or refuses the statement.
    """
    query = select(run_ledger).where(run_ledger.c.run_id == run_id)
    with translate_errors(engine.url), engine.connect() as connection:
        return RunRecord.from_row(connection.execute(query).mappings().one())


def last_runs(engine: Engine) -> dict[str, RunRecord]:
    """Return the newest run of each job, by job.

    Raises:
        DatabaseError: the database does not answer or refuses the statement.
    """
    newest = (
        select(run_ledger)
        .ext(distinct_on(run_ledger.c.job))
        # DISTINCT ON keeps the first row of each job in this order
        .order_by(run_ledger.c.job, run_ledger.c.started_at.desc())
    )
    with translate_errors(engine.url), engine.connect() as connection:
        records = map(RunRecord.from_row, connection.execute(newest).mappings())
        return {record.job: record for record in records}
