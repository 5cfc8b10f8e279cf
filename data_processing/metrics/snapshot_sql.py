"""Builds the SQL that reads the snapshots of a run without Spark: PostgreSQL parses and validates
the rows, and returns those of each pool in order of time.

The counterpart of `raw_rows.parse_raw_rows` and `pool_metrics_spark.group_by_pool`, with the same
rows and values. APY in percent, TVL in USD, days since 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_processing.checks.row_checks import RowCheck, validated


def select_snapshots(rows: str, plan_table: str, checks: Sequence[RowCheck], predicate: str) -> str:
    """Return a SELECT of parsed snapshots, grouped by pool and in order of time.

    Args:
        rows: SELECT of raw rows and stored days, with the columns of `select_rows_to_read`.
        plan_table: the plan's table, with one row for each pool and its intervals.
        checks: row checks with severities.
        predicate: condition on pool_id that selects the pools of a partition.
    """
    texts = f"""
        SELECT id::bigint, pool_id::text, timestamp, snapshot::bigint, apy::text, tvl::text,
            not_in_pools, dropped, replaced
        FROM ({rows}) AS source
        WHERE {predicate}"""
    parsed = validated(
        texts,
        others=(
            "id",
            "pool_id",
            "timestamp",
            "snapshot",
            "not_in_pools",
            "dropped",
            "replaced",
        ),
        texts=("apy", "tvl"),
        checks=checks,
        with_warning=True,
    )
    # A row without an id is a stored day and no raw row: nothing has to be quarantined. A pool that
    # is older than the rows that are read starts with an empty snapshot. A row out of range may
    # belong to a pool that is not in the plan. NULLs sort first: that empty snapshot before a
    # stored day, and that before every raw row of its day.
    return f"""
    SELECT r.pool_id, r.id, {_day_number("(r.timestamp AT TIME ZONE 'UTC')::date")} AS day,
        r.timestamp, r.snapshot, r.apy, r.tvl, r.reason, r.warning,
        {_day_number("p.open_end")} AS open_end,
        {_day_number("p.write_from")} AS write_from,
        {_day_number("p.write_end")} AS write_end
    FROM (
        SELECT pool_id, id, timestamp, snapshot, apy_value AS apy, tvl_value AS tvl, reason, warning
        FROM ({parsed}) AS validated
        WHERE id IS NOT NULL OR reason IS NULL
        UNION ALL
        SELECT pool_id::text, NULL, known_from::timestamp AT TIME ZONE 'UTC', NULL, NULL, NULL,
            NULL, NULL
        FROM {plan_table}
        WHERE known_from IS NOT NULL AND {predicate}
    ) AS r
    LEFT JOIN {plan_table} AS p ON p.pool_id::text = r.pool_id
    ORDER BY r.pool_id COLLATE "C", r.timestamp NULLS FIRST, r.id NULLS FIRST, r.apy NULLS FIRST,
        r.tvl NULLS FIRST, r.snapshot NULLS FIRST"""


def _day_number(day: str) -> str:
    return f"{day} - DATE '1970-01-01'"
