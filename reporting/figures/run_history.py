"""Runs of all jobs by page, and what one run changed.

Reads the run ledger and the tables that name a run. Times are UTC, durations in seconds, costs in
USD.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection

# the age is by the server's clock, as the start is: that of this machine may differ
RUN_COLUMNS = """
run_id, job, status, mode, "start", "end", as_of, engine, code_version, started_at, finished_at,
    plan, rows, stages, seconds, checks, cost_usd, error, batch_id, is_undoable, undone_at,
    undone_by,
    extract(epoch FROM now() - started_at)::float8 AS age_seconds
"""

PAGE = f"""
SELECT {RUN_COLUMNS}
FROM yieldspark.run_ledger
WHERE (CAST(:job AS text) IS NULL OR job = :job)
    AND (CAST(:status AS text) IS NULL OR status = :status)
    AND (CAST(:last_start AS timestamptz) IS NULL
        OR (started_at, run_id) < (:last_start, :last_run))
ORDER BY started_at DESC, run_id DESC
LIMIT :limit
"""

ONE = f"""
SELECT {RUN_COLUMNS}
FROM yieldspark.run_ledger
WHERE run_id = :run
"""

CHOICES = """
SELECT DISTINCT job, status
FROM yieldspark.run_ledger
ORDER BY job, status
"""

# the run before that did the same work, for the progress of one that is running
EARLIER = """
SELECT e.stages
FROM yieldspark.run_ledger e
JOIN yieldspark.run_ledger r ON r.run_id = :run
WHERE e.job = r.job
    AND e.status = 'succeeded'
    AND e.started_at < r.started_at
ORDER BY (e.mode IS NOT DISTINCT FROM r.mode) DESC, e.started_at DESC
LIMIT 1
"""

# a run publishes the forecasts of one as-of day, which an index finds
CHANGES = """
WITH published AS (
    SELECT count(*) AS rows,
        count(apy_fallback_reason) AS apy_fallbacks,
        count(tvl_fallback_reason) AS tvl_fallbacks
    FROM yieldspark.forecasts
    WHERE run_id = :run
        AND as_of = (SELECT as_of FROM yieldspark.run_ledger WHERE run_id = :run)
)
SELECT 'forecasts published' AS change, rows FROM published
UNION ALL
SELECT 'of them APY fallbacks', apy_fallbacks FROM published
UNION ALL
SELECT 'of them TVL fallbacks', tvl_fallbacks FROM published
UNION ALL
SELECT 'raw rows quarantined', count(*)
FROM yieldspark.quarantine
WHERE run_id = :run
UNION ALL
SELECT 'quarantined rows resolved', count(*)
FROM yieldspark.quarantine
WHERE resolved_by_run = :run
UNION ALL
SELECT 'decisions on the serving model', count(*)
FROM yieldspark.promotion
WHERE run_id = :run
UNION ALL
SELECT table_name || ', rows ' || kind, sum(rows)::bigint
FROM yieldspark.run_changes
WHERE run_id = :run
GROUP BY table_name, kind
"""


@dataclass(frozen=True)
class LedgerRun:
    """A row of the run ledger.

    Attributes:
        start, end: UTC days of the run.
        rows: rows by outcome.
        stages: seconds by stage, in the order they ran.
        seconds: duration; None for a run that has not ended, or was killed.
        checks: as `CheckResult.to_json` writes them.
        cost_usd: None where no cloud was used, or before its bill is known.
        is_undoable: whether the rows that it replaced are kept.
        undone_at, undone_by: when and by whom (user@host) they were restored; None if not.
        age_seconds: time since the start, by the server's clock.
    """

    run_id: str
    job: str
    status: str
    mode: str | None
    start: dt.date | None
    end: dt.date | None
    as_of: dt.date | None
    engine: str | None
    code_version: str
    started_at: dt.datetime
    finished_at: dt.datetime | None
    plan: Mapping[str, Any] | None
    rows: Mapping[str, int]
    stages: Mapping[str, float]
    seconds: float | None
    checks: list[dict[str, Any]]
    cost_usd: float | None
    error: str | None
    batch_id: str | None
    is_undoable: bool
    undone_at: dt.datetime | None
    undone_by: str | None
    age_seconds: float


@dataclass(frozen=True)
class RunKey:
    """The last run of a page."""

    started_at: dt.datetime
    run_id: str


def run_page(
    engine: Engine,
    *,
    job: str | None = None,
    status: str | None = None,
    after: RunKey | None = None,
    limit: int,
) -> list[LedgerRun]:
    """Reads runs, newest first.

    Args:
        job, status: only these runs; None for all.
        after: last run of the page before.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    parameters = {
        "job": job,
        "status": status,
        "last_start": after.started_at if after else None,
        "last_run": after.run_id if after else None,
        "limit": limit,
    }
    with checked_connection(engine) as connection:
        rows = connection.execute(text(PAGE), parameters).mappings()
        return [LedgerRun(**row) for row in rows]


def ledger_run(engine: Engine, run_id: str) -> LedgerRun | None:
    """Reads one run; None for an unknown id.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        row = connection.execute(text(ONE), {"run": run_id}).mappings().first()
    return LedgerRun(**row) if row else None


def run_choices(engine: Engine) -> tuple[list[str], list[str]]:
    """Reads the jobs and the statuses of the ledger.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        rows = connection.execute(text(CHOICES)).all()
    return sorted({row.job for row in rows}), sorted({row.status for row in rows})


def earlier_stages(engine: Engine, run_id: str) -> dict[str, float]:
    """Reads the stages of the last successful run before a run, of the same job and, if there is
    one, the same mode.

    Returns:
        Seconds by stage, in the order they ran; empty without such a run.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        stages = connection.execute(text(EARLIER), {"run": run_id}).scalar()
    return dict(stages or {})


def run_changes(engine: Engine, run_id: str) -> dict[str, int]:
    """Counts the rows of YieldSpark's own tables that name the run.

    Returns:
        Rows by what they are; changes that no row names are left out.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        rows = connection.execute(text(CHANGES), {"run": run_id})
        return {row.change: row.rows for row in rows if row.rows}
