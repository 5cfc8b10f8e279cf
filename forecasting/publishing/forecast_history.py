"""The ledger of forecasts, `yieldspark.forecast_evaluation`: what was published before it came
true, and what came.

In: the database. Out: scored rows, and what gate and interval learn from. A target day counts when
its value was observed that day; a later correction of it is taken over as long as the day is looked
at. No Spark: it is SQL and pandas.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Double, Engine, text

from database.connections.engine import checked_connection
from database.schema.metrics_table import metrics_name, require_same_metrics_table
from database.schema.tables import forecast_evaluation
from forecasting.publishing.past_forecasts import PAST_COLUMNS, PAST_DAYS

NUMBERS = {column.name for column in forecast_evaluation.columns if isinstance(column.type, Double)}

PRODUCTION, BACKTEST = "production", "backtest"
TARGETS = ("apy", "tvl")

LEARNT_FROM = """
FROM yieldspark.forecast_evaluation
WHERE engine = :engine
    AND horizon_days = :horizon
    AND actual IS NOT NULL
    AND target_date > :as_of - :days
    AND target_date <= :as_of
"""

DAY_IS_OVER = (
    "m.date < (SELECT coalesce(min(p.date), 'infinity') FROM yieldspark.provisional_days AS p)"
)
"""Condition on a row `m` of the metrics: computed when its day was over, and so was that of every
other pool.
"""

CAME_TRUE = f"""
UPDATE yieldspark.forecast_evaluation AS e
SET actual = m.actual_{{target}}::float8
FROM (SELECT max(target_date) AS day FROM yieldspark.forecast_evaluation) AS newest,
    {{metrics}} AS m
    LEFT JOIN yieldspark.value_staleness AS a ON a.pool_id = m.pool_id AND a.date = m.date
WHERE e.target = '{{target}}'
    AND {DAY_IS_OVER}
    AND m.pool_id = e.pool_id
    AND m.date = e.target_date
    AND (e.actual IS NULL OR e.target_date > newest.day - :days)
    AND m.actual_{{target}} IS NOT NULL
    AND coalesce(a.{{target}}_staleness_days, 0) = 0
    AND e.actual IS DISTINCT FROM m.actual_{{target}}::float8
"""

# in this order, whatever the database's own is: sums of doubles depend on it
PAST = f"""
SELECT pool_id, target_date, target, persistence, actual, volatility_scale, model_change,
    model_change_low, model_change_high
{LEARNT_FROM}
ORDER BY target, target_date, pool_id COLLATE "C"
"""
PAST_NAMES = {"persistence": "now", "actual": "next"}

KNOWN_DAYS = f"""
SELECT target, count(DISTINCT target_date) AS days
{LEARNT_FROM}
    AND model_change IS NOT NULL
GROUP BY target
"""

SCORED = """
SELECT *
FROM yieldspark.forecast_evaluation
WHERE engine = :engine
    AND horizon_days = :horizon
    AND actual IS NOT NULL
    AND target_date > CAST(:last AS date) - :days
    AND target_date <= :last
ORDER BY target, target_date, pool_id
"""

NEWEST_SCORED = """
SELECT max(target_date)
FROM yieldspark.forecast_evaluation
WHERE engine = coalesce(:engine, engine)
    AND horizon_days = :horizon
    AND actual IS NOT NULL
"""

ENGINES = """
SELECT engine, count(actual) AS scored
FROM yieldspark.forecast_evaluation
WHERE horizon_days = :horizon
    AND target_date > CAST(:last AS date) - :days
    AND target_date <= :last
