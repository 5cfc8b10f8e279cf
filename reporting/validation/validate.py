"""Validates the tables after a daily run, as a run of its own in the run ledger.

Reads raw history, metrics, forecasts and forecast history in one snapshot; writes the run ledger
only. A failing check does not raise: the run is `failed`, with the checks.
"""

from __future__ import annotations

import logging
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from common.errors import NotEnoughHistory
from common.horizons import NEXT_DAY
from config_spark import Settings
from data_processing.planning.last_run import last_good_run
from data_processing.planning.plan import JOB as METRICS_JOB
from database.commit_checks import SAMPLE_ROWS, failing_rows
from database.connections.engine import checked_connection
from database.ledger.check_result import CheckResult
from database.ledger.run_records import read_run
from database.ledger.runs import open_run
from database.schema.metrics_table import metrics_name, require_same_metrics_table
from reporting.validation.validation_checks import (
    ONE_DAY,
    VALIDATED_DAYS,
    ValidationCheck,
    source_query,
    target_query,
    validation_checks,
)

log = logging.getLogger(__name__)

JOB = "validate"


def validate(settings: Settings, engine: Engine, *, as_of: date | None = None) -> dict[str, Any]:
    """Validate the last VALIDATED_DAYS days.

    Args:
        settings: limits, and the horizons of the forecasts.
        engine: the database.
        as_of: last day to validate; default: the last complete UTC day.

    Returns:
        The run's ledger row: `succeeded`, or `failed` if a check of severity `fail` failed.

    Raises:
        NotEnoughHistory: no metrics run has succeeded.
        RunInProgress: another validation is running.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    now = settings.now()
    day = as_of or now.date() - ONE_DAY
    with open_run(
        engine,
        job=JOB,
        mode="validate",
        start=day - (VALIDATED_DAYS - 1) * ONE_DAY,
        end=day + ONE_DAY,
        as_of=day,
        code_version=settings.code_version,
        batch_id=settings.batch_id,
    ) as run:
        # one snapshot: a run that commits in between is in all checks or in none
        snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
        with run.stage("checks"), checked_connection(snapshot) as connection:
            run.checks += _results(connection, settings, day, now)
        failed = [str(check) for check in run.checks if check.blocks_commit]
        for check in run.checks:
            if not check.passed:
                log.warning("check %s", check)
        if failed:
            run.status, run.error = "failed", "; ".join(failed)
    return read_run(engine, run.run_id).to_json()


def _results(
    connection: Connection, settings: Settings, day: date, now: datetime
) -> list[CheckResult]:
    require_same_metrics_table(connection)
    last = last_good_run(connection, METRICS_JOB)
    if last is None:
        raise NotEnoughHistory("no metrics run has succeeded: run `calculate_metrics` first")
    metrics, first = metrics_name(connection), day - (VALIDATED_DAYS - 1) * ONE_DAY
    source = source_query(settings, day, last, now)
    checks = validation_checks(settings, metrics, source, as_of=day)
    days = {"first": first, "last": day}
    return [
        *(_result(connection, check) for check in checks),
        _source_and_target(connection, source, target_query(metrics), days),
        _forecast_errors(connection, days),
    ]


def _result(connection: Connection, check: ValidationCheck) -> CheckResult:
    failing, sample = failing_rows(connection, check.query, check.parameters)
    allowed, severity = 0.0, check.severity
    if check.population:
        rows = connection.execute(text(check.population), check.parameters).scalar_one()
        allowed = check.allowed_share * rows
        # a few are reported, and are no error
        severity = "fail" if failing > allowed else "warn"
    message = "nothing"
    if failing:
        first = ", ".join(f"{name} {value}" for name, value in sample[0].items())
        message = f"{failing:,} {check.message}; the first: {first}"
    return CheckResult(check.name, failing == 0, severity, message, "row", failing, sample)


_DAYS = """
SELECT coalesce(s.date, t.date)::text AS date,
    coalesce(s.rows, 0) AS source_rows,
    coalesce(t.rows, 0) AS target_rows,
    s.checksum AS source_checksum,
    t.checksum AS target_checksum
FROM ({source}) AS s
FULL JOIN ({target}) AS t ON t.date = s.date
ORDER BY 1
"""

_CHECKSUM = """
SELECT date,
    count(*) AS rows,
    sum(hashtextextended(
        concat_ws('|', pool_id, apy::numeric(20, 4), tvl::numeric(20, 2)), 0
    ))::text AS checksum
FROM ({rows}) AS rows
GROUP BY date
"""


def _source_and_target(
    connection: Connection, source: str, target: str, days: dict[str, date]
) -> CheckResult:
    """Return rows and checksums of source and target by day, as figures.

    The target also has days whose raw rows are gone, so that a difference alone is no error.
    """
    query = _DAYS.format(source=_CHECKSUM.format(rows=source), target=_CHECKSUM.format(rows=target))
    rows = [dict(row) for row in connection.execute(text(query), days).mappings()]
    equal = sum(row["source_checksum"] == row["target_checksum"] for row in rows)
    source_rows = sum(row["source_rows"] for row in rows)
    target_rows = sum(row["target_rows"] for row in rows)
    message = (
        f"{source_rows:,} pool-days in raw history, {target_rows:,} in the metrics table; equal"
        f" checksums on {equal} of {len(rows)} days"
    )
    return CheckResult("source_and_target", True, "info", message, figures={"days": rows})


_ERRORS = """
SELECT target, horizon_days, pool_id, target_date::text AS target_date, forecast, actual,
    persistence,
    abs(forecast - actual) AS error,
    abs(persistence - actual) AS error_of_persistence
FROM yieldspark.forecast_evaluation
WHERE source = 'production'
    AND target_date BETWEEN :first AND :last
    AND actual IS NOT NULL
"""

_MEAN_ERRORS = f"""
SELECT target, horizon_days, count(*) AS forecasts, avg(error) AS mae,
    avg(error_of_persistence) AS mae_of_persistence
FROM ({_ERRORS}) AS errors
GROUP BY target, horizon_days
ORDER BY horizon_days, target
"""

_WORST_ERRORS = f"""
SELECT *
FROM (
    SELECT *,
        row_number() OVER (
            PARTITION BY target, horizon_days
            ORDER BY error DESC, pool_id, target_date
        ) AS rank
    FROM ({_ERRORS}) AS errors
) AS ranked
WHERE rank <= {SAMPLE_ROWS}
ORDER BY horizon_days, target, rank
"""


def _forecast_errors(connection: Connection, days: dict[str, date]) -> CheckResult:
    """Return the mean and the worst errors of the published forecasts, as figures."""
    means = [dict(row) for row in connection.execute(text(_MEAN_ERRORS), days).mappings()]
    worst = [dict(row) for row in connection.execute(text(_WORST_ERRORS), days).mappings()]
    message = (
        "; ".join(
            f"{row['target']}{_ahead(row['horizon_days'])}: mean absolute error {row['mae']:.4g}"
            f" of {row['forecasts']:,} forecasts, persistence {row['mae_of_persistence']:.4g}"
            for row in means
        )
        or "no published forecast of these days has an actual value"
    )
    figures = {"means": means, "worst": worst}
    return CheckResult("forecast_errors", True, "info", message, figures=figures)


def _ahead(horizon: int) -> str:
    return "" if horizon == NEXT_DAY else f" {horizon} days ahead"
