"""Computes one partition of a run without Spark: reads its pools from PostgreSQL, computes their
days and loads them into staging.

Imported by the processes of a run, so it imports neither SQLAlchemy nor PySpark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from data_processing.metrics.market_columns import MarketColumns
from data_processing.metrics.pool_metrics import SCHEMA, Provenance, compute_pool_metrics
from database.connections.session_check import TaskSession
from database.transport.arrow_copy import read_batches, stage_batches
from database.transport.tag_batches import tag_batches

SNAPSHOTS = pa.schema(
    [
        ("pool_id", pa.string()),
        ("id", pa.int64()),
        ("day", pa.int32()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("snapshot", pa.int64()),
        ("apy", pa.float64()),
        ("tvl", pa.float64()),
        ("reason", pa.string()),
        ("warning", pa.string()),
        ("open_end", pa.int32()),
        ("write_from", pa.int32()),
        ("write_end", pa.int32()),
    ]
)
"""Columns of `snapshot_sql.select_snapshots`, whose module imports the settings."""


@dataclass(frozen=True)
class Partition:
    """The work of one process.

    Attributes:
        number: position among the partitions.
        session: the session that its connections must match.
        snapshot: exported snapshot to read.
        select: SELECT of the partition's snapshots.
        staging: qualified name of the staging table.
        max_fill_days: missing days over which a value is carried.
        market: the market series.
        provenance: origin of rejected snapshots.
    """

    number: int
    session: TaskSession
    snapshot: str
    select: str
    staging: str
    max_fill_days: int
    market: MarketColumns
    provenance: Provenance


@dataclass(frozen=True)
class PartitionCounts:
    """Rows of a partition.

    Attributes:
        sent: rows that were loaded into staging.
        raw_rows: `read`, `accepted`, and the rows of each failing check.
    """

    sent: int
    raw_rows: Counter[str]


def compute_partition(partition: Partition) -> PartitionCounts:
    """Read, compute and load the pools of a partition.

    Raises:
        DatabaseError: the database refused a statement or the connection was lost.
    """
    raw_rows: Counter[str] = Counter()
    compute = compute_pool_metrics(partition.max_fill_days, partition.market, partition.provenance)
    snapshots = read_batches(partition.session, partition.select, SNAPSHOTS, partition.snapshot)
    sent = stage_batches(
        partition.session,
        partition.staging,
        partition.number,
        tag_batches(compute(_counted(snapshots, raw_rows)), SCHEMA, partition.number, attempt=0),
    )
    return PartitionCounts(sent, raw_rows)


def _counted(batches: Iterable[pa.RecordBatch], raw_rows: Counter[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        count_raw_rows(batch, raw_rows)
        yield batch.drop_columns(["id", "warning"])


def count_raw_rows(batch: pa.RecordBatch, counts: Counter[str]) -> None:
    """Add the counts of `raw_rows.row_count_columns` of a batch to `counts`.

    Args:
        batch: id, reason and warning of parsed rows.
        counts: counts so far.
    """
    accepted = batch["reason"].is_null()
    counts["read"] += len(batch) - batch["id"].null_count
    counts["accepted"] += pc.sum(pc.and_(batch["id"].is_valid(), accepted), min_count=0).as_py()
    for failing in batch["reason"], batch["warning"].filter(accepted):
        for value in pc.value_counts(failing.drop_null()).to_pylist():
            counts[value["values"]] += value["counts"]
