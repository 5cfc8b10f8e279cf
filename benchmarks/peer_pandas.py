"""Peer of the metrics benchmark: common pandas code, upserted pool by pool into `bench.pandas` by
`execute_values`. Its rules differ from the product's; `python -m benchmarks.pandas_parity` counts
the differences. Run with DB_* set: `python -m benchmarks.peer_pandas`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from psycopg2.extras import execute_values

from benchmarks.pandas_way import pool_days, read_market, read_rows
from benchmarks.peer_rules import PEERS_SCHEMA
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.schema.owner_tables import METRIC_COLUMNS

PAGE_ROWS = 1000


def by_pandas(settings: Settings) -> None:
    """Compute and write all metrics."""
    engine = make_engine(settings)
    rows = read_rows(engine)
    market = read_market(engine, rows["date"].min(), rows["date"].max())
    connection = engine.raw_connection()
    try:
        for pool, pool_rows in rows.groupby("pool_id"):
            _upsert(
                connection, pool_days(pool_rows, rows["date"].max(), market).assign(pool_id=pool)
            )
            connection.commit()
    finally:
        connection.close()


def _upsert(connection: Any, days: pd.DataFrame) -> None:
    names = ("pool_id", "date", *METRIC_COLUMNS)
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in METRIC_COLUMNS)
    frame = days.reset_index()[list(names)].astype(object)
    values = frame.where(frame.notna(), None).values.tolist()
    with connection.cursor() as cursor:
        statement = f"""
            INSERT INTO {PEERS_SCHEMA}.pandas ({", ".join(names)})
            VALUES %s
            ON CONFLICT (pool_id, date) DO UPDATE SET {updates}
        """
        execute_values(cursor, statement, values, page_size=PAGE_ROWS)


if __name__ == "__main__":
    by_pandas(load_settings())
