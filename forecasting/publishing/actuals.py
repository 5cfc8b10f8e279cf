"""Actual values of past forecasts: counts and writes those that are observed or corrected.

Reads the metrics table and updates `yieldspark.forecast_evaluation`, by SQL. A target day has an
actual value if it was observed on that day. Imports neither Spark nor pandas.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from common.horizons import NEXT_DAY
from database.ledger.runs import Run
from database.schema.merge_sql import qualified
from database.schema.metrics_table import finite, metrics_name, require_same_metrics_table
from database.schema.own_tables import forecast_evaluation
from database.undo.replaced_rows import begin_change, end_change, insert_replaced
from forecasting.features.observed_values import is_observed, staleness_join
from forecasting.publishing.history_window import PAST_DAYS

TARGETS = ("apy", "tvl")

# condition that a row `m` of the metrics was computed after its day was over, for every pool
DAY_IS_OVER = (
    "m.date < (SELECT coalesce(min(p.date), 'infinity') FROM yieldspark.provisional_days AS p)"
)

# The newest target day of the next-day forecasts: the same for all horizons, so that rows of a long
# one do not shorten the window of the others. Without next-day forecasts (a backtest of another
# horizon alone), the newest target day of all.
_NEWEST_TARGET_DAY = f"""
SELECT coalesce(
    (SELECT max(target_date) FROM yieldspark.forecast_evaluation WHERE horizon_days = {NEXT_DAY}),
    (SELECT max(target_date) FROM yieldspark.forecast_evaluation)
) AS day
"""

# A row has no actual value yet, or is of the newest days. The first day of these rows spares the
# older metrics the join.
_SOURCE = f"""
({_NEWEST_TARGET_DAY}) AS newest,
    {{metrics}} AS m
    {staleness_join()}
WHERE e.target = '{{target}}'
    AND {DAY_IS_OVER}
    AND m.date >= (
        SELECT min(target_date)
        FROM yieldspark.forecast_evaluation
        WHERE actual IS NULL OR target_date > ({_NEWEST_TARGET_DAY}) - :days
    )
    AND m.pool_id = e.pool_id
    AND m.date = e.target_date
    AND (e.actual IS NULL OR e.target_date > newest.day - :days)
    AND {is_observed("{target}")}
    AND e.actual IS DISTINCT FROM {finite("m.actual_{target}")}
"""

_HISTORY = qualified(forecast_evaluation)
_KEY = [column.name for column in forecast_evaluation.primary_key]

_UPDATE = f"""
UPDATE yieldspark.forecast_evaluation AS e
SET actual = {finite("m.actual_{target}")}
FROM {_SOURCE}
"""

_COUNT = f"""
SELECT count(*)
FROM yieldspark.forecast_evaluation AS e, {_SOURCE}
"""


def update_actuals(connection: Connection, run: Run | None = None) -> int:
    """Writes the actual values of target days that have been observed since, without a commit.

    Values of the newest PAST_DAYS target days are compared again, because they may have been
    corrected.

    Args:
        connection: the caller's transaction.
        run: the open run that keeps the replaced values; None keeps none.

    Returns:
        The number of rows that changed.

    Raises:
        ConfigurationError: the metrics were last written to another table.
    """
    updated = 0
    sources = _statements(connection, _SOURCE)
    for source, update in zip(sources, _statements(connection, _UPDATE), strict=True):
        change_id = begin_change(run, _HISTORY, "written", _KEY, ["actual"]) if run else None
        if run and change_id is not None:
            key = [f"e.{name}" for name in _KEY]
            kept = insert_replaced(change_id, f"{_HISTORY} AS e, {source}", key, ["e.actual"])
            update = f"WITH kept AS ({kept}) {update}"
        rows = connection.execute(text(update), {"days": PAST_DAYS}).rowcount
        if run:
            end_change(run, change_id, rows)
        updated += rows
    return updated


def count_new_actuals(connection: Connection) -> int:
    """Returns the number of rows that `update_actuals` would change.

    Raises:
        ConfigurationError: the metrics were last written to another table.
    """
    return sum(
        int(connection.execute(text(statement), {"days": PAST_DAYS}).scalar_one())
        for statement in _statements(connection, _COUNT)
    )


def _statements(connection: Connection, template: str) -> list[str]:
    require_same_metrics_table(connection)
    metrics = metrics_name(connection)
    return [template.format(target=target, metrics=metrics) for target in TARGETS]
