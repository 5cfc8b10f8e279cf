"""Estimates duration and cost of a run from past runs of the job in the run ledger."""

from __future__ import annotations

from statistics import median

from sqlalchemy import Connection, text

START_SECONDS = {"spark": 6.0, "inprocess": 1.0}
"""Estimate of the start of a first run for each executor (2 cores, local PostgreSQL): Python, and
the JVM if there is one. Past runs scale it.
"""

SECONDS_A_ROW = 12e-6
"""Estimate for one row read or written."""

# runs before executors had names have none in their plan: those with a JVM were runs of Spark
PAST_RUNS = text("""
    SELECT seconds, cost_usd,
        (rows ->> 'read')::bigint
            + (rows ->> 'inserted')::bigint
            + (rows ->> 'updated')::bigint
            + (rows ->> 'unchanged')::bigint AS rows
    FROM yieldspark.run_ledger
    WHERE job = :job
        AND status = 'succeeded'
        AND coalesce(plan ->> 'executor', CASE WHEN jvm_started THEN 'spark' END) = :executor
        AND seconds > 0
    ORDER BY started_at DESC
    LIMIT 10
""")


def estimate_run(
    connection: Connection, job: str, *, rows: int, executor: str
) -> tuple[float, float | None]:
    """Estimate a run.

    Args:
        connection: connection to the run ledger.
        job: name of the job.
        rows: number of rows to read and write.
        executor: what computes the run; only its past runs count.

    Returns:
        Seconds, and USD or None if no past run has a cost.
    """
    runs = connection.execute(PAST_RUNS, {"job": job, "executor": executor}).all()
    # the median: one run on a busy machine must not change the estimate
    ratios = [run.seconds / _default_seconds(run.rows, executor) for run in runs]
    seconds = (median(ratios) if ratios else 1.0) * _default_seconds(rows, executor)
    prices = [run.cost_usd / run.seconds for run in runs if run.cost_usd is not None]
    return round(seconds, 1), round(median(prices) * seconds, 4) if prices else None


def _default_seconds(rows: int, executor: str) -> float:
    return START_SECONDS[executor] + SECONDS_A_ROW * rows
