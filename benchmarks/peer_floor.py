"""Lower bound of the metrics benchmark: the raw rows by COPY out of the database, the product's
rows by COPY into unlogged staging, and a plain INSERT from there into `bench.floor`. It computes,
checks and compares nothing. Run with DB_* set, after a full run of the product: `python -m
benchmarks.peer_floor`. Prints the seconds of the three statements as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import adbc_driver_postgresql.dbapi as adbc

from benchmarks.peer_rules import PEERS_SCHEMA, RAW
from benchmarks.peer_staging import copy_to_staging, create_staging
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.connections.parameters import connection_parameters
from database.schema.owner_tables import METRIC_COLUMNS

STAGING = "staging_floor"

_COLUMNS = ", ".join(("pool_id", "date", *METRIC_COLUMNS))

_ROWS = f"""
SELECT pool_id, date, {", ".join(f"{name}::float8" for name in METRIC_COLUMNS)}
FROM pool_daily_metrics
ORDER BY pool_id, date
"""


def by_plain_statements(settings: Settings) -> dict[str, float]:
    """Run the three statements in turn.

    Returns:
        Seconds of `copy_out`, `copy_in` and `insert`.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = monotonic()
        yield
        seconds[name] = monotonic() - started

    with (
        adbc.connect(connection_parameters(settings).conninfo) as connection,
        connection.cursor() as cursor,
    ):
        # raw rows and metrics are read apart: the floor computes nothing from one to the other
        with timed("copy_out"):
            cursor.execute(RAW)
            cursor.fetch_arrow_table()
        cursor.execute(_ROWS)
        rows = cursor.fetch_arrow_table()
        staging = create_staging(cursor, STAGING)
        with timed("copy_in"):
            copy_to_staging(connection, cursor, STAGING, rows)
    engine = make_engine(settings)
    insert = f"INSERT INTO {PEERS_SCHEMA}.floor ({_COLUMNS}) SELECT {_COLUMNS} FROM {staging}"
    with timed("insert"), engine.begin() as database:
        database.exec_driver_sql(insert)
    with engine.begin() as database:
        database.exec_driver_sql(f"DROP TABLE {staging}")
    return seconds


def main() -> None:
    stages = by_plain_statements(load_settings())
    rounded = {name: round(seconds, 2) for name, seconds in stages.items()}
    print(json.dumps({"seconds": round(sum(stages.values()), 2), "stages": rounded}))


if __name__ == "__main__":
    main()
