"""Detects spikes in raw history: a snapshot far from the one before, while the next one is back at
the earlier value, all within SPIKE_WINDOW_HOURS.

Builds SQL over the plan's table and raw rows; a jump that stays is no spike. APY in percent, TVL in
USD. At most NEWEST_ROWS new rows are looked at, together with the rows near them.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from config_spark import Settings
from data_processing.checks.row_checks import EARLIEST_DAY, raw_row_checks
from data_processing.planning.run_plan import Plan
from data_processing.raw.history import RAW_ROW_COLUMNS, TABLE, midnight, validated_rows

NEWEST_ROWS = 200_000
"""Each row takes about 20 microseconds, with or without indexes on raw history."""

DAYS_WITHOUT_PREVIOUS_RUN = 7
"""For a first run or a backfill of known rows, the newest days are a sample: to look at every row
takes longer than the run.
"""

FLOORS = {"apy": 1.0, "tvl": 1000.0}
"""APY percent and TVL USD. Smaller values count as the floor: a change from nothing to little is no
spike.
"""

FRESH, NEAR = "spike_fresh_rows", "spike_near_bins"
"""Temporary tables of the transaction. FRESH: pool_id and timestamp of the rows to look at. NEAR:
pool_id and start of each BIN with a row within SPIKE_WINDOW_HOURS of a fresh row.
"""

BIN = "interval '48 hours'"
"""Twice the largest SPIKE_WINDOW_HOURS, so that the neighbourhood of a row is in at most two bins.
"""


SCANNED_FOR_A_LOOKUP = 40
"""Rows that PostgreSQL scans in the time of one index look-up."""


def spike_preparation(settings: Settings, plan: Plan) -> list[str]:
    """Return statements that create FRESH and NEAR, to run before the query.

    Args:
        settings: SPIKE_WINDOW_HOURS.
        plan: the run's plan.
    """
    within = _within(settings)
    # analyzed: if PostgreSQL takes a table for small, it scans raw history once for each row
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
    """Return the query of spikes and its parameters; FRESH and NEAR must exist.

    Columns: pool_id, timestamp, measure, before, spike, after (APY percent, TVL USD), and whether
    the spike is the value of its day.

    Args:
        settings: MAX_SPIKE_FACTOR and SPIKE_WINDOW_HOURS.
        plan: the run's plan.
    """
    within = _within(settings)
    floors = " ".join(f"WHEN '{measure}' THEN {floor!r}" for measure, floor in FLOORS.items())
    size = {name: f"greatest(abs({name}), floor)" for name in ("before", "spike", "after")}
    query = f"""
    WITH {_rows_around(within, plan.statistics.start)},
    snapshots AS (
        SELECT DISTINCT ON (pool_id, timestamp) j.*
        FROM ({_validated(settings, plan)}) AS j
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
    """Return CTEs that end in `around_fresh`: raw rows within `within` of a fresh row that are one
    of three rows within that time, and whether each is fresh itself.
    """
    # No window frame moves at both ends: once the rows exceed work_mem, PostgreSQL reads such a
    # frame from disk again for each row. The windows hold two texts and not the JSON. Most pools
    # have one snapshot a day, so numbers are parsed only where three snapshots are close together.
    return f"""{_near_rows(start)},
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


def _near_rows(start: date | None) -> str:
    """Return CTEs that end in `near_rows`: the raw rows of the bins NEAR, and the rows FRESH, which
    have no id.
    """
    # Few bins are looked up in an index on pool and timestamp; PostgreSQL overestimates their
    # ranges and would scan the table. Otherwise equal bins make a hash join of one scan.
    earliest = (start or EARLIEST_DAY) - timedelta(days=1)
    columns = f"{RAW_ROW_COLUMNS}, false AS is_fresh"
    in_bin = f"h.pool_id = n.pool_id AND h.timestamp >= n.begins AND h.timestamp < n.begins + {BIN}"
    # OFFSET 0 keeps the subquery apart, so that PostgreSQL looks up one bin at a time
    return f"""
    lookup AS MATERIALIZED ({_IS_LOOKUP_FASTER}),
    near_rows AS (
        SELECT NULL::bigint AS id, pool_id, timestamp, NULL::bigint AS snapshot,
            NULL::text AS apy, NULL::text AS tvl, NULL::boolean AS not_in_pools,
            NULL::boolean AS dropped, NULL::boolean AS replaced, true AS is_fresh
        FROM {FRESH}
        UNION ALL
        SELECT rows_in_bin.*
        FROM {NEAR} AS n
        CROSS JOIN LATERAL (
            SELECT {columns}
            FROM {TABLE} AS h
            WHERE {in_bin}
            OFFSET 0
        ) AS rows_in_bin
        WHERE (SELECT is_faster FROM lookup)
        UNION ALL
        SELECT {columns}
        FROM {NEAR} AS n
        JOIN {TABLE} AS h ON {in_bin} AND {_bin("h.timestamp")} = n.begins
        WHERE h.timestamp >= {midnight(earliest)}
            AND NOT (SELECT is_faster FROM lookup)
    )"""


def _validated(settings: Settings, plan: Plan) -> str:
    # OFFSET 0: rows are filtered before they are parsed, which costs more
    raw = "SELECT * FROM around_fresh OFFSET 0"
    checks = raw_row_checks(settings, plan.decision.now)
    return validated_rows(raw, checks, also=("pool_id", "is_new"))


def _fresh(plan: Plan) -> str:
    """Return a SELECT of pool and timestamp of the rows to look at."""
    # The rows inserted since the last good run, in the days that the run writes. If the source
    # rewrites every row, those of days that no good run has written.
    previous = plan.decision.previous
    since = f"greatest(p.write_from, p.write_end - {DAYS_WITHOUT_PREVIOUS_RUN})::timestamp"
    is_new = "true"
    if previous and plan.decision.mode != "backfill":
        since = "p.write_from::timestamp"
        is_new = f"h.insertion_timestamp >= '{previous.new_from.isoformat()}'::timestamptz"
        if plan.decision.is_rewritten:
            since = f"greatest(p.write_from, '{previous.end}')::timestamp"
    return f"""
    SELECT h.pool_id, h.timestamp
    FROM {plan.decision.table} AS p
    JOIN {TABLE} AS h ON h.pool_id = p.pool_id
        AND h.timestamp < p.write_end::timestamp AT TIME ZONE 'UTC'
        AND h.timestamp >= {since} AT TIME ZONE 'UTC'
    WHERE {is_new}
    ORDER BY h.timestamp DESC, h.pool_id
    LIMIT {NEWEST_ROWS}"""
