"""Spikes in raw history: a snapshot far from the one before, and the next one back where that was,
all within hours.

In: the plan's table and raw rows, in PostgreSQL. Out: a query with a row for each spike: pool_id,
timestamp, measure, before, spike, after (APY percent, TVL USD), and whether the spike is what its
day is known by. A jump that stays is none. Most pools have one snapshot a day: an index finds out
which have more around a new row before any JSON is looked at, and at most NEWEST_ROWS new rows are
looked at.
"""

from __future__ import annotations

from typing import Any

from config_spark import Settings
from data_processing.plan import Plan
from data_processing.quality.row_checks import raw_row_checks
from data_processing.raw_history import TABLE, TEXTS, judged_rows

NEWEST_ROWS = 200_000
"""What is looked at takes about 20 microseconds a row."""

DAYS_WITHOUT_A_PREDECESSOR = 7
"""Where no run has been before, or a backfill looks at known rows again, the newest days stand for
all: every row would take longer than the run.
"""

FLOORS = {"apy": 1.0, "tvl": 1000.0}
"""Below 1 % and 1,000 USD a value counts as that: from nothing to little is no spike."""


def spike_query(settings: Settings, plan: Plan) -> tuple[str, dict[str, Any]]:
    """The query and its parameters."""
    within = f"interval '{settings.spike_hours * 3600:.0f} seconds'"
    around = (
        f"h.pool_id = f.pool_id AND h.timestamp BETWEEN f.timestamp - {within} AND f.timestamp +"
        f" {within}"
    )
    # LATERAL and OFFSET: the planner, which takes `near` for large, would read all of the raw table
    # instead of a few rows by their key
    raw = (
        f"SELECT found.* FROM near CROSS JOIN LATERAL (SELECT {TEXTS} FROM {TABLE} AS h WHERE h.id"
        " = near.id OFFSET 0) AS found"
    )
    rows = judged_rows(raw, raw_row_checks(settings, plan.now), also=("pool_id",))
    floors = " ".join(f"WHEN '{measure}' THEN {floor!r}" for measure, floor in FLOORS.items())
    size = {name: f"greatest(abs({name}), floor)" for name in ("before", "spike", "after")}
    query = f"""
    WITH fresh AS ({_fresh(plan)}),
    crowded AS (
        SELECT f.*
        FROM fresh AS f
        WHERE (SELECT count(*) FROM {TABLE} AS h WHERE {around}) > 2
    ),
    near AS (
        SELECT DISTINCT h.id
        FROM crowded AS f
        JOIN {TABLE} AS h ON {around}
    ),
    snapshots AS (
        SELECT DISTINCT ON (pool_id, timestamp) j.*,
            EXISTS (
                SELECT FROM crowded AS f
                WHERE f.pool_id = j.pool_id
                    AND f.timestamp = j.timestamp
            ) AS is_new
        FROM ({rows}) AS j
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


def _fresh(plan: Plan) -> str:
    """Pool and timestamp of the rows to look at: of the days the run writes, what was inserted
    since the last good run.
    """
    planned = (
        f"FROM {plan.table} AS p JOIN {TABLE} AS h ON h.pool_id = p.pool_id AND h.timestamp <"
        " p.write_end::timestamp AT TIME ZONE 'UTC' AND h.timestamp >= {since} AT TIME ZONE"
        " 'UTC'"
    )
    newest = f"ORDER BY h.timestamp DESC LIMIT {NEWEST_ROWS}"
    if plan.previous and plan.mode != "backfill":
        inserted = f"h.insertion_timestamp >= '{plan.previous.watermark.isoformat()}'::timestamptz"
        return (
            f"SELECT h.pool_id, h.timestamp {planned.format(since='p.write_from::timestamp')} WHERE"
            f" {inserted} {newest}"
        )
    since = f"greatest(p.write_from, p.write_end - {DAYS_WITHOUT_A_PREDECESSOR})::timestamp"
    return f"SELECT h.pool_id, h.timestamp {planned.format(since=since)} {newest}"
