"""Computes a run in processes of this machine, without a JVM.

The pools are split into partitions, one for each process. PostgreSQL parses, validates and sorts
the rows of a partition, numpy computes its days, and both ways go through binary COPY.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

from data_processing.executors.computed_rows import ComputedRows
from data_processing.executors.executor_inputs import ExecutorInputs
from data_processing.executors.partition import Partition
from data_processing.executors.partition_processes import compute_partitions
from data_processing.metrics.market_columns import market_columns
from data_processing.metrics.pool_metrics import SCHEMA
from data_processing.metrics.snapshot_sql import select_snapshots
from database.connections.engine import probe_session
from database.staging import StagedRows
from database.transport.partitions import hash_predicates

ROWS_OF_A_PROCESS = 100_000
"""Rows that are worth another process, whose start takes half a second of processor time."""

MOST_PROCESSES = 8
"""Each process is a connection that scans all rows for those whose hash is its own."""


def compute_in_process(inputs: ExecutorInputs) -> ComputedRows:
    """Return the rows of a run, lazily."""
    counts: Counter[str] = Counter()

    def load(staging: str) -> int:
        session = probe_session(inputs.settings).for_tasks
        decision = inputs.plan.decision
        market = market_columns(decision.market)
        partitions = [
            Partition(
                number=number,
                session=session,
                snapshot=inputs.snapshot,
                select=select_snapshots(inputs.rows, decision.table, inputs.checks, predicate),
                staging=staging,
                max_fill_days=inputs.settings.max_fill_days,
                market=market,
                provenance=inputs.provenance,
            )
            for number, predicate in enumerate(
                hash_predicates("pool_id", process_count(inputs.plan.statistics.rows_to_read))
            )
        ]
        results = compute_partitions(partitions)
        for result in results:
            counts.update(result.raw_rows)
        return sum(result.sent for result in results)

    def raw_row_counts() -> Mapping[str, int]:
        return counts

    return ComputedRows(StagedRows(SCHEMA, inputs.targets, load), raw_row_counts)


def process_count(rows_to_read: int) -> int:
    """Return the number of processes for a number of raw rows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, MOST_PROCESSES, rows_to_read // ROWS_OF_A_PROCESS))
