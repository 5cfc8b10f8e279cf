"""Computes a run in processes of this machine, without a JVM.

The pools are split into partitions, one for each process. PostgreSQL parses, validates and sorts
the rows of a partition, numpy computes its days, and both ways go through binary COPY.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from config_spark import Settings
from data_processing.checks.row_checks import RowCheck
from data_processing.executors.computed_rows import ComputedRows
from data_processing.executors.partition import Partition
from data_processing.executors.partition_processes import compute_partitions
from data_processing.metrics.market_columns import market_columns
from data_processing.metrics.pool_metrics import SCHEMA, Provenance
from data_processing.metrics.snapshot_sql import SNAPSHOTS, select_snapshots
from data_processing.planning.run_plan import Plan
from database.connections.engine import probe_session
from database.schema.merge_sql import MergeTarget
from database.staging import StagedRows
from database.transport.partitions import hash_predicates

ROWS_OF_A_PROCESS = 100_000
"""Rows that are worth another process, whose start takes half a second of processor time."""

MOST_PROCESSES = 8
"""Each process is a connection that scans all rows for those whose hash is its own."""


def compute_in_process(
    settings: Settings,
    plan: Plan,
    checks: Sequence[RowCheck],
    targets: Sequence[MergeTarget],
    *,
    rows: str,
    snapshot: str,
    provenance: Provenance,
) -> ComputedRows:
    """Return the rows of a run, lazily.

    Args:
        settings: database and carry limit.
        plan: the run's plan; its table exists.
        checks: row checks with severities.
        targets: tables to merge into.
        rows: SELECT of the raw rows and stored days.
        snapshot: exported snapshot to read.
        provenance: origin of rejected snapshots.
    """
    counts: Counter[str] = Counter()

    def load(staging: str) -> int:
        session = probe_session(settings).for_tasks
        market = market_columns(plan.decision.market)
        partitions = [
            Partition(
                number=number,
                session=session,
                snapshot=snapshot,
                select=select_snapshots(rows, plan.decision.table, checks, predicate),
                schema=SNAPSHOTS,
                staging=staging,
                max_fill_days=settings.max_fill_days,
                market=market,
                provenance=provenance,
            )
            for number, predicate in enumerate(
                hash_predicates("pool_id", process_count(plan.statistics.rows_to_read))
            )
        ]
        results = compute_partitions(partitions)
        for result in results:
            counts.update(result.raw_rows)
        return sum(result.sent for result in results)

    def raw_row_counts() -> Mapping[str, int]:
        return counts

    return ComputedRows(StagedRows(SCHEMA, targets, load), raw_row_counts)


def process_count(rows_to_read: int) -> int:
    """Return the number of processes for a number of raw rows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, MOST_PROCESSES, rows_to_read // ROWS_OF_A_PROCESS))
