"""Estimates duration and cost of a run from past runs of the job in the run ledger."""

from __future__ import annotations

from statistics import median

from sqlalchemy import Connection, text

START_SECONDS, SECONDS_A_ROW = 6.0, 12e-6
"""Estimate for a first run (2 cores, local PostgreSQL): start of Python and the JVM, then one row
read or written. Past runs scale it.
"""

# a run without a JVM had nothing to compute, and would make the estimate too short
PAST_RUNS = text("""
    SELECT seconds, cost_usd,
        (rows ->> 'read')::bigint
            + (rows ->> 'inserted')::bigint
            + (rows ->> 'updated')::bigint
            + (rows ->> 'unchanged')::bigint AS rows
    FROM yieldspark.run_ledger
    WHERE job = :job
        AND status = 'succeeded'
        AND jvm_started
        AND seconds > 0
    ORDER BY started_at DESC
    LIMIT 10
""")


def estimate_run(connection: Connection, job: str, *, rows: int) -> tuple[float, float | None]:
    """Estimate a run.

    Args:
        connection: connection to the run ledger.
        job: name of the job.
        rows: number of rows to read and write.

    Returns:
        Seconds, and USD or None if no past run has a cost.
    """
    runs = connection.execute(PAST_RUNS, {"job": job}).all()
    # the median: one run on a busy machine must not change the estimate
    scale = median(run.seconds / _default_seconds(run.rows) for run in runs) if runs else 1.0
    seconds = scale * _default_seconds(rows)
    prices = [run.cost_usd / run.seconds for run in runs if run.cost_usd is not None]
    return round(seconds, 1), round(median(prices) * seconds, 4) if prices else None


def _default_seconds(rows: int) -> float:
    return START_SECONDS + SECONDS_A_ROW * rows
