"""Times the spike check of a commit on raw history without indexes, for N and 2N rows: prints
median seconds, their ratio and the goal. All rows are new: eight snapshots a day of 80 pools.
Uses an embedded PostgreSQL and no Spark.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Engine, text

from benchmarks.databases import copied_database, settle, temporary_server
from benchmarks.metrics_data import drop_secondary_indexes
from benchmarks.metrics_table import machine_facts
from config_spark import Settings
from data_processing.commit.spikes import spike_preparation, spike_query
from data_processing.planning.last_run import ANY_TIME, LastRun
from data_processing.planning.plan import plan_metrics
from data_processing.planning.run_plan import Plan
from data_processing.planning.run_request import Request
from database.commit_checks import failing_rows
from database.connections.engine import make_engine
from database.schema.own_tables import OWN_SCHEMA
from database.staging import MERGE_WORK_MEM

ROWS = 28_414

REPEAT = 3

GOAL = 2.2
"""Largest ratio of the seconds for 2N and N rows."""

RAW_ROWS = """
    INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
    SELECT 'pool-' || n % 80,
        date_trunc('day', now()) - interval '3 hours' * (1 + n / 80),
        jsonb_build_object(
            'apy', CASE WHEN n % 997 = 0 THEN 900.0 ELSE 5.0 + n % 7 END,
            'tvlUsd', 1000000 + n % 1000
        )
    FROM generate_series(0, :rows - 1) AS n
"""


def measure(server: Settings, sizes: Sequence[int], *, indexes: bool) -> dict[int, float]:
    """Return the check's median seconds by number of rows. The sizes take turns, so that other load
    affects them alike.
    """
    with ExitStack() as databases:
        checks = {
            rows: databases.enter_context(_loaded(server, rows, indexes=indexes)) for rows in sizes
        }
        seconds: dict[int, list[float]] = {rows: [] for rows in sizes}
        for _ in range(REPEAT):
            for rows, check in checks.items():
                seconds[rows].append(_seconds(*check))
    return {rows: statistics.median(of_size) for rows, of_size in seconds.items()}


@contextmanager
def _loaded(
    server: Settings, rows: int, *, indexes: bool
) -> Iterator[tuple[Engine, Settings, Plan]]:
    with copied_database(server, f"spikes_{rows}") as settings:
        engine = make_engine(settings)
        if not indexes:
            drop_secondary_indexes(engine)
        with engine.begin() as connection:
            connection.execute(text(RAW_ROWS), {"rows": rows})
        settle(engine)
        yield engine, settings, _plan(settings, engine)


def _plan(settings: Settings, engine: Engine) -> Plan:
    """Return a plan to which every row is new."""
    plan = plan_metrics(
        settings, engine, Request(full_refresh=True), table=f"{OWN_SCHEMA}.plan_of_a_benchmark"
    )
    now = datetime.now(UTC)
    no_previous_run = LastRun(ANY_TIME, now.date(), None, None, new_from=ANY_TIME, arrivals=None)
    return replace(plan, decision=replace(plan.decision, previous=no_previous_run))


def _seconds(engine: Engine, settings: Settings, plan: Plan) -> float:
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL work_mem = '{MERGE_WORK_MEM}'")
        started = time.perf_counter()
        for statement in spike_preparation(settings, plan):
            connection.exec_driver_sql(statement)
        failing_rows(connection, *spike_query(settings, plan))
        duration = time.perf_counter() - started
        connection.rollback()
        return duration


def report(seconds: dict[int, float]) -> str:
    """Describe the two times, their ratio and whether it reaches the goal."""
    small, large = seconds.values()
    lines = [f"{rows:>10,} rows  {duration:8.3f} s" for rows, duration in seconds.items()]
    ratio = large / small
    verdict = "hit" if ratio <= GOAL else "missed"
    return "\n".join([*lines, f"ratio {ratio:.2f}, goal at most {GOAL}: {verdict}"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spikes", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"N (default: {ROWS:,})")
    parser.add_argument(
        "--indexes", action="store_true", help="keep the indexes of raw history, to compare"
    )
    options = parser.parse_args(argv)
    if options.rows < 1:
        parser.error(f"--rows {options.rows} is no number of rows; give 1 or more")
    print(*(f"{name}: {value}" for name, value in machine_facts().items()), sep="\n")
    with temporary_server() as server:
        sizes = (options.rows, 2 * options.rows)
        print(report(measure(server, sizes, indexes=options.indexes)))


if __name__ == "__main__":
    main()
