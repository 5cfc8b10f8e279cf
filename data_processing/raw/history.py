"""Builds the SQL that reads `raw_defillama_pool_history`, which has several JSON snapshots for each
pool and day.

A row has apy (percent) and tvl (USD) as text, and the facts that decide whether it may be used. No
row is left out: accepted + quarantined = read. `id` is NULL for a stored day, and 0 for a raw row
of a table without ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from data_processing.checks.row_checks import (
    EARLIEST_DAY,
    RowCheck,
    validated,
)
from data_processing.raw.observed_days import (
    OBSERVED,
    PLACE,
    decided,
    snapshot_identity,
    stored_days,
)
from database.schema.merge_sql import qualified
from database.schema.metrics_table import REGCLASS
from database.schema.owner_tables import pools, raw_pool_history

TABLE = qualified(raw_pool_history)


def json_fields(document: str) -> str:
    """Return a select list: apy and tvl of a JSON expression, as text.

    Args:
        document: an SQL expression of type jsonb; a value that is no object gives NULL for both.
    """
    return f"{document} ->> 'apy' AS apy, {document} ->> 'tvlUsd' AS tvl"


_POOLS = qualified(pools)

_HAS_FOREIGN_KEY = f"""EXISTS (
    SELECT FROM pg_constraint AS c
    WHERE c.contype = 'f'
        AND c.conrelid = {REGCLASS}
        AND c.confrelid = to_regclass('{_POOLS}')
        AND ARRAY['pool_id'] = (
            SELECT array_agg(a.attname::text)
            FROM pg_attribute AS a
            WHERE a.attrelid = c.conrelid
                AND a.attnum = ANY (c.conkey)
        )
)"""


def lacks_its_pool(pool_id: str) -> str:
    """Return a condition: no metric of the pool can be written because of a foreign key.

    The metrics table has a foreign key to `pools`, and `pools` lacks the pool.

    Args:
        pool_id: an SQL expression.
    """
    # the key is looked up once for each query; without it no row of `pools` is read
    pool_row = f"SELECT FROM {_POOLS} AS k WHERE k.pool_id = {pool_id}"
    return f"({_HAS_FOREIGN_KEY} AND NOT EXISTS ({pool_row}))"


RAW_ROW_COLUMNS = f"""coalesce(h.id::bigint, 0) AS id,
        h.pool_id,
        h.timestamp,
        {snapshot_identity("h")} AS snapshot,
        {json_fields("h.raw_json_data")},
        {lacks_its_pool("h.pool_id")} AS not_in_pools,
        {decided(snapshot_identity("h"))}"""
"""Select list of a raw row `h`. PostgreSQL takes the JSON apart, so that two texts are sent and not
the document. The owner's ids may be integers of any width, or missing; staging has bigint.
"""

LOWEST, HIGHEST = "0001-01-01", "9999-01-01"
"""Range of Spark's timestamps. PostgreSQL's go further; rows beyond are quarantined in any case."""


def select_rows_to_read(plan_table: str, out_of_range: str | None) -> str:
    """Return a SELECT of the raw rows that a run reads.

    For each planned pool it has the rows from `read_from` on, which includes the look-back.
    Columns: id, pool_id, timestamp, snapshot, apy and tvl as text, not_in_pools, dropped, replaced.

    Args:
        plan_table: the plan's table.
        out_of_range: condition of `out_of_range_rows`, or None to leave those rows out.
    """
    # `greatest` ignores a NULL
    clamped = f"""CASE
            WHEN h.timestamp IS NOT NULL
                THEN least(greatest(h.timestamp, '{LOWEST}'::timestamptz), '{HIGHEST}'::timestamptz)
        END AS timestamp,"""
    columns = RAW_ROW_COLUMNS.replace("h.timestamp,", clamped)
    planned = f"SELECT {columns} FROM {planned_rows(plan_table)}"
    if out_of_range is None:
        return planned
    return f"{planned} UNION ALL SELECT {columns} FROM {TABLE} AS h WHERE {out_of_range}"


def select_stored_rows(plan_table: str, *, retire_missing: bool) -> str:
    """Return a SELECT of the stored days that a run reads because their raw rows are gone.

    It has the columns of `select_rows_to_read`. id and snapshot are NULL, the timestamp is the
    position in the day.

    Args:
        plan_table: the plan's table.
        retire_missing: leave out the days that the run writes.
    """
    return (
        f"SELECT {STORED_DAY_COLUMNS} FROM {stored_days(plan_table, retire_missing=retire_missing)}"
    )


STORED_DAY_COLUMNS = f"""NULL::bigint AS id,
        s.pool_id,
        {PLACE} AS timestamp,
        NULL::bigint AS snapshot,
        s.apy::text AS apy,
        s.tvl::text AS tvl,
        {lacks_its_pool("s.pool_id")} AS not_in_pools,
        {decided("s.snapshot")}"""
"""Select list of a stored day `s`, with the columns of RAW_ROW_COLUMNS."""


def planned_rows(plan_table: str) -> str:
    """Return a FROM clause: raw history `h` joined to the plan's table `p`."""
    # the second bound spares the older rows the join: an increment reads a tenth of them
    return f"""{TABLE} AS h
    JOIN {plan_table} AS p ON p.pool_id = h.pool_id
        AND h.timestamp >= p.read_from
        AND h.timestamp >= (SELECT min(read_from) FROM {plan_table})
        AND h.timestamp < p.read_end"""


