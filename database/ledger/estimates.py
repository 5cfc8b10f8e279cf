"""How long a run of a job will take, from what its past runs took: the ledger knows this machine
and this database.

In: the ledger's good runs. Out: seconds and USD. A first run has nothing to go by but the figures
of the machine this was measured on.
"""

from __future__ import annotations

from statistics import median

from sqlalchemy import Connection, text

START_SECONDS, SECONDS_A_ROW = 6.0, 12e-6
"""A first guess (2 cores, PostgreSQL beside it): start of Python and JVM, then a row read or
written. Past runs scale it.
"""

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
    """Seconds, and USD (None where no past run has a cost), of a run that reads and writes `rows`
    rows together.
    """
    past = connection.execute(PAST_RUNS, {"job": job}).all()
    scale = median(run.seconds / _guess(run.rows) for run in past) if past else 1.0
    seconds = scale * _guess(rows)
    prices = [run.cost_usd / run.seconds for run in past if run.cost_usd is not None]
    return round(seconds, 1), round(median(prices) * seconds, 4) if prices else None


def _guess(rows: int) -> float:
    return START_SECONDS + SECONDS_A_ROW * rows
