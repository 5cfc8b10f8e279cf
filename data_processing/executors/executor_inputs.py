"""Inputs of an executor: what a run reads, how it validates the rows, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config_spark import Settings
from data_processing.checks.row_checks import RowCheck
from data_processing.metrics.pool_metrics import Provenance
from data_processing.planning.run_plan import Plan
from database.schema.merge_sql import MergeTarget


@dataclass(frozen=True)
class ExecutorInputs:
    """The inputs of either executor; both compute the same rows from them.

    Attributes:
        settings: database, transports and carry limit.
        plan: the run's plan; its table exists.
        checks: row checks with severities.
        targets: tables to merge into.
        rows: SELECT of the raw rows and stored days.
        snapshot: exported snapshot to read.
        provenance: origin of rejected snapshots.
    """

    settings: Settings
    plan: Plan
    checks: Sequence[RowCheck]
    targets: Sequence[MergeTarget]
    rows: str
    snapshot: str
    provenance: Provenance
