"""Raw history and metrics that are partitioned before the first migration: PostgreSQL has no system
columns for rows of such tables.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import execute_sql
from tests.support.databases import empty_database
from tests.support.processes import CommandLineHere
from tests.support.undone_runs import contents

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"

HISTORY = """
CREATE TABLE raw_defillama_pool_history (
    id bigserial,
    pool_id varchar(255) NOT NULL,
    timestamp timestamptz NOT NULL,
    raw_json_data jsonb,
    insertion_timestamp timestamptz DEFAULT now(),
    PRIMARY KEY (id, timestamp)
) PARTITION BY RANGE (timestamp);
CREATE TABLE history_july PARTITION OF raw_defillama_pool_history
    FOR VALUES FROM ('2025-07-01') TO ('2025-08-01');
CREATE TABLE history_rest PARTITION OF raw_defillama_pool_history DEFAULT;
"""
JULY = [f"2025-07-{day:02}" for day in range(20, 32)]
AUGUST = [f"2025-08-{day:02}" for day in range(1, 10)]
FILE = "timestamp,pool,tvlUsd,apy\n" + "".join(
    f"{day}T23:01:00Z,{pool},1000000,{int(day[-2:]) / 4}\n"
    for pool, day in product(("pool-0", "pool-1"), JULY + AUGUST)
)
METRICS = """
ALTER TABLE pool_daily_metrics RENAME TO plain_metrics;
CREATE TABLE pool_daily_metrics (LIKE plain_metrics INCLUDING ALL) PARTITION BY HASH (pool_id);
CREATE TABLE metrics_0 PARTITION OF pool_daily_metrics FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE metrics_1 PARTITION OF pool_daily_metrics FOR VALUES WITH (MODULUS 2, REMAINDER 1);
DROP TABLE plain_metrics;
"""


CORRECTIONS = """
INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
SELECT DISTINCT ON (pool_id) pool_id, timestamp + interval '1 second', '{"apy": 7, "tvlUsd": 5}'
FROM raw_defillama_pool_history
ORDER BY pool_id, timestamp DESC
"""


@pytest.mark.parametrize("source", ["own", "shared"])
def test_loads_computes_and_undoes_in_partitioned_tables(
    source: str, server: Settings, spark: SparkSession, tmp_path: Path
) -> None:
    statements, file = HISTORY, tmp_path / "history.csv"
    file.write_text(FILE)
    if source == "shared":
        if not CASES.is_dir():
            pytest.skip(f"the cases are not beside the checkout ({CASES.name}/)")
        statements = (CASES / "partitioned_raw_history.sql").read_text(encoding="utf-8")
        file = CASES / "small_history.csv"
    rows = len(file.read_text(encoding="utf-8").splitlines()) - 1
    with empty_database(server) as settings:
        execute_sql(settings, statements)
        run = CommandLineHere(settings, tmp_path, spark)
        loaded = run.json("load", str(file))
        assert (loaded["rows_inserted"], run.json("load", str(file))["rows_inserted"]) == (rows, 0)
        execute_sql(settings, METRICS)
        first = run.json("calculate_metrics")
        assert first["rows"]["inserted"] >= rows
        again = run.json("calculate_metrics", "--full-refresh")
        assert (again["rows"]["inserted"], again["rows"]["updated"]) == (0, 0)
        engine = make_engine(settings)
        before = contents(engine)
        execute_sql(settings, CORRECTIONS)
        wrong = run.json("calculate_metrics", EXECUTOR="spark")
        assert wrong["rows"]["updated"] > 0
        assert run.json("undo", wrong["run_id"])["status"] == "undone"
        assert contents(engine) == before
        assert run.json("calculate_metrics", EXECUTOR="spark")["rows"] == wrong["rows"]
