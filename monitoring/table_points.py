"""Points of a run that its row in the ledger does not have: data age, and the state of forecasts.

Reads the tables that the run has written, by indexes, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Connection, text

from common.jobs import CALCULATE_METRICS, FORECAST_POOLS
from database.ledger.run_records import RunRecord
from database.schema.own_tables import GOOD
from database.schema.owner_tables import raw_pool_history
from monitoring.series import (
    DATA_AGE,
    FORECASTS_WRITTEN,
    INTERVAL_COVERAGE,
    MODEL_AGE,
    PERSISTENCE_SHARE,
    QUARANTINE_SHARE,
    Point,
)

COVERAGE_DAYS = 14
"""Target days of a point of `interval_coverage`."""

MIN_COVERAGE_DAYS = 7
"""Fewer scored days say nothing about an interval: pools move together."""

NEWEST_OBSERVED_DAY = text("SELECT max(last_observed_day) FROM yieldspark.pool_coverage")

# a row stays with the first run that rejected it: look-backs read the same rows for weeks
NEWLY_QUARANTINED = text("""
    SELECT count(DISTINCT source_id)
    FROM yieldspark.quarantine
    WHERE run_id = :run_id
        AND source_table = :source_table
""")

FORECASTS = text("""
    SELECT horizon_days,
        count(*) AS forecasts,
        count(*) FILTER (WHERE apy_fallback_reason IS NOT NULL) AS apy,
        count(*) FILTER (WHERE tvl_fallback_reason IS NOT NULL) AS tvl,
        max(model_version) AS version
    FROM yieldspark.forecasts
    WHERE target_date > :as_of
        AND as_of = :as_of
        AND engine = :engine
    GROUP BY horizon_days
    ORDER BY horizon_days
""")

# the decision on a version has the as-of day of the run that fitted it
FITTED = text("""
    SELECT min(as_of)
    FROM yieldspark.promotion
    WHERE challenger = :version
        AND engine = :engine
""")

COVERAGE = text("""
    SELECT target, horizon_days, avg((actual BETWEEN low AND high)::int) AS coverage
    FROM yieldspark.forecast_evaluation
    WHERE target_date > :first
        AND target_date <= :as_of
        AND engine = :engine
        AND source = 'production'
        AND actual IS NOT NULL
        AND low IS NOT NULL
        AND high IS NOT NULL
    GROUP BY target, horizon_days
    HAVING count(DISTINCT target_date) >= :days
    ORDER BY horizon_days, target
""")


def points_of_tables(connection: Connection, record: RunRecord, now: datetime) -> list[Point]:
    """Return the points of the tables after a run.

    Args:
        connection: connection to the database.
        record: the run's row in the run ledger.
        now: end of the run, UTC.
    """
    if record.job == CALCULATE_METRICS.name:
        newest = connection.execute(NEWEST_OBSERVED_DAY).scalar()
        return [*_data_age(record.job, newest, now), *_quarantine_share(connection, record)]
    if record.job == FORECAST_POOLS.name and record.as_of and record.engine:
        return [
            *_data_age(record.job, record.as_of, now),
            *_forecasts(connection, record.as_of, record.engine),
            *_coverage(connection, record.as_of, record.engine),
        ]
    return []


def _data_age(job: str, newest: date | None, now: datetime) -> Iterator[Point]:
    if newest is not None:
        end_of_day = datetime.combine(newest + timedelta(days=1), time(), UTC)
        # a run with INCLUDE_TODAY has data of a day that is not over
        yield Point(DATA_AGE, (job,), max(0.0, (now - end_of_day).total_seconds()))


def _quarantine_share(connection: Connection, record: RunRecord) -> Iterator[Point]:
    read = record.rows.get("read", 0)
    if read and record.status in GOOD:
        values = {"run_id": record.run_id, "source_table": raw_pool_history.name}
        rows = int(connection.execute(NEWLY_QUARANTINED, values).scalar_one())
        yield Point(QUARANTINE_SHARE, (record.job,), rows / read)


def _forecasts(connection: Connection, as_of: date, engine: str) -> Iterator[Point]:
    rows = connection.execute(FORECASTS, {"as_of": as_of, "engine": engine}).mappings().all()
    for row in rows:
        horizon = str(row["horizon_days"])
        yield Point(FORECASTS_WRITTEN, (engine, horizon), row["forecasts"])
        for target in ("apy", "tvl"):
            share = row[target] / row["forecasts"]
            yield Point(PERSISTENCE_SHARE, (engine, target, horizon), share)
        values = {"version": row["version"], "engine": engine}
        fitted = connection.execute(FITTED, values).scalar()
        if fitted is not None:
            yield Point(MODEL_AGE, (engine, horizon), (as_of - fitted).days)


def _coverage(connection: Connection, as_of: date, engine: str) -> Iterator[Point]:
    values = {
        "first": as_of - timedelta(days=COVERAGE_DAYS),
        "as_of": as_of,
        "engine": engine,
        "days": MIN_COVERAGE_DAYS,
    }
    for row in connection.execute(COVERAGE, values):
        labels = (engine, row.target, str(row.horizon_days))
        yield Point(INTERVAL_COVERAGE, labels, float(row.coverage))
