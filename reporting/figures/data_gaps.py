"""Freshness of the sources, rows by day, and gaps by pool and day.

Reads the tables of the metrics job and the sources' newest rows. Days are UTC.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import pandas as pd
from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from database.schema.metrics_table import metrics_name
from reporting.figures.data_quality import RawEnd

# rows of the future, from a wrong clock, would hide that a source has stopped
SOURCES = """
SELECT 'raw_coinmarketcap_ohlcv' AS source, symbol || ' price' AS content,
    max(data_timestamp) AS newest
FROM raw_coinmarketcap_ohlcv
WHERE data_timestamp <= now() AND symbol IN ('ETH', 'BTC')
GROUP BY symbol
UNION ALL
SELECT 'gas_fees_daily', 'gas price', max(date)::timestamp AT TIME ZONE 'UTC'
FROM gas_fees_daily
WHERE actual_avg_gas_gwei IS NOT NULL AND date <= now()::date
UNION ALL
SELECT '{metrics_text}', 'metrics', max(last_day)::timestamp AT TIME ZONE 'UTC'
FROM yieldspark.pool_coverage
UNION ALL
SELECT 'yieldspark.forecasts', 'forecasts (as-of day)', max(as_of)::timestamp AT TIME ZONE 'UTC'
FROM yieldspark.forecasts
"""

# every day of a pool from first_day to last_day has a row: counting days needs no big table
ROWS_BY_DAY = """
WITH days AS (
    SELECT generate_series(last - :days + 1, last, interval '1 day')::date AS date
    FROM (SELECT max(last_day) AS last FROM yieldspark.pool_coverage) AS newest
),
changes AS (
    SELECT first_day AS date, count(*) AS pools FROM yieldspark.pool_coverage GROUP BY 1
    UNION ALL
    SELECT last_day + 1, -count(*) FROM yieldspark.pool_coverage GROUP BY 1
),
totals AS (
    SELECT date, sum(sum(pools)) OVER (ORDER BY date)::bigint AS rows FROM changes GROUP BY date
),
not_observed AS (
    SELECT date,
        count(*) FILTER (WHERE apy_staleness_days > 0) AS carried,
        count(*) FILTER (WHERE apy_staleness_days IS NULL) AS unknown
    FROM yieldspark.value_staleness
    WHERE date IN (SELECT date FROM days)
    GROUP BY date
)
SELECT d.date,
    coalesce((
        SELECT t.rows FROM totals t WHERE t.date <= d.date ORDER BY t.date DESC LIMIT 1
    ), 0) AS rows,
    coalesce(n.carried, 0) AS carried,
    coalesce(n.unknown, 0) AS unknown,
    coalesce(r.snapshots, 0) AS snapshots
FROM days d
LEFT JOIN not_observed n ON n.date = d.date
LEFT JOIN yieldspark.raw_day_counts r ON r.date = d.date
ORDER BY d.date
"""

POOLS_WITH_GAPS = """
WITH newest AS (SELECT max(last_day) AS last FROM yieldspark.pool_coverage),
gaps AS (
    SELECT s.pool_id, count(*) AS days
    FROM yieldspark.value_staleness s, newest
    WHERE s.date > newest.last - :days
        AND (s.apy_staleness_days IS NULL OR s.apy_staleness_days > 0)
    GROUP BY s.pool_id
)
SELECT g.pool_id, coalesce(p.symbol, p.name, g.pool_id) AS label, p.protocol, p.chain,
    g.days AS gap_days
FROM gaps g
LEFT JOIN pools p ON p.pool_id = g.pool_id
WHERE (:last_days = -1 OR g.days < :last_days
        OR (g.days = :last_days AND g.pool_id COLLATE "C" > :last_pool))
    AND concat_ws(' ', p.symbol, p.name, p.protocol, p.chain, g.pool_id)
        ILIKE :search ESCAPE '!'
ORDER BY g.days DESC, g.pool_id COLLATE "C"
LIMIT :limit
"""

CALENDAR = """
WITH newest AS (SELECT max(last_day) AS last FROM yieldspark.pool_coverage),
days AS (
    SELECT generate_series(last - :days + 1, last, interval '1 day')::date AS date FROM newest
)
SELECT c.pool_id, d.date,
    CASE
        WHEN d.date < c.first_day OR d.date > c.last_day THEN 'no row'
        WHEN s.date IS NULL OR s.apy_staleness_days = 0 THEN 'observed'
        WHEN s.apy_staleness_days > 0 THEN 'carried'
        ELSE 'unknown'
    END AS state
FROM yieldspark.pool_coverage c
CROSS JOIN days d
LEFT JOIN yieldspark.value_staleness s ON s.pool_id = c.pool_id
    AND s.date = d.date
    -- repeats the condition on the pools: only these rows are read, by the primary key
    AND s.pool_id = ANY(:pools)
WHERE c.pool_id = ANY(:pools)
ORDER BY c.pool_id, d.date
"""


@dataclass(frozen=True)
class GapKey:
    """The last pool of a page: its days without an observed APY, and its id."""

    days: int
    pool_id: str


@dataclass(frozen=True)
class SourceFreshness:
    """The newest row of a source.

    Attributes:
        newest: time of the newest row that is not in the future, UTC; None without any.
    """

    source: str
    content: str
    newest: dt.datetime | None


def source_freshness(engine: Engine, raw: RawEnd) -> list[SourceFreshness]:
    """Reads the newest row of every source and of the jobs' results.

    Args:
        engine: the database.
        raw: end of the raw history.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    name = metrics_name(engine)
    query = SOURCES.format(metrics_text=name.replace("'", "''").replace(":", "\\:"))
    snapshots = SourceFreshness("raw_defillama_pool_history", "pool snapshots", raw.newest)
    with checked_connection(engine) as connection:
        others = [SourceFreshness(**row) for row in connection.execute(text(query)).mappings()]
    return [snapshots, *others]


def rows_by_day(engine: Engine, *, days: int) -> pd.DataFrame:
    """Counts the rows of the last days.

    Returns:
        date, rows (pools with a row of metrics), carried and unknown (those whose APY was not
        observed), snapshots (raw rows that the metrics runs have read).

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    return _frame(engine, ROWS_BY_DAY, {"days": days})


def pools_with_gaps(
    engine: Engine, *, days: int, limit: int, search: str = "", after: GapKey | None = None
) -> pd.DataFrame:
    """Lists pools with days whose APY was not observed, the most such days first.

    Args:
        days: days up to the newest one.
        search: LIKE pattern (escape character `!`) inside symbol, name, protocol, chain or id.
        after: last pool of the page before.

    Returns:
        pool_id, label, protocol, chain, gap_days.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    # no pool has -1 such days: the condition of the first page
    key = after or GapKey(-1, "")
    return _frame(
        engine,
        POOLS_WITH_GAPS,
        {
            "days": days,
            "limit": limit,
            "search": f"%{search}%",
            "last_days": key.days,
            "last_pool": key.pool_id,
        },
    )


def gap_calendar(engine: Engine, pools: list[str], *, days: int) -> pd.DataFrame:
    """Reads the state of every day of some pools.

    Returns:
        pool_id, date, state: observed, carried, unknown, or `no row` before the pool's first day
        and after its last.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    return _frame(engine, CALENDAR, {"days": days, "pools": pools})


def _frame(engine: Engine, query: str, parameters: dict[str, object]) -> pd.DataFrame:
    with checked_connection(engine) as connection:
        result = connection.execute(text(query), parameters)
        return pd.DataFrame(result.mappings().all(), columns=list(result.keys()))
