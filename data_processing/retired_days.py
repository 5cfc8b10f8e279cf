"""Days that earlier runs wrote and a pool's calendar no longer has: it went inactive, or a tighter limit took its first or last snapshots.

In: the plan's table and the run's staging, inside the run's commit. Out: the metric columns of those days are empty again, and rows with nothing
else in them are gone. Values of other jobs (forecasts, filters, groups, whatever columns the owner has) are never touched.
"""

from __future__ import annotations

from sqlalchemy import Connection

from database.merge_sql import qualified, quoted
from database.tables import METRIC_COLUMNS, observation_age, pool_daily_metrics

METRICS = qualified(pool_daily_metrics)


def retire_days(connection: Connection, plan_table: str, staging: str) -> int:
    """Empty the planned days that `staging` (pool_id, date) does not reach; returns how many.

    A staged pool's days have no gap, so that its first and last say it all.
    """
    nulls = ", ".join(f"{quoted(name)} = NULL" for name in METRIC_COLUMNS)
    ours = ", ".join(f"'{name}'" for name in ("pool_id", "date", "is_filtered_out", *METRIC_COLUMNS))
    same_day = "t.pool_id = gone.pool_id AND t.date = gone.date"
    nothing_else = f"t.is_filtered_out IS NOT TRUE AND jsonb_strip_nulls(to_jsonb(t) - ARRAY[{ours}]) = '{{}}'"
    statement = f"""
    WITH staged AS (SELECT pool_id, min(date) AS first_day, max(date) AS last_day FROM {staging} GROUP BY pool_id),
    gone AS (
        DELETE FROM {qualified(observation_age)} AS o USING {plan_table} AS p LEFT JOIN staged ON staged.pool_id = p.pool_id
        WHERE o.pool_id = p.pool_id AND o.date >= p.write_from AND o.date < p.write_end
            AND (staged.pool_id IS NULL OR o.date < staged.first_day OR o.date > staged.last_day)
        RETURNING o.pool_id, o.date
    ),
    removed AS (DELETE FROM {METRICS} AS t USING gone WHERE {same_day} AND {nothing_else}),
    emptied AS (UPDATE {METRICS} AS t SET {nulls} FROM gone WHERE {same_day} AND NOT ({nothing_else}))
    SELECT count(*) FROM gone
    """
    return int(connection.exec_driver_sql(statement).scalar_one())
