"""Spikes in raw history: a snapshot far from the one before, and the next one back where that was,
all within hours.

In: the plan's table and raw rows, in PostgreSQL. Out: a query with a row for each spike: pool_id,
timestamp, measure, before, spike, after (APY percent, TVL USD), and whether the spike is what its
day is known by. A jump that stays is none. At most NEWEST_ROWS new rows are looked at, with those
near them, at a cost that grows with their number whatever indexes raw history has. Most pools have
one snapshot a day: numbers are parsed only where three snapshots lie close together.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from config_spark import Settings
from data_processing.checks.row_checks import EARLIEST_DAY, raw_row_checks
from data_processing.planning.run_plan import Plan
from data_processing.raw.history import TABLE, TEXTS, judged_rows, midnight

NEWEST_ROWS = 200_000
"""What is looked at takes about 20 microseconds a row."""

DAYS_WITHOUT_A_PREDECESSOR = 7
"""Where no run has been before, or a backfill looks at known rows again, the newest days stand for
all: every row would take longer than the run.
"""

FLOORS = {"apy": 1.0, "tvl": 1000.0}
"""Below 1 % and 1,000 USD a value counts as that: from nothing to little is no spike."""

FRESH, NEAR = "spike_fresh_rows", "spike_near_bins"
"""Temporary tables of the commit: pool_id and timestamp of the rows to look at; pool_id and begin
of the BINs that have a row within SPIKE_WINDOW_HOURS of one of them.
"""

BIN = "interval '48 hours'"
"""Twice the largest SPIKE_WINDOW_HOURS: what is around a row lies in two bins at most."""


SCANNED_FOR_A_LOOKUP = 40
"""Rows that are scanned in the time of one look-up in an index."""


def spike_preparation(settings: Settings, plan: Plan) -> list[str]:
    """Statements that make FRESH and NEAR before the query runs. Both are analyzed: where
    PostgreSQL takes them for small it passes over raw history once for each of their rows.
    """
    within = _within(settings)
    return [
        f"CREATE TEMPORARY TABLE {FRESH} ON COMMIT DROP AS {_fresh(plan)}",
        f"ANALYZE {FRESH}",
        f"""
    CREATE TEMPORARY TABLE {NEAR} ON COMMIT DROP AS
    SELECT DISTINCT pool_id, begins
    FROM {FRESH}
    CROSS JOIN LATERAL (
        VALUES ({_bin(f"timestamp - {within}")}), ({_bin(f"timestamp + {within}")})
    ) AS bins (begins)""",
        f"ANALYZE {NEAR}",
    ]


def spike_query(settings: Settings, plan: Plan) -> tuple[str, dict[str, Any]]:
    """The query and its parameters; FRESH and NEAR are there."""
    within = _within(settings)
    floors = " ".join(f"WHEN '{measure}' THEN {floor!r}" for measure, floor in FLOORS.items())
    size = {name: f"greatest(abs({name}), floor)" for name in ("before", "spike", "after")}
    query = f"""
    WITH {_rows_around(within, plan.start)},
    snapshots AS (
        SELECT DISTINCT ON (pool_id, timestamp) j.*
        FROM ({_judged(settings, plan)}) AS j
        WHERE reason IS NULL
        ORDER BY pool_id, timestamp, id DESC
    ),
    measured AS (
        SELECT pool_id, timestamp, is_new, measure, value, CASE measure {floors} END AS floor
        FROM snapshots
        CROSS JOIN LATERAL (VALUES ('apy', apy_value), ('tvl', tvl_value))
            AS measures (measure, value)
        WHERE value IS NOT NULL
    ),
    triples AS (
        SELECT pool_id, timestamp, measure, floor,
            lag(value) OVER w AS before,
            value AS spike,
            lead(value) OVER w AS after,
            is_new OR lag(is_new) OVER w OR lead(is_new) OVER w AS has_new,
            lead(timestamp) OVER w AS after_at,
            lead(timestamp) OVER w - lag(timestamp) OVER w AS span
        FROM measured
        WINDOW w AS (PARTITION BY pool_id, measure ORDER BY timestamp)
    )
    SELECT pool_id, timestamp, measure, before, spike, after,
        (after_at AT TIME ZONE 'UTC')::date > (timestamp AT TIME ZONE 'UTC')::date
            AS is_value_of_its_day
    FROM triples
    WHERE has_new
        AND span <= {within}
        AND (
            {size["spike"]} > :factor * {size["before"]}
            OR {size["before"]} > :factor * {size["spike"]}
        )
        AND {size["after"]} <= :factor * {size["before"]}
        AND {size["before"]} <= :factor * {size["after"]}
    ORDER BY timestamp DESC, pool_id, measure"""
    return query, {"factor": settings.max_spike_factor}


_IS_LOOKUP_FASTER = f"""
        SELECT {SCANNED_FOR_A_LOOKUP} * (SELECT count(*) FROM {NEAR}) < c.reltuples
            AND EXISTS (
                SELECT FROM pg_index AS i
                JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                JOIN pg_attribute AS b ON b.attrelid = c.oid AND b.attnum = i.indkey[1]
                WHERE i.indrelid = c.oid
                    AND i.indisvalid
                    AND i.indpred IS NULL
                    AND (a.attname, b.attname) = ('pool_id', 'timestamp')
            ) AS is_faster
        FROM pg_class AS c
        WHERE c.oid = '{TABLE}'::regclass
    """


def _within(settings: Settings) -> str:
    return f"interval '{settings.spike_window_hours * 3600:.0f} seconds'"


def _bin(moment: str) -> str:
    return f"date_bin({BIN}, {moment}, {midnight(EARLIEST_DAY)})"


def _rows_around(within: str, start: date | None) -> str:
    """CTEs that end in `around_fresh`: raw rows within `within` of a fresh row that are one of
    three within that time, and whether each is fresh itself.

    Few bins are looked up in an index on pool and timestamp; PostgreSQL takes their ranges for
    large and would scan the table. Else equal bins make a hash join of one scan.

    No window has a frame that moves at both ends: once the rows are more than work_mem, PostgreSQL
    reads such a frame from disk again for each row. The windows hold two texts and not the JSON.
    """
    earliest = (start or EARLIEST_DAY) - timedelta(days=1)
    columns = f"{TEXTS}, false AS is_fresh"
    in_bin = f"h.pool_id = n.pool_id AND h.timestamp >= n.begins AND h.timestamp < n.begins + {BIN}"
    return f"""
    lookup AS MATERIALIZED ({_IS_LOOKUP_FASTER}),
    near_rows AS (
        SELECT NULL::bigint AS id, pool_id, timestamp, NULL::bigint AS snapshot,
            NULL::text AS apy, NULL::text AS tvl, NULL::boolean AS not_in_pools,
            NULL::boolean AS dropped, NULL::boolean AS replaced, true AS is_fresh
        FROM {FRESH}
        UNION ALL
        SELECT found.*
        FROM {NEAR} AS n
        CROSS JOIN LATERAL (SELECT {columns} FROM {TABLE} AS h WHERE {in_bin} OFFSET 0) AS found
        WHERE (SELECT is_faster FROM lookup)
        UNION ALL
        SELECT {columns}
        FROM {NEAR} AS n
        JOIN {TABLE} AS h ON {in_bin} AND {_bin("h.timestamp")} = n.begins
        WHERE h.timestamp >= {midnight(earliest)}
            AND NOT (SELECT is_faster FROM lookup)
    ),
    marked AS (
        SELECT *,
            bool_or(is_fresh) OVER (PARTITION BY pool_id, timestamp) AS is_new,
            max(timestamp) FILTER (WHERE is_fresh)
                OVER (PARTITION BY pool_id ORDER BY timestamp) AS fresh_before,
            min(timestamp) FILTER (WHERE is_fresh)
                OVER (PARTITION BY pool_id ORDER BY timestamp DESC) AS fresh_after
        FROM near_rows
    ),
    counted AS (
        SELECT *,
            lead(timestamp, 2) OVER pool - timestamp <= {within}
                OR lead(timestamp) OVER pool - lag(timestamp) OVER pool <= {within}
                OR timestamp - lag(timestamp, 2) OVER pool <= {within} AS is_of_three
        FROM marked
        WHERE id IS NOT NULL
            AND (timestamp - fresh_before <= {within} OR fresh_after - timestamp <= {within})
        WINDOW pool AS (PARTITION BY pool_id ORDER BY timestamp)
    ),
    around_fresh AS (
        SELECT *
        FROM counted
        WHERE is_of_three
    )"""


def _judged(settings: Settings, plan: Plan) -> str:
    raw = "SELECT * FROM around_fresh OFFSET 0"
    return judged_rows(raw, raw_row_checks(settings, plan.now), also=("pool_id", "is_new"))


def _fresh(plan: Plan) -> str:
    """Pool and timestamp of the rows to look at: of the days the run writes, what was inserted
    since the last good run. Where that is every row, those of days that no good run has written.
    """
    planned = (
        f"FROM {plan.table} AS p JOIN {TABLE} AS h ON h.pool_id = p.pool_id AND h.timestamp <"
        " p.write_end::timestamp AT TIME ZONE 'UTC' AND h.timestamp >= {since} AT TIME ZONE"
        " 'UTC'"
    )
    newest = f"ORDER BY h.timestamp DESC LIMIT {NEWEST_ROWS}"
    if plan.previous and plan.mode != "backfill":
        inserted = f"h.insertion_timestamp >= '{plan.previous.new_from.isoformat()}'::timestamptz"
        since = "p.write_from::timestamp"
        if plan.is_rewritten:
            since = f"greatest(p.write_from, '{plan.previous.end}')::timestamp"
        return (
            f"SELECT h.pool_id, h.timestamp {planned.format(since=since)} WHERE {inserted} {newest}"
        )
    since = f"greatest(p.write_from, p.write_end - {DAYS_WITHOUT_A_PREDECESSOR})::timestamp"
    return f"SELECT h.pool_id, h.timestamp {planned.format(since=since)} {newest}"
