"""Days whose raw rows were gone before unrounded values were stored: what the metrics table says
of them is adopted, rounded as it is.

In: metrics, calendars and ages that earlier runs, or another job, left behind; raw history. Out:
rows of `yieldspark.observed_days` without a snapshot, once. They serve windows and carries; rows
that come out of them equal but for their rounding stay as they are stored. APY in percent, TVL in
USD, days are UTC.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.metrics.rolling_metrics import look_back_days
from data_processing.raw.market_series import SERIES
from data_processing.raw.observed_days import OBSERVED
from data_processing.raw.pool_coverage import AGES, CALENDARS
from data_processing.raw.quarantine_table import HISTORY
from database.schema.merge_sql import qualified, quoted
from database.schema.metrics_table import metrics_name, metrics_table
from database.schema.tables import METRIC_COLUMNS, run_ledger

FIRST_RULES = 2
"""The METRIC_RULES of the first version that stores unrounded values."""

DERIVED_COLUMNS = tuple(name for name in METRIC_COLUMNS if name not in SERIES)

ROUNDING = {"actual_tvl": 0.011}
"""By how much a value may differ for the rounding of what it was made of, USD."""

ROUNDING_PERCENT = 0.00025
"""As ROUNDING, of APY-like columns: half the last decimal of the inputs, and of both results."""


def adopt_days(connection: Connection, job: str) -> int:
    """Store what has no raw row any more, unless a run has stored days before; returns how many.

    Of pools with a calendar those are the days on which a value was observed, and of pools without
    one, whose rows another job wrote, the days before the first raw row with a value.
    """
    stored = connection.execute(
        text(
            f"SELECT EXISTS (SELECT FROM {qualified(run_ledger)} WHERE job = :job AND status ="
            " 'succeeded' AND (plan #>> '{rules,metric_rules}')::integer >= :first)"
        ),
        {"job": job, "first": FIRST_RULES},
    ).scalar_one()
    if stored:
        return 0
    into = f"INSERT INTO {OBSERVED} (pool_id, date, timestamp, apy, tvl)"
    values = "date::timestamp AT TIME ZONE 'UTC', apy, tvl"
    return sum(
        connection.exec_driver_sql(
            f"{into} SELECT pool_id, date, {values} FROM ({days}) AS days WHERE apy IS NOT NULL OR"
            " tvl IS NOT NULL ON CONFLICT DO NOTHING"
        ).rowcount
        for days in _adoptable(metrics_name(connection))
    )


def _adoptable(metrics: str) -> tuple[str, str]:
    """SELECTs of pool_id, date, apy and tvl: of calendars, and of another job."""
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
    JOIN {CALENDARS} AS c ON c.pool_id = m.pool_id
        AND m.date BETWEEN c.first_day AND c.last_day
    LEFT JOIN {AGES} AS o ON o.pool_id = m.pool_id
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
            SELECT FROM {CALENDARS} AS c
            WHERE c.pool_id = m.pool_id
        )""",
    )


def keep_rounded(staging: str, settings: Settings) -> str:
    """Statement that gives staged days within reach of adopted ones the values that they have
    already, where none differs by more than rounding does. Mostly there are none: that is asked
    once, before anything is joined.
    """
    columns = ", ".join(
        f"{quoted(name)} = m.{quoted(name)}::double precision" for name in DERIVED_COLUMNS
    )
    equal = "\n        AND ".join(
        f"(s.{quoted(name)} IS NULL) = (m.{quoted(name)} IS NULL) AND coalesce(abs("
        f"s.{quoted(name)} - m.{quoted(name)}::double precision)"
        f" <= {ROUNDING.get(name, ROUNDING_PERCENT)}, true)"
        for name in DERIVED_COLUMNS
    )
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
