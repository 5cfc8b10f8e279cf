"""Raw pool history at the input edge: the SELECT that fetches it and the transform that turns its
texts into numbers.

In: `raw_defillama_pool_history` (several JSON snapshots a pool and day, as the source sent them).
Out: a row for each snapshot with apy (percent), tvl (USD) and, where it must not be used, the
reason. Nothing is dropped here: accepted + quarantined = read. Stored values of days whose raw rows
are gone come beside them, without an id: they were not read from raw history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from data_processing.checks.row_checks import (
    EARLIEST_DAY,
    RowCheck,
    judged,
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
from database.schema.tables import pools, raw_pool_history

TABLE = qualified(raw_pool_history)


def texts_of(document: str) -> str:
    """SQL: apy and tvl of the JSON expression `document`, as text; a value that is no object has
    NULL for both.
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
    """PostgreSQL condition: the metrics table has a foreign key to `pools`, and `pools` lacks
    the pool, so that no metric of it can be written. `pool_id` is an SQL expression.

    The key is looked up once a query; where there is none no row is looked at.
    """
    known = f"SELECT FROM {_POOLS} AS k WHERE k.pool_id = {pool_id}"
    return f"({_HAS_FOREIGN_KEY} AND NOT EXISTS ({known}))"


TEXTS = (
    f"coalesce(h.id::bigint, 0) AS id, h.pool_id, h.timestamp, {snapshot_identity('h')} AS"
    " snapshot,"
    f" {texts_of('h.raw_json_data')}, {lacks_its_pool('h.pool_id')} AS not_in_pools,"
    f" {decided(snapshot_identity('h'))}"
)
"""JSON is taken apart in PostgreSQL, so that two texts travel and not the document. The owner's ids
may be integers of any width: staging has bigint. A row without one is a raw row too.
"""

LOWEST, HIGHEST = "0001-01-01", "9999-01-01"
"""Bounds that Spark's timestamps hold: PostgreSQL's reach further, and to infinity. Whatever lies
beyond is quarantined anyway.
"""


def rows_to_read(plan_table: str, impossible: str | None) -> str:
    """SELECT of the rows that a run reads: for each planned pool its days from `read_from` on,
    look-back included, and the `impossible` ones.

    Columns: id, pool_id, timestamp, snapshot, apy and tvl as text, not_in_pools, dropped, replaced.
    `impossible` is a condition of `impossible_rows`, or None for a run that leaves them out.
    """
    clamped = TEXTS.replace(
        "h.timestamp,",
        # `greatest` leaves a NULL out
        f"CASE WHEN h.timestamp IS NOT NULL THEN least(greatest(h.timestamp,"
        f" '{LOWEST}'::timestamptz), '{HIGHEST}'::timestamptz) END AS timestamp,",
    )
    planned = f"SELECT {clamped} FROM {planned_rows(plan_table)}"
    return (
        planned
        if impossible is None
        else f"{planned} UNION ALL SELECT {clamped} FROM {TABLE} AS h WHERE {impossible}"
    )


def stored_rows(plan_table: str, *, retire_missing: bool) -> str:
    """SELECT of the stored days that a run reads because their raw rows are gone, with the columns
    of `rows_to_read`: id and snapshot are NULL, the timestamp is their place in the day.
    """
    return f"SELECT {STORED_TEXTS} FROM {stored_days(plan_table, retire_missing=retire_missing)}"


STORED_TEXTS = (
    f"NULL::bigint AS id, s.pool_id, {PLACE} AS timestamp, NULL::bigint AS snapshot, s.apy::text AS"
    f" apy, s.tvl::text AS tvl, {lacks_its_pool('s.pool_id')} AS not_in_pools,"
    f" {decided('s.snapshot')}"
)
"""A stored day with the columns of TEXTS."""


def planned_rows(plan_table: str) -> str:
    """FROM clause: raw history as `h` beside the plan as `p`."""
    return (
        f"{TABLE} AS h JOIN {plan_table} AS p ON p.pool_id = h.pool_id AND h.timestamp >="
        " p.read_from AND h.timestamp < p.read_end"
    )


def impossible_rows(now: datetime, since: datetime | None, watermark: datetime) -> str:
    """Condition on `h`: of no day or of one that can't be a snapshot's, so that no pool's calendar
    has it, and inserted from `since` (None: ever) to before `watermark`: by the time that a later
    row is read, its moment may have come. The next run begins there. A row that does not say when
    it was inserted may always be new.
    """
    impossible = (
        f"(h.timestamp < {midnight(EARLIEST_DAY)} OR h.timestamp > {moment(now)} OR h.timestamp IS"
        " NULL) AND h.pool_id IS NOT NULL"
    )
    if since is None:
        return f"(h.insertion_timestamp < {moment(watermark)}) IS NOT FALSE AND {impossible}"
    return (
        f"(h.insertion_timestamp IS NULL OR h.insertion_timestamp >= {moment(since)} AND"
        f" h.insertion_timestamp < {moment(watermark)}) AND {impossible}"
    )


def pools_accepted_before(pools: str, checks: Sequence[RowCheck]) -> str:
    """SELECT of those of `pools`, a SELECT in brackets of pool_id and read_from, that have an
    accepted raw row before read_from, in one pass over raw history.
    """
    earlier = (
        f"SELECT {TEXTS} FROM {TABLE} AS h JOIN {pools} AS p ON p.pool_id = h.pool_id AND"
        f" h.timestamp >= {midnight(EARLIEST_DAY)} AND h.timestamp < p.read_from OFFSET 0"
    )
    # OFFSET: joined before they are judged, which costs more
    rows = judged_rows(earlier, checks, also=("pool_id",))
    return f"SELECT DISTINCT pool_id FROM ({rows}) AS earlier WHERE reason IS NULL"


def stored_before(day: str, pool_id: str, checks: Sequence[RowCheck]) -> str:
    """SELECT of the pool's stored days before `day` that are good by `checks`. Both arguments are
    SQL expressions.
    """
    earlier = (
        f"SELECT {STORED_TEXTS} FROM {OBSERVED} AS s WHERE s.pool_id = {pool_id} AND s.date < {day}"
    )
    return f"SELECT FROM ({judged_rows(earlier, checks)}) AS earlier WHERE reason IS NULL"


def judged_rows(select: str, checks: Sequence[RowCheck], *, also: Sequence[str] = ()) -> str:
    """PostgreSQL: raw rows with apy_value (percent), tvl_value (USD) and the reason, NULL for a
    good row; `also` names more columns to keep.

    `select` has id, timestamp, apy and tvl as text, not_in_pools, dropped and replaced.
    """
    return judged(
        select,
        others=("id", "timestamp", "not_in_pools", "dropped", "replaced", *also),
        texts=("apy", "tvl"),
        checks=checks,
    )


def midnight(day: date) -> str:
    """A UTC day's begin as a PostgreSQL literal."""
    return f"'{day} 00:00:00+00'::timestamptz"


def moment(at: datetime) -> str:
    """A moment as a PostgreSQL literal."""
    return f"'{at.isoformat()}'::timestamptz"
