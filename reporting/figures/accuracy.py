"""Accuracy of the newest engine's forecasts, compared with persistence and the 7-day median.

Reads evaluation rows; returns numbers of `forecasting.evaluation.scores`. Errors and widths are in
APY points or USD.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import pandas as pd
from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from forecasting.evaluation.daily_scores import scores_of_sums
from forecasting.evaluation.error_measures import ratio
from forecasting.evaluation.scores import ErrorRatios, Score, score_table
from forecasting.features.pool_features import SPIKE_SCALES
from forecasting.publishing.forecast_history import rows_to_score
from reporting.figures.forecasts import NEWEST_FORECASTS

NEWEST = f"WITH {NEWEST_FORECASTS} SELECT * FROM newest"

# as `daily_sums` adds them up from rows: a step of a pool without a scale has no size, and an error
# in a scale of zero is a spike
DAILY_SUMS = """
WITH errors AS (
    SELECT e.target, e.target_date, e.actual, e.low, e.high, e.volatility_scale AS scale,
        abs(e.actual - e.forecast) AS forecast,
        abs(e.actual - e.persistence) AS persistence,
        CASE WHEN e.target = 'tvl' THEN abs(ln(1 + e.actual) - ln(1 + e.forecast))
            ELSE abs(e.actual - e.forecast) END AS forecast_step,
        CASE WHEN e.target = 'tvl' THEN abs(ln(1 + e.actual) - ln(1 + e.persistence))
            ELSE abs(e.actual - e.persistence) END AS persistence_step
    FROM yieldspark.forecast_evaluation e
    WHERE e.engine = :engine
        AND e.horizon_days = :horizon_days
        AND e.actual IS NOT NULL
        AND e.target_date > CAST(:as_of AS date) - :days
        AND e.target_date <= :as_of
)
SELECT target, target_date, count(*) AS rows,
    sum(forecast) AS forecast,
    sum(persistence) AS persistence,
    coalesce(sum(CASE
        WHEN scale > 0 THEN least(forecast_step / scale, :spike)
        WHEN forecast_step > 0 AND scale = 0 THEN :spike
    END), 0) AS capped_forecast,
    coalesce(sum(CASE
        WHEN scale > 0 THEN least(persistence_step / scale, :spike)
        WHEN persistence_step > 0 AND scale = 0 THEN :spike
    END), 0) AS capped_persistence,
    count(*) FILTER (WHERE low <= actual AND actual <= high) AS inside,
    count(*) FILTER (WHERE low IS NOT NULL AND high IS NOT NULL) AS has_interval
FROM errors
GROUP BY target, target_date
ORDER BY target, target_date
"""

FORECASTERS = {"model": "model", "persistence": "persistence", "median7": "median_7d"}


@dataclass(frozen=True)
class ForecasterErrors:
    """Errors of one forecaster of FORECASTERS, in APY points or USD.

    Attributes:
        ratio: its MAE relative to persistence's; None where that is zero.
    """

    name: str
    mae: float | None
    median_ae: float | None
    rmse: float | None
    ratio: float | None


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of one target (apy, tvl) and class of pools.

    Attributes:
        pool_class: restricted (TVL over 1 M USD and APY under 100 % that day) or all.
        first_day, last_day: target days of the rows.
        interval_level: nominal coverage of the interval, 0 to 1.
        coverage: actual one.
        mean_width: width of the interval.
        ratio: the model's errors relative to persistence's, with their bootstrap intervals.
        forecasters: model, persistence and 7-day median.
    """

    target: str
    pool_class: str
    engine: str
    rows: int
    pools: int
    first_day: dt.date
    last_day: dt.date
    interval_level: float
    coverage: float | None
    mean_width: float | None
    ratio: ErrorRatios
    forecasters: tuple[ForecasterErrors, ...]


def newest_evaluated(engine: Engine, *, days: int, horizon: int | None = None) -> pd.DataFrame:
    """Reads evaluation rows of the newest forecasts' engine and horizon.

    Args:
        engine: the database.
        days: number of target days up to the newest as-of day.
        horizon: days from the as-of day to the target day; default: the shortest.

    Returns:
        SCORING_COLUMNS of the rows of `yieldspark.forecast_evaluation` with actual values; empty
        without forecasts.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        newest = connection.execute(text(NEWEST)).mappings().first()
    if newest is None:
        return pd.DataFrame()
    return rows_to_score(
        engine,
        newest["engine"],
        horizon=horizon or newest["horizon_days"],
        last=newest["as_of"],
        days=days,
    )


def newest_by_day(engine: Engine, *, days: int) -> dict[str, pd.DataFrame]:
    """Scores the target days of the newest forecasts' engine and horizon; adds up in the database.

    Args:
        engine: the database.
        days: number of target days up to the newest as-of day.

    Returns:
        `daily_scores` by target, apy and tvl; empty without forecasts.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        newest = connection.execute(text(NEWEST)).mappings().first()
        if newest is None:
            return {}
        # by their values, and not by a join, PostgreSQL can read with parallel workers
        parameters = {**newest, "days": days, "spike": SPIKE_SCALES}
        rows = connection.execute(text(DAILY_SUMS), parameters)
        sums = pd.DataFrame(rows.mappings().all(), columns=list(rows.keys()))
    return {str(target): scores_of_sums(of_target) for target, of_target in sums.groupby("target")}


def accuracy(rows: pd.DataFrame) -> list[ClassAccuracy]:
    """Scores one engine's rows by target and class.

    Args:
        rows: evaluation rows with actual values.

    Returns:
        Only targets and classes that have rows.
    """
    if rows.empty:
        return []
    entries = []
    for target, classes in score_table(rows, published_level(rows)).items():
        of_target = rows[rows["target"] == target]
        for name, score in classes.items():
            if score.rows:
                entries.append(_entry(target, name, score, of_target))
    return entries


def published_level(rows: pd.DataFrame) -> float:
    """Returns the nominal level of the rows' intervals, 0 to 1."""
    return float(rows["interval_level"].max())


def _entry(target: str, name: str, score: Score, rows: pd.DataFrame) -> ClassAccuracy:
    persistence = score.errors["persistence"].mae
    forecasters = []
    for forecaster, label in FORECASTERS.items():
        errors = score.errors[forecaster]
        forecasters.append(
            ForecasterErrors(
                label, errors.mae, errors.median_ae, errors.rmse, ratio(errors.mae, persistence)
            )
        )
    return ClassAccuracy(
        target=target,
        pool_class=name,
        engine=rows["engine"].iloc[0],
        rows=score.rows,
        pools=score.pools,
        first_day=rows["target_date"].min(),
        last_day=rows["target_date"].max(),
        interval_level=score.interval.level,
        coverage=score.interval.coverage,
        mean_width=score.interval.mean_width,
        ratio=score.ratio,
        forecasters=tuple(forecasters),
    )