def out_of_range_rows(now: datetime, since: datetime | None, watermark: datetime) -> str:
    """Return a condition on `h` for rows without a possible day, which no pool's days include.

    Args:
        now: clock of the run, UTC; a later timestamp is in the future.
        since: only rows inserted from here on; None for all.
        watermark: only rows inserted before it. Later rows are left to the next run: their
            timestamp may no longer be in the future by then.
    """
    out_of_range = f"""(
            h.timestamp < {midnight(EARLIEST_DAY)}
            OR h.timestamp > {moment(now)}
            OR h.timestamp IS NULL
        )
        AND h.pool_id IS NOT NULL"""
    # a row without an insertion timestamp may always be new
    if since is None:
        return f"(h.insertion_timestamp < {moment(watermark)}) IS NOT FALSE AND {out_of_range}"
    return f"""(
            h.insertion_timestamp IS NULL
            OR h.insertion_timestamp >= {moment(since)}
            AND h.insertion_timestamp < {moment(watermark)}
        )
        AND {out_of_range}"""


def select_accepted_pools_before(pools: str, checks: Sequence[RowCheck]) -> str:
    """Return a SELECT of the pools with an accepted raw row before read_from, in one pass.

    Args:
        pools: a SELECT in brackets of pool_id and read_from.
        checks: row checks with severities.
    """
    # OFFSET 0: rows are joined before they are validated, which costs more
    earlier = f"""
        SELECT {RAW_ROW_COLUMNS}
        FROM {TABLE} AS h
        JOIN {pools} AS p ON p.pool_id = h.pool_id
            AND h.timestamp >= {midnight(EARLIEST_DAY)}
            AND h.timestamp < p.read_from
        OFFSET 0"""
    rows = validated_rows(earlier, checks, also=("pool_id",))
    return f"SELECT DISTINCT pool_id FROM ({rows}) AS earlier WHERE reason IS NULL"


def exists_stored_before(day: str, pool_id: str, checks: Sequence[RowCheck]) -> str:
    """Return a subquery for EXISTS: the pool's accepted stored days before `day`.

    Args:
        day: an SQL expression of type date.
        pool_id: an SQL expression.
        checks: row checks with severities.
    """
    earlier = f"""
        SELECT {STORED_DAY_COLUMNS}
        FROM {OBSERVED} AS s
        WHERE s.pool_id = {pool_id}
            AND s.date < {day}"""
    return f"SELECT FROM ({validated_rows(earlier, checks)}) AS earlier WHERE reason IS NULL"


def validated_rows(select: str, checks: Sequence[RowCheck], *, also: Sequence[str] = ()) -> str:
    """Return a SELECT of raw rows with apy_value (percent), tvl_value (USD) and reason, NULL for an
    accepted row.

    Args:
        select: has id, timestamp, apy and tvl as text, not_in_pools, dropped and replaced.
        checks: row checks with severities.
        also: more columns of `select` to return.
    """
    return validated(
        select,
        others=("id", "timestamp", "not_in_pools", "dropped", "replaced", *also),
        texts=("apy", "tvl"),
        checks=checks,
    )


def midnight(day: date) -> str:
    """Return the start of a UTC day as a PostgreSQL literal."""
    return f"'{day} 00:00:00+00'::timestamptz"


def moment(at: datetime) -> str:
    """Return a moment as a PostgreSQL literal."""
    return f"'{at.isoformat()}'::timestamptz"
