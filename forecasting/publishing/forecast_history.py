"""The forecast history, `yieldspark.forecast_evaluation`: past forecasts with their actual values.

Reads and updates the table by SQL; returns pandas rows. A target day has an actual value if it was
observed on that day. Imports no Spark.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pyarrow as pa
from sqlalchemy import Date, Double, Engine, text
from sqlalchemy.types import TypeEngine

from database.connections.copied_rows import copied_rows
from database.connections.engine import checked_connection
from database.schema.own_tables import forecast_evaluation
from forecasting.publishing.actuals import TARGETS
from forecasting.publishing.history_days import PAST_ROWS, past_span
from forecasting.publishing.past_forecasts import PAST_COLUMNS

NUMBERS = {column.name for column in forecast_evaluation.columns if isinstance(column.type, Double)}

PRODUCTION, BACKTEST = "production", "backtest"

# sums of doubles depend on the order of the rows: this one does not depend on the database's
_HISTORY = f"""
SELECT pool_id, target_date, target, persistence, actual, volatility_scale,
    model_change, model_change_low, model_change_high
{PAST_ROWS}
ORDER BY target, target_date, pool_id COLLATE "C"
"""
_PAST_NAMES = {"persistence": "now", "actual": "next"}

_SCORED = """
SELECT {columns}
FROM yieldspark.forecast_evaluation
WHERE engine = :engine
    AND horizon_days = :horizon
    AND actual IS NOT NULL
    AND target_date > CAST(:last AS date) - :days
    AND target_date <= :last
ORDER BY target, target_date, pool_id
"""

_NEWEST_SCORED = """
SELECT max(target_date)
FROM yieldspark.forecast_evaluation
WHERE engine = coalesce(:engine, engine)
    AND horizon_days = :horizon
    AND actual IS NOT NULL
"""

_ENGINES = """
SELECT engine, count(actual) AS scored
FROM yieldspark.forecast_evaluation
WHERE horizon_days = :horizon
    AND target_date > CAST(:last AS date) - :days
    AND target_date <= :last
GROUP BY engine
ORDER BY max(target_date) DESC, engine
"""

_POOLS = """
SELECT coalesce(p.pool_id, c.pool_id) AS pool_id, p.chain, p.protocol AS project, c.first_day
FROM pools AS p
FULL JOIN yieldspark.pool_coverage AS c ON c.pool_id = p.pool_id
"""


def history_by_target(
    database: Engine, engine: str, *, horizon: int, as_of: dt.date
) -> dict[str, pd.DataFrame]:
    """Reads the past forecasts that gate and interval of `as_of` learn from.

    Args:
        engine: name of the forecasting engine.
        horizon: days from the as-of day to the target day.
        as_of: last target day.

    Returns:
        PAST_COLUMNS by target, `apy` and `tvl`.
    """
    rows = to_past_rows(_read(database, _HISTORY, past_span(engine, horizon, as_of)))
    return {target: rows[rows["target"] == target] for target in TARGETS}


def to_past_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Renames columns of evaluation rows to `target` and PAST_COLUMNS."""
    renamed = rows.rename(columns=_PAST_NAMES)
    renamed = renamed.assign(target_day=pd.to_datetime(rows["target_date"]))
    return renamed[["target", *PAST_COLUMNS]]


def newest_scored_day(database: Engine, engine: str | None, *, horizon: int) -> dt.date | None:
    """Returns the newest target day with an actual value, or None.

    Args:
        engine: name of the forecasting engine; None for any.
        horizon: days from the as-of day to the target day.
    """
    with checked_connection(database) as connection:
        newest: dt.date | None = connection.execute(
            text(_NEWEST_SCORED), {"engine": engine, "horizon": horizon}
        ).scalar_one()
    return newest


def engine_to_score(
    database: Engine, preferred: str, *, horizon: int, end: dt.date | None, days: int
) -> str:
    """Selects the engine whose forecasts are scored.

    Args:
        preferred: engine that is returned if it has forecasts, or if no engine has any.
        horizon: days from the as-of day to the target day.
        end: last target day; default: the newest with an actual value.
        days: number of target days up to `end`.

    Returns:
        An engine with actual values in these days, or else one with forecasts in them.
    """
    last = end or newest_scored_day(database, None, horizon=horizon)
    with checked_connection(database) as connection:
        rows = connection.execute(
            text(_ENGINES), {"horizon": horizon, "last": last, "days": days}
        ).all()
    names = [row.engine for row in rows if row.scored] or [row.engine for row in rows]
    return preferred if preferred in names or not names else str(names[0])


def scored_rows(
    database: Engine, engine: str, *, horizon: int, last: dt.date | None, days: int
) -> pd.DataFrame:
    """Reads the forecasts with an actual value of `days` target days.

    Args:
        engine: name of the forecasting engine.
        horizon: days from the as-of day to the target day.
        last: last target day; None gives no rows.
        days: number of target days up to `last`.

    Returns:
        The columns of `yieldspark.forecast_evaluation`.
    """
    parameters = {"engine": engine, "horizon": horizon, "last": last, "days": days}
    return _read(database, _SCORED.format(columns="*"), parameters)


SCORING_COLUMNS = (
    *("pool_id", "target_date", "target", "engine", "as_of", "actual", "forecast", "low", "high"),
    *("persistence", "median_7d", "mean_reversion", "naive_low", "naive_high", "mean_abs_change"),
    *("volatility_scale", "model_change", "tvl_usd", "apy_percent", "interval_level"),
)
"""Columns that the scores read."""


def rows_to_score(
    database: Engine, engine: str, *, horizon: int, last: dt.date | None, days: int
) -> pd.DataFrame:
    """Reads the same rows as `scored_rows`, but SCORING_COLUMNS only, by COPY: a million rows take
    seconds, and a fifth of the memory.
    """
    types = {
        column.name: _arrow_type(column.type)
        for column in forecast_evaluation.columns
        if column.name in SCORING_COLUMNS
    }
    table = copied_rows(
        database,
        _SCORED.format(columns=", ".join(SCORING_COLUMNS)),
        {"engine": engine, "horizon": horizon, "last": last, "days": days},
        types,
    )
    rows: pd.DataFrame = table.to_pandas(date_as_object=True)
    return rows


def _arrow_type(column: TypeEngine[Any]) -> pa.DataType:
    if isinstance(column, Double):
        return pa.float64()
    return pa.date32() if isinstance(column, Date) else pa.string()


def describe_pools(database: Engine, rows: pd.DataFrame) -> pd.DataFrame:
    """Adds chain, project and age_days (the pool's age on the as-of day) to evaluation rows.

    Unknown values are None and NaN.
    """
    pools = _read(database, _POOLS, {})
    described = rows.merge(pools, on="pool_id", how="left")
    first_day = pd.to_datetime(described.pop("first_day"))
    age = (pd.to_datetime(described["as_of"]) - first_day).dt.days + 1
    return described.assign(age_days=age)


def _read(database: Engine, statement: str, parameters: dict[str, Any]) -> pd.DataFrame:
    with checked_connection(database) as connection:
        rows = pd.read_sql(text(statement), connection, params=parameters)
    # a column whose values are all null has no type of its own
    return rows.astype(dict.fromkeys(NUMBERS & set(rows.columns), "float64"))