GROUP BY engine
ORDER BY max(target_date) DESC, engine
"""

POOLS = """
SELECT coalesce(p.pool_id, c.pool_id) AS pool_id, p.chain, p.protocol AS project, c.first_day
FROM pools AS p FULL JOIN yieldspark.pool_coverage AS c ON c.pool_id = p.pool_id
"""


def score_what_came_true(connection: Connection) -> int:
    """Write the actual values of target days observed since, inside the caller's transaction;
    returns the rows changed.

    Values of the newest PAST_DAYS target days are looked at again, for they may have been
    corrected. Raises: ConfigurationError where the metrics were last written to another table.
    """
    require_same_metrics_table(connection)
    metrics = metrics_name(connection)
    return sum(
        _rows_changed(connection, CAME_TRUE.format(target=target, metrics=metrics))
        for target in TARGETS
    )


def _rows_changed(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement), {"days": PAST_DAYS}).rowcount)


def known_days(engine: Engine, name: str, *, horizon: int, as_of: dt.date) -> int:
    """Target days of the last PAST_DAYS up to `as_of` that the engine's models forecast and that
    came true; of the target that has fewer.
    """
    with checked_connection(engine) as connection:
        found = {
            row.target: row.days
            for row in connection.execute(text(KNOWN_DAYS), _span(name, horizon, as_of))
        }
    return min(int(found.get(target, 0)) for target in TARGETS)


def past_rows(
    engine: Engine, name: str, *, horizon: int, as_of: dt.date
) -> dict[str, pd.DataFrame]:
    """PAST_COLUMNS by target: what gate and interval of `as_of` may learn from."""
    rows = as_past(_read(engine, PAST, _span(name, horizon, as_of)))
    return {target: rows[rows["target"] == target] for target in TARGETS}


def as_past(rows: pd.DataFrame) -> pd.DataFrame:
    """Evaluation rows under the names of PAST_COLUMNS, with their target."""
    named = rows.rename(columns=PAST_NAMES).assign(target_day=pd.to_datetime(rows["target_date"]))
    return named[["target", *PAST_COLUMNS]]


def newest_scored_day(engine: Engine, name: str | None, *, horizon: int) -> dt.date | None:
    """The newest target day of the engine's (None: of any engine's) forecasts that has come true;
    None where none has.
    """
    with checked_connection(engine) as connection:
        found: dt.date | None = connection.execute(
            text(NEWEST_SCORED), {"engine": name, "horizon": horizon}
        ).scalar_one()
    return found


def engine_to_score(
    engine: Engine, preferred: str, *, horizon: int, end: dt.date | None, days: int
) -> str:
    """The engine with forecasts in the `days` target days that end with `end` (None: with the
    newest one that has come true): `preferred` where it has some, or where no engine has any.
    Forecasts that have come true count before those that have not.
    """
    last = end or newest_scored_day(engine, None, horizon=horizon)
    with checked_connection(engine) as connection:
        found = connection.execute(
            text(ENGINES), {"horizon": horizon, "last": last, "days": days}
        ).all()
    names = [row.engine for row in found if row.scored] or [row.engine for row in found]
    return preferred if preferred in names or not names else str(names[0])


def scored_rows(
    engine: Engine, name: str, *, horizon: int, last: dt.date | None, days: int
) -> pd.DataFrame:
    """Rows that have come true, of the `days` target days that end with `last`; none for None."""
    return _read(engine, SCORED, {"engine": name, "horizon": horizon, "last": last, "days": days})


def describe_pools(engine: Engine, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the pool's chain and project, and its age in days on the as-of day; None and
    NaN where not known.
    """
    pools = _read(engine, POOLS, {})
    described = rows.merge(pools, on="pool_id", how="left")
    age = (
        pd.to_datetime(described["as_of"]) - pd.to_datetime(described.pop("first_day"))
    ).dt.days + 1
    return described.assign(age_days=age)


def _span(name: str, horizon: int, as_of: dt.date) -> dict[str, Any]:
    return {"engine": name, "horizon": horizon, "as_of": as_of, "days": PAST_DAYS}


def _read(engine: Engine, statement: str, parameters: dict[str, Any]) -> pd.DataFrame:
    with checked_connection(engine) as connection:
        rows = pd.read_sql(text(statement), connection, params=parameters)
    # a column in which everything is null has no type of its own
    return rows.astype(dict.fromkeys(NUMBERS & set(rows.columns), "float64"))
