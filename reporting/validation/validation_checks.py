"""The validation of the tables after a daily run, as data: a name, a severity and a query that
returns the failing rows.

Validates the last 7 days up to an as-of day. The source is the raw history that the last metrics
run has read; the target is the metrics table. APY in percent, TVL in USD, days are UTC. Runs
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from common.horizons import NEXT_DAY, at_horizon
from config_spark import Settings
from data_processing.checks.row_checks import raw_row_checks
from data_processing.planning.last_run import LastRun
from data_processing.raw.history import RAW_ROW_COLUMNS, TABLE, midnight, moment, validated_rows
from database.ledger.check_result import Severity
from forecasting.features.observed_values import is_observed, staleness_join

VALIDATED_DAYS = 7

ONE_DAY = timedelta(days=1)

TOLERANCE_PERCENT = 0.0003
"""Largest difference that rounding explains: the stored APYs and the stored result are rounded to
four decimals, and a standard deviation changes by no more than its largest input.
"""

WINDOWS = {
    "rolling_apy_7d": ("avg", 7),
    "rolling_apy_30d": ("avg", 30),
    "stddev_apy_7d": ("stddev_samp", 7),
    "stddev_apy_30d": ("stddev_samp", 30),
}
"""Aggregate and days of each column that the validation computes again."""


@dataclass(frozen=True)
class ValidationCheck:
    """One check of the validation.

    Attributes:
        name: name in the run ledger.
        severity: a failing `fail` check is an error, `warn` is reported.
        message: message about the failing rows.
        query: SELECT that returns them; the first row is part of the message.
        parameters: parameters of the query.
        allowed_share: share of the rows of `population` that may fail.
        population: SELECT of one number; None if no row may fail.
    """

    name: str
    severity: Severity
    message: str
    query: str
    parameters: dict[str, Any] = field(default_factory=dict)
    allowed_share: float = 0.0
    population: str | None = None


def validation_checks(
    settings: Settings, metrics: str, source: str, *, as_of: date
) -> list[ValidationCheck]:
    """Return the checks.

    Args:
        settings: limits, and the horizons of the forecasts.
        metrics: quoted name of the metrics table.
        source: `source_query` of the same days.
        as_of: last day to validate.
    """
    first = as_of - (VALIDATED_DAYS - 1) * ONE_DAY
    days = {"first": first, "last": as_of}
    target = target_query(metrics)
    return [
        ValidationCheck(
            "recent_records", "fail", "days without a record", _days_without_record(target), days
        ),
        ValidationCheck(
            "rolling_values",
            "fail",
            "rolling values that differ from those of the stored APYs",
            _wrong_rolling_values(metrics),
            days | {"tolerance": TOLERANCE_PERCENT},
        ),
        ValidationCheck(
            "source_rows",
            "fail",
            "pool-days of raw history that the metrics table lacks",
            _missing_in_target(source, target),
            days,
        ),
        ValidationCheck(
            "source_values",
            "fail",
            "pool-days whose values differ from raw history",
            _different_values(source, target),
            days,
        ),
        *(_forecast_check(settings, target, days, horizon) for horizon in settings.horizons),
    ]


def _forecast_check(
    settings: Settings, target: str, days: dict[str, date], horizon: int
) -> ValidationCheck:
    ahead = "the day" if horizon == NEXT_DAY else f"{horizon} days"
    return ValidationCheck(
        at_horizon("forecasts_for_today", horizon),
        "fail",
        f"active pools without a forecast for {ahead} after the as-of day",
        _pools_without_forecast(target),
        days | {"target": days["last"] + horizon * ONE_DAY, "horizon": horizon},
        settings.max_missing_pools_share,
        f"SELECT count(*) FROM ({_active_pools(target)}) AS active",
    )


def target_query(metrics: str) -> str:
    """Return a SELECT of the observed values of the validated days: pool_id, date, apy, tvl."""
    return f"""
    SELECT m.pool_id::text AS pool_id, m.date,
        CASE WHEN {is_observed("apy")} THEN m.actual_apy END AS apy,
        CASE WHEN {is_observed("tvl")} THEN m.actual_tvl END AS tvl
    FROM {metrics} AS m
    {staleness_join()}
    WHERE m.date BETWEEN :first AND :last
        AND ({is_observed("apy")} OR {is_observed("tvl")})"""


def source_query(settings: Settings, as_of: date, last: LastRun, now: datetime) -> str:
    """Return a SELECT of the last accepted snapshot of each pool-day: pool_id, date, apy, tvl.

    Args:
        settings: limits and severities of the row checks.
        as_of: last day to validate.
        last: the last metrics run. Later rows, and days that were not over, are left to the next.
        now: clock of the validation, UTC.
    """
    first = as_of - (VALIDATED_DAYS - 1) * ONE_DAY
    raw = f"""
        SELECT {RAW_ROW_COLUMNS}
        FROM {TABLE} AS h
        WHERE h.timestamp >= {midnight(first)}
            AND h.timestamp < {midnight(min(as_of + ONE_DAY, last.end))}
            AND h.insertion_timestamp < {moment(last.watermark)}"""
    rows = validated_rows(raw, raw_row_checks(settings, now), also=("pool_id",))
    return f"""
    SELECT DISTINCT ON (pool_id, date) pool_id::text AS pool_id, date,
        apy_value::numeric(20, 4) AS apy,
        tvl_value::numeric(20, 2) AS tvl
    FROM (
        SELECT *, (timestamp AT TIME ZONE 'UTC')::date AS date
        FROM ({rows}) AS validated
    ) AS snapshots
    WHERE reason IS NULL
    ORDER BY pool_id, date, timestamp DESC, id DESC"""


def _days_without_record(target: str) -> str:
    return f"""
    SELECT day::date AS day
    FROM generate_series(CAST(:first AS date), CAST(:last AS date), interval '1 day') AS day
    WHERE NOT EXISTS (SELECT FROM ({target}) AS t WHERE t.date = day::date)
    ORDER BY day"""


def _wrong_rolling_values(metrics: str) -> str:
    """Return a query of stored rolling values that differ from those of the stored APYs.

    The table has a row for each day of a pool's coverage, with carried APYs. Windows that reach
    days before the coverage, whose values another job wrote, are left out.
    """
    windows = ", ".join(
        f"{aggregate}(apy) OVER (PARTITION BY pool_id ORDER BY date RANGE BETWEEN"
        f" interval '{days - 1} days' PRECEDING AND CURRENT ROW) AS computed_{name}"
        for name, (aggregate, days) in WINDOWS.items()
    )
    values = ", ".join(
        f"('{name}', stored_{name}, computed_{name}::double precision)" for name in WINDOWS
    )
    stored = ", ".join(f"m.{name}::double precision AS stored_{name}" for name in WINDOWS)
    longest = max(days for _, days in WINDOWS.values())
    return f"""
    SELECT pool_id, date, column_name, stored, computed
    FROM (
        SELECT *, {windows}
        FROM (
            SELECT m.pool_id, m.date, c.first_day, m.actual_apy::double precision AS apy, {stored}
            FROM {metrics} AS m
            JOIN yieldspark.pool_coverage AS c ON c.pool_id = m.pool_id
                AND m.date BETWEEN c.first_day AND c.last_day
            WHERE m.date > CAST(:first AS date) - {longest}
                AND m.date <= :last
        ) AS rows
    ) AS windows
    CROSS JOIN LATERAL (VALUES {values}) AS v (column_name, stored, computed)
    WHERE date >= :first
        AND (
            date - {longest} >= first_day
            OR NOT EXISTS (
                SELECT FROM yieldspark.observed_days AS o
                WHERE o.pool_id = windows.pool_id
                    AND o.date < windows.first_day
            )
        )
        AND (
            (stored IS NULL) <> (computed IS NULL)
            OR abs(stored - computed) > :tolerance + abs(stored) * 1e-9
        )
    ORDER BY abs(stored - computed) DESC NULLS FIRST, pool_id, date"""


def _missing_in_target(source: str, target: str) -> str:
    return f"""
    SELECT s.pool_id, s.date, s.apy, s.tvl
    FROM ({source}) AS s
    LEFT JOIN ({target}) AS t ON t.pool_id = s.pool_id AND t.date = s.date
    WHERE t.pool_id IS NULL
    ORDER BY s.date DESC, s.pool_id"""


def _different_values(source: str, target: str) -> str:
    # IS DISTINCT FROM: a value that is unknown on one side only is a difference
    return f"""
    SELECT s.pool_id, s.date, s.apy AS source_apy, t.apy, s.tvl AS source_tvl, t.tvl
    FROM ({source}) AS s
    JOIN ({target}) AS t ON t.pool_id = s.pool_id AND t.date = s.date
    WHERE (s.apy, s.tvl) IS DISTINCT FROM (t.apy::numeric(20, 4), t.tvl::numeric(20, 2))
    ORDER BY s.date DESC, s.pool_id"""


def _active_pools(target: str) -> str:
    """Return a SELECT of the active pools that were observed on the as-of day."""
    return f"""
        SELECT t.pool_id
        FROM ({target}) AS t
        LEFT JOIN pools AS p ON p.pool_id = t.pool_id
        WHERE t.date = :last
            AND p.is_active IS NOT FALSE"""


def _pools_without_forecast(target: str) -> str:
    return f"""
    SELECT active.pool_id, CAST(:target AS date) AS target_date
    FROM ({_active_pools(target)}) AS active
    WHERE NOT EXISTS (
        SELECT FROM yieldspark.forecasts AS f
        WHERE f.pool_id = active.pool_id
            AND f.target_date = :target
            AND f.horizon_days = :horizon
    )
    ORDER BY active.pool_id"""
