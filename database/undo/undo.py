"""Undoes runs: restores the rows that they replaced, and marks them in the run ledger, in one
transaction.

A run is undone together with the later runs that built on it, the newest first. The next run then
continues from the last run that is left. Decisions on model versions and raw rows stay.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, or_, select, update

from common.errors import ConfigurationError, RunInProgress
from common.jobs import CALCULATE_METRICS, FORECAST_POOLS
from database.connections.advisory_locks import try_lock_in_transaction
from database.connections.engine import checked_connection
from database.ledger.runs import already_running_message
from database.schema.own_tables import GOOD, promotion, run_changes, run_ledger
from database.undo.replaced_rows import forget_runs
from database.undo.restore import Change, restore

log = logging.getLogger(__name__)

READERS = {CALCULATE_METRICS.name: (FORECAST_POOLS.name,), FORECAST_POOLS.name: ()}
"""Jobs whose runs can be undone, and the jobs that read what they write."""


@dataclass(frozen=True)
class UndoPlan:
    """The runs to undo, and what that restores.

    Attributes:
        runs: ledger rows of the runs, the newest first.
        changes: their changes of tables, the newest first.
        decisions: decisions of these runs on model versions, which stay.
        previous: the run that the next one continues from; None if there is none.
    """

    runs: Sequence[Row[Any]]
    changes: Sequence[Change]
    decisions: Sequence[Row[Any]]
    previous: Row[Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return the payload of `undo`."""
        tables: dict[str, int] = {}
        for change in self.changes:
            tables[change.table] = tables.get(change.table, 0) + change.rows
        watermark: datetime | None = self.previous.watermark if self.previous else None
        return {
            "runs": [run.run_id for run in self.runs],
            "rows": tables,
            "continues_from": self.previous.run_id if self.previous else None,
            "watermark": watermark.isoformat() if watermark else None,
            "decisions_that_stay": [
                {"decision": row.decision, "version": row.serving_version, "run_id": row.run_id}
                for row in self.decisions
            ],
        }


def undo_run(
    engine: Engine, run_id: str, *, by: str, cascade: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Undo a run.

    Args:
        engine: engine of the database.
        run_id: id of the run.
        by: user@host, for the run ledger.
        cascade: also undo the later runs that built on it.
        dry_run: change nothing.

    Returns:
        `status` (undone or planned) and the keys of `UndoPlan.to_json`.

    Raises:
        ConfigurationError: the run can't be undone; the message has the reason.
        RunInProgress: a run of one of the jobs is alive.
        CheckFailed: a trigger of the table changed the restored values; nothing was written.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    with checked_connection(engine) as connection:
        # until the commit: no run plans or writes meanwhile
        for job in READERS:
            if not try_lock_in_transaction(connection, job):
                raise RunInProgress(already_running_message(connection, job))
        plan = plan_undo(connection, run_id, cascade=cascade)
        if not dry_run:
            _execute(connection, plan, by)
    return {"status": "planned" if dry_run else "undone", **plan.to_json()}


def plan_undo(connection: Connection, run_id: str, *, cascade: bool) -> UndoPlan:
    """Return what undoing a run restores. Changes nothing.

    Raises:
        ConfigurationError: the run can't be undone, or later runs built on it and `cascade` is
            False.
    """
    run = connection.execute(select(run_ledger).where(run_ledger.c.run_id == run_id)).first()
    if run is None:
        raise ConfigurationError(f"there is no run {run_id}: `runs list` shows the runs")
    _require_undoable(run)
    later = _later_runs(connection, run)
    # a run without work has changed no metric or forecast
    built = [other for other in later if other.status != "nothing_to_do"]
    if built and not cascade:
        listed = ", ".join(other.run_id for other in built[:3])
        more = f" and {len(built) - 3} more" if len(built) > 3 else ""
        raise ConfigurationError(
            f"{run_id} can't be undone alone: {listed}{more} ran later and used the rows that it"
            f" wrote. Undo all of them: `undo {run_id} --cascade`"
        )
    # all or none: a run that stays would rest on rows that are gone
    for other in later:
        _require_undoable(other)
    runs = [*later, run]
    ids = [row.run_id for row in runs]
    changes = select(run_changes).where(run_changes.c.run_id.in_(ids))
    newest_first = connection.execute(changes.order_by(run_changes.c.id.desc()))
    decisions = select(promotion).where(promotion.c.run_id.in_(ids)).order_by(promotion.c.id)
    return UndoPlan(
        runs,
        [Change.from_row(row) for row in newest_first],
        connection.execute(decisions).all(),
        _last_good_run(connection, run.job, ids),
    )


def _require_undoable(run: Row[Any]) -> None:
    """Raise ConfigurationError with the reason why a run can't be undone."""
    if run.job not in READERS:
        reason = f"only runs of {' and '.join(READERS)} can be undone"
    elif run.status == "undone":
        reason = f"it is undone already, since {run.undone_at:%Y-%m-%d %H:%M} UTC"
    elif run.status not in GOOD:
        reason = f"it is {run.status} and has changed nothing"
    elif not run.is_undoable:
        reason = (
            "the rows that it replaced are not kept: it is older than UNDO_DAYS, or ran with"
            " UNDO_DAYS=0 or an older version. Run `calculate_metrics --full-refresh` after a"
            " correction of the raw rows"
        )
    else:
        return
    raise ConfigurationError(f"{run.run_id} can't be undone: {reason}")


def _later_runs(connection: Connection, run: Row[Any]) -> Sequence[Row[Any]]:
    """Return the good runs that may have used what a run wrote, the newest first."""
    ledger = run_ledger.c
    later = select(run_ledger).where(
        ledger.status.in_(GOOD),
        or_(
            # runs of one job follow each other
            (ledger.job == run.job) & (ledger.started_at > run.started_at),
            # a run of another job may have begun before and read afterwards
            ledger.job.in_(READERS[run.job]) & (ledger.finished_at > run.finished_at),
        ),
    )
    return connection.execute(later.order_by(ledger.finished_at.desc())).all()


def _last_good_run(connection: Connection, job: str, undone: Sequence[str]) -> Row[Any] | None:
    """Return the run that the next one continues from: no run of some days or pools."""
    ledger = run_ledger.c
    newest = (
        select(run_ledger)
        .where(
            ledger.job == job,
            ledger.status.in_(GOOD),
            ledger.run_id.not_in(undone),
            ledger.mode != "backfill",
            ledger.plan["request"]["pools"].astext.is_(None),
        )
        .order_by(ledger.started_at.desc())
        .limit(1)
    )
    return connection.execute(newest).first()


def _execute(connection: Connection, plan: UndoPlan, by: str) -> None:
    # the newest first: each change is reversed on the rows that it left
    for change in plan.changes:
        restore(connection, change)
    ids = [run.run_id for run in plan.runs]
    forget_runs(connection, ids)
    connection.execute(
        update(run_ledger)
        .where(run_ledger.c.run_id.in_(ids))
        .values(status="undone", undone_at=func.clock_timestamp(), undone_by=by)
    )
    log.info("undone: %s", ", ".join(ids))
