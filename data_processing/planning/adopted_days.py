"""Adopts days whose raw rows were gone before unrounded values were stored.

Reads the metrics, coverage and staleness that earlier runs or another job left, and raw history;
inserts rows of `yieldspark.observed_days` without a snapshot, once. Windows and carries read them.
APY in percent, TVL in USD, rounded as the metrics table stores them; days are UTC.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.metrics.rolling_metrics import look_back_days
from data_processing.raw.market_series import SERIES
from data_processing.raw.observed_days import OBSERVED
from data_processing.raw.pool_coverage import COVERAGE, STALENESS
from data_processing.raw.quarantine_table import HISTORY
from database.schema.merge_sql import qualified, quoted
from database.schema.metrics_table import metrics_name, metrics_table
from database.schema.own_tables import run_ledger
from database.schema.owner_tables import METRIC_COLUMNS

FIRST_UNROUNDED_RULES = 2
"""METRIC_RULES of the first version that stores unrounded values."""

DERIVED_COLUMNS = tuple(name for name in METRIC_COLUMNS if name not in SERIES)

ROUNDING = {"actual_tvl": 0.011}
"""Largest difference that the rounding of the inputs explains, USD."""

ROUNDING_PERCENT = 0.00025
"""Largest difference that rounding explains in APY-like columns: half the last decimal of the
inputs, and of both results.
"""


def adopt_days(connection: Connection, job: str) -> int:
    """Store days that have no raw row, unless a run has stored days before.

    For a pool with coverage these are the days on which a value was observed. For a pool without
    coverage, whose rows another job wrote, they are the days with a value before its first raw row.

    Args:
        connection: the plan's transaction.
        job: name of the metrics job.

    Returns:
        Number of days that were stored.
    """
    has_stored_before = connection.execute(
        text(f"""
        SELECT EXISTS (
            SELECT FROM {qualified(run_ledger)}
            WHERE job = :job
                AND status = 'succeeded'
                AND (plan #>> '{{rules,metric_rules}}')::integer >= :first
        )"""),
        {"job": job, "first": FIRST_UNROUNDED_RULES},
    ).scalar_one()
    # runs since then store what they observe, also for raw rows that vanish later
    if has_stored_before:
        return 0
    return sum(
        connection.exec_driver_sql(f"""
        INSERT INTO {OBSERVED} (pool_id, date, timestamp, apy, tvl)
        SELECT pool_id, date, date::timestamp AT TIME ZONE 'UTC', apy, tvl
        FROM ({days}) AS days
        WHERE apy IS NOT NULL
            OR tvl IS NOT NULL
        ON CONFLICT DO NOTHING""").rowcount
        for days in _adoptable(metrics_name(connection))
    )


def _adoptable(metrics: str) -> tuple[str, str]:
    """Return SELECTs of pool_id, date, apy, tvl: for pools with coverage, and for other jobs."""
    # with coverage, a value that was carried from an earlier day is left out; without it, a run
    # computes the days from the first raw row of a pool on by itself
    return (
        f"""
    SELECT m.pool_id, m.date,
        CASE
            WHEN o.pool_id IS NULL OR o.apy_staleness_days = 0 THEN m.actual_apy::double precision
        END AS apy,
        CASE
            WHEN o.pool_id IS NULL OR o.tvl_staleness_days = 0 THEN m.actual_tvl::double precision
        END AS tvl
    FROM {metrics} AS m
    JOIN {COVERAGE} AS c ON c.pool_id = m.pool_id
        AND m.date BETWEEN c.first_day AND c.last_day
    LEFT JOIN {STALENESS} AS o ON o.pool_id = m.pool_id
        AND o.date = m.date
    WHERE NOT EXISTS (
        SELECT FROM {HISTORY} AS h
        WHERE h.pool_id = m.pool_id
            AND (h.timestamp AT TIME ZONE 'UTC')::date = m.date
    )""",
        f"""
    SELECT m.pool_id, m.date,
        nullif(m.actual_apy::double precision, 'NaN') AS apy,
        nullif(m.actual_tvl::double precision, 'NaN') AS tvl
    FROM {metrics} AS m
    LEFT JOIN (
        SELECT pool_id, (min(timestamp) AT TIME ZONE 'UTC')::date AS first_day
        FROM {HISTORY}
        WHERE timestamp >= '2018-01-01 00:00:00+00'
            AND coalesce(raw_json_data ->> 'apy', raw_json_data ->> 'tvlUsd') IS NOT NULL
        GROUP BY pool_id
    ) AS raw ON raw.pool_id = m.pool_id
    WHERE (raw.first_day IS NULL OR m.date < raw.first_day)
        AND NOT EXISTS (
            SELECT FROM {COVERAGE} AS c
            WHERE c.pool_id = m.pool_id
        )""",
    )


def reuse_stored_values(staging: str, settings: Settings) -> str:
    """Return a statement that replaces staged values by stored ones that are equal but rounded.

    It applies to staged days within reach of adopted days, if no column differs by more than
    rounding explains, so that adopted days do not update rows forever.

    Args:
        staging: the run's staging table.
        settings: metrics table and carry limit.
    """
    columns = ",\n        ".join(
        f"{quoted(name)} = m.{quoted(name)}::double precision" for name in DERIVED_COLUMNS
    )
    equal = "\n        AND ".join(_is_rounded(name) for name in DERIVED_COLUMNS)
    # most databases have no adopted day: the first EXISTS is answered once, before any join
    return f"""
    UPDATE {staging} AS s
    SET {columns}
    FROM {qualified(metrics_table(settings.metrics_table))} AS m
    WHERE EXISTS (SELECT FROM {OBSERVED} WHERE snapshot IS NULL)
        AND s.reason IS NULL
        AND m.pool_id = s.pool_id
        AND m.date = s.date
        AND s.pool_id IN (SELECT pool_id FROM {OBSERVED} WHERE snapshot IS NULL)
        AND EXISTS (
            SELECT FROM {OBSERVED} AS a
            WHERE a.pool_id = s.pool_id
                AND a.snapshot IS NULL
                AND a.date <= s.date
                AND a.date >= s.date - {look_back_days(settings.max_fill_days)}
        )
        AND {equal}"""


def _is_rounded(column: str) -> str:
    name = quoted(column)
    slack = ROUNDING.get(column, ROUNDING_PERCENT)
    return f"""(s.{name} IS NULL) = (m.{name} IS NULL)
        AND coalesce(abs(s.{name} - m.{name}::double precision) <= {slack}, true)"""
