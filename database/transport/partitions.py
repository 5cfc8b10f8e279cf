"""Splits a query into partitions, which several connections read at once."""

from __future__ import annotations

from database.schema.merge_sql import quoted


def hash_predicates(column: str | None, partitions: int) -> list[str]:
    """Return conditions that split rows evenly by a hash of a column, so that one pool is in one
    partition.

    Args:
        column: the column; None reads one partition.
        partitions: number of partitions.
    """
    if column is None or partitions == 1:
        return ["true"]
    return [
        f"(hashtext(coalesce({quoted(column)}::text, '')) & 2147483647) % {partitions} = {part}"
        for part in range(partitions)
    ]
