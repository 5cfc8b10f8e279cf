"""Tests `compare` with the pandas job's rows: every difference is explained, and every wrong value
is reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine

from benchmarks.old_pandas_job import old_metrics, write_old_metrics
from common.errors import ConfigurationError, DatabaseRefused, NotEnoughHistory, SchemaMismatch
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.comparison.compare_tables import Comparison, compare_tables
from data_processing.ingest.loading.load_files import load_files
from database.connections.engine import make_engine
from database.schema.migrate import migrate
from database.schema.owner_tables import METRIC_COLUMNS
from tests.support.databases import fresh_database
from tests.support.metrics_store import execute, rows_of, without_jvm
from tests.support.owner_schema import put_as_owner, role_with
from tests.support.pandas_job_history import DAYS, history
from tests.support.processes import CommandLineHere

TODAY = date(2024, 4, 30)
START = TODAY - timedelta(days=DAYS)


@dataclass(frozen=True)
class Ground:
    settings: Settings
    engine: Engine
    rows: pd.DataFrame


@pytest.fixture(scope="module")
def ground(server: Settings, owner_template: str) -> Iterator[Ground]:
    """The owner's tables with a history, our metrics, and the pandas job's metrics in
    `old_metrics`.
    """
    with fresh_database(server, owner_template) as settings:
        engine = make_engine(settings)
        migrate(engine)
        world = history(TODAY)
        put_as_owner(engine, world)
        run_metrics(without_jvm(settings), now=world.now)
        rows = old_metrics(engine, today=pd.Timestamp(TODAY))
        execute(engine, "CREATE TABLE old_metrics (LIKE pool_daily_metrics INCLUDING ALL)")
        write_old_metrics(engine, "old_metrics", rows)
        yield Ground(settings, engine, rows)


@pytest.fixture
def table(ground: Ground) -> Iterator[str]:
    """A copy of the pandas job's table that a test may change."""
    execute(ground.engine, "CREATE TABLE copied (LIKE old_metrics INCLUDING ALL)")
    execute(ground.engine, "INSERT INTO copied SELECT * FROM old_metrics")
    yield "copied"
    execute(ground.engine, "DROP TABLE copied")


def compared(ground: Ground, table: str, **options: Any) -> dict[str, Any]:
    return compare_tables(ground.engine, Comparison(table, **options))


def test_every_difference_from_the_pandas_job_has_its_rule(ground: Ground) -> None:
    comparison = compared(ground, "old_metrics")
    assert (comparison["unexplained"], comparison["examples"], comparison["not_compared"]) == (
        0,
        [],
        [],
    )
    assert set(comparison["rules"]) == {
        "carried_for_ever",
        "not_carried",
        "carried_from_a_different_value",
        "filled_before_the_first",
        "close_of_the_row_before",
        "window_of_other_values",
        "day_not_over",
        "before_the_first_snapshot",
        "after_the_last_snapshot",
        "several_snapshots_a_day",
        "quarantined_rows",
    }
    rows = comparison["rows"]
    ours = rows_of(ground.engine, "SELECT count(*) AS rows FROM pool_daily_metrics")[0]["rows"]
    assert rows["both"] + sum(rows["only_ours"].values()) == ours
    assert rows["both"] + sum(rows["only_theirs"].values()) == len(ground.rows)
    for counts in comparison["columns"].values():
        kinds = {name: count for name, count in counts.items() if name != "rules"}
        assert sum(kinds.values()) == rows["both"]
        different = sum(kinds.values()) - kinds["equal"] - kinds["both_null"]
        assert sum(counts["rules"].values()) == different


def test_job_that_leaves_out_inactive_pools(ground: Ground) -> None:
    rows = old_metrics(ground.engine, today=pd.Timestamp(TODAY), leave_out_inactive=True)
    execute(ground.engine, "CREATE TABLE active_metrics (LIKE pool_daily_metrics)")
    execute(ground.engine, "ALTER TABLE active_metrics DROP COLUMN id")
    write_old_metrics(ground.engine, "active_metrics", rows)
    comparison = compared(ground, "active_metrics")
    assert comparison["unexplained"] == 0
    assert comparison["rows"]["only_ours"] == {"inactive_pool": 40, "several_snapshots_a_day": DAYS}


@pytest.mark.parametrize("columns", [METRIC_COLUMNS[:1], METRIC_COLUMNS[1:]])
def test_wrong_value_is_unexplained_even_on_day_with_rule(
    columns: tuple[str, ...], ground: Ground, table: str
) -> None:
    """On a day that both jobs observed, in a window over carried values, and on a day that is
    carried without limit. A wrong APY also changes the windows after it.
    """
    spoilt = {
        "a-steady": START + timedelta(days=10),
        "c-gap-of-15-days": START + timedelta(days=38),
        "e-apy-missing": START + timedelta(days=47),
    }
    wrong_values = ", ".join(f"{column} = coalesce({column}, 0) + 0.5" for column in columns)
    for pool, day in spoilt.items():
        execute(
            ground.engine,
            f"UPDATE {table} SET {wrong_values} WHERE pool_id = :pool AND date = :day",
            pool=pool,
            day=day,
        )
    comparison = compared(ground, table, listed=1000)
    examples = {(row["pool_id"], row["date"], row["column"]) for row in comparison["examples"]}
    for pool, day in spoilt.items():
        assert examples >= {(pool, day.isoformat(), column) for column in columns}
    assert comparison["unexplained"] == len(comparison["examples"])
    if columns != ("actual_apy",):
        assert comparison["unexplained"] == len(spoilt) * len(columns)


def test_the_command_lists_what_is_unexplained_and_exits_with_1(
    ground: Ground, table: str, tmp_path: Path
) -> None:
    command = CommandLineHere(ground.settings, tmp_path)
    before = rows_of(ground.engine, f"SELECT xmin::text, t.* FROM {table} AS t ORDER BY id")
    assert command.json("compare", "--table", table)["unexplained"] == 0
    assert re.search(r"^unexplained +0", command("compare", "--table", table).stdout, re.MULTILINE)
    assert "before_the_first_snapshot" in command("compare", "--table", f"public.{table}").stdout
    assert rows_of(ground.engine, f"SELECT xmin::text, t.* FROM {table} AS t ORDER BY id") == before
    day = START + timedelta(days=30)
    execute(ground.engine, f"DELETE FROM {table} WHERE pool_id = 'a-steady' AND date = '{day}'")
    execute(
        ground.engine,
        f"UPDATE {table} SET actual_tvl = 5 WHERE pool_id = 'b-late' AND date = '{day}'",
    )
    comparison = command.json("compare", "--table", table, code=1)
    assert comparison["unexplained"] == 2
    tvl = rows_of(
        ground.engine,
        "SELECT actual_tvl::float8 AS tvl FROM pool_daily_metrics WHERE pool_id = 'b-late' AND"
        f" date = '{day}'",
    )[0]["tvl"]
    missing = {"column": None, "ours": "a row", "theirs": "no row"}
    wrong = {"column": "actual_tvl", "ours": tvl, "theirs": 5.0}
    assert comparison["examples"] == [
        {"pool_id": "a-steady", "date": day.isoformat(), **missing},
        {"pool_id": "b-late", "date": day.isoformat(), **wrong},
    ]
    output = command("compare", "--table", table)
    assert (output.returncode, "unexplained: 2" in output.stdout) == (1, True)
    assert len(command.json("compare", "--table", table, "--limit", "1", code=1)["examples"]) == 1
    for part in (["--pools", "c-gap-of-15-days,b-late"], ["--end", f"{day + timedelta(days=1)}"]):
        comparison_of_part = command.json("compare", "--table", table, *part, code=1)
        assert comparison_of_part["unexplained"] == (1 if part[0] == "--pools" else 2)
    later = command.json("compare", "--table", table, "--start", f"{day + timedelta(days=1)}")
    assert later["unexplained"] == 0
    assert (
        command.json("compare", "--table", table, "--tolerance", "1e9", code=1)["unexplained"] == 1
    )


ODD_VALUES = {
    "beyond a double": (
        "ALTER TABLE copied ALTER actual_apy TYPE numeric",
        "UPDATE copied SET actual_apy = 1e1000 WHERE (pool_id, date) = ('a-steady', '{day}')",
        "Infinity",
    ),
    "infinite": (
        "ALTER TABLE copied ALTER actual_apy TYPE double precision",
        "UPDATE copied SET actual_apy = '-Infinity' WHERE (pool_id, date) = ('a-steady', '{day}')",
        "-Infinity",
    ),
    "before Christ": (
        "ALTER TABLE copied ALTER actual_apy TYPE numeric",
        "INSERT INTO copied (pool_id, date, actual_apy) VALUES ('a-steady', '0044-03-15 BC', 3)",
        "a row",
    ),
}


@pytest.mark.parametrize("kind", ODD_VALUES)
def test_odd_values_are_listed_as_json_has_them(
    kind: str, ground: Ground, table: str, tmp_path: Path
) -> None:
    *statements, theirs = ODD_VALUES[kind]
    for statement in statements:
        execute(ground.engine, statement.format(day=START + timedelta(days=10)))
    command = CommandLineHere(ground.settings, tmp_path)
    comparison = command.json("compare", "--table", table, code=1)
    assert theirs in {example["theirs"] for example in comparison["examples"]}
    assert comparison["rules"].keys().isdisjoint({"raw_rows_gone"})


def test_compares_table_with_one_metric_column(ground: Ground, table: str) -> None:
    for column in set(METRIC_COLUMNS) - {"actual_tvl"}:
        execute(ground.engine, f"ALTER TABLE {table} DROP COLUMN {column}")
    assert list(compared(ground, table)["columns"]) == ["actual_tvl"]


def test_rounding_to_hundreds_is_no_difference(ground: Ground, table: str) -> None:
    execute(ground.engine, f"ALTER TABLE {table} ALTER actual_tvl TYPE numeric(20,-2)")
    assert compared(ground, table)["unexplained"] == 0


@pytest.mark.parametrize("first", ["the pandas job", "YieldSpark"])
def test_missing_raw_rows_explain_days_one_job_cannot_compute(
    first: str, server: Settings, owner_template: str
) -> None:
    """All rows of one pool and the first days of another are deleted between the two jobs."""
    with fresh_database(server, owner_template) as settings:
        engine = make_engine(settings)
        migrate(engine)
        source = history(TODAY)
        put_as_owner(engine, source)
        execute(engine, "CREATE TABLE old_metrics (LIKE pool_daily_metrics INCLUDING ALL)")

        def both(job: str) -> None:
            if job == "YieldSpark":
                run_metrics(without_jvm(settings), now=source.now)
            else:
                rows = old_metrics(engine, today=pd.Timestamp(TODAY))
                write_old_metrics(engine, "old_metrics", rows)

        both(first)
        gone = "pool_id = 'a-steady' OR pool_id = 'b-late' AND timestamp < :day"
        day = START + timedelta(days=40)
        execute(engine, f"DELETE FROM raw_defillama_pool_history WHERE {gone}", day=day)
        both("YieldSpark" if first == "the pandas job" else "the pandas job")
        comparison = compare_tables(engine, Comparison("old_metrics"))
        side = "only_theirs" if first == "the pandas job" else "only_ours"
        assert comparison["unexplained"] == 0
        assert comparison["rows"][side]["raw_rows_gone"] >= DAYS
        execute(
            engine,
            "UPDATE old_metrics SET actual_apy = actual_apy + 0.5 WHERE pool_id = 'b-late' AND date"
            " = :day",
            day=START + timedelta(days=45 if first == "YieldSpark" else 20),
        )
        assert compare_tables(engine, Comparison("old_metrics"))["unexplained"] > 0


def test_columns_that_one_table_lacks_are_named(ground: Ground, table: str) -> None:
    execute(ground.engine, f"ALTER TABLE {table} DROP COLUMN stddev_apy_7d")
    execute(ground.engine, f"ALTER TABLE {table} ALTER COLUMN eth_open TYPE text")
    comparison = compared(ground, table)
    assert (comparison["unexplained"], comparison["not_compared"]) == (
        0,
        ["eth_open", "stddev_apy_7d"],
    )


def test_rejects_tables_that_cannot_be_compared(ground: Ground, table: str, tmp_path: Path) -> None:
    for name, message in {
        "nowhere": "schema public has no such table",
        "elsewhere.metrics": "schema elsewhere has no such table",
        "a b; drop": "is no table's name",
        "pool_daily_metrics": "our own metrics table",
        "public.pool_daily_metrics": "our own metrics table",
    }.items():
        with pytest.raises(ConfigurationError, match=message):
            compared(ground, name)
    for tolerance in ("-1", "much", "NaN", "1e400", "1e-400"):
        with pytest.raises(ConfigurationError, match="--tolerance"):
            compared(ground, table, tolerance=tolerance)
    with pytest.raises(SchemaMismatch, match="date is missing"):
        compared(ground, "pools")
    with pytest.raises(SchemaMismatch, match="none of the metric columns"):
        compared(ground, "pool_groups")
    execute(ground.engine, f"ALTER TABLE {table} DROP CONSTRAINT copied_pool_id_date_key")
    execute(
        ground.engine,
        f"INSERT INTO {table} (pool_id, date) SELECT pool_id, date FROM {table} LIMIT 1",
    )
    with pytest.raises(SchemaMismatch, match="has 2 rows of pool"):
        compared(ground, table)
    execute(ground.engine, f"ALTER TABLE {table} ALTER pool_id DROP NOT NULL")
    execute(ground.engine, f"INSERT INTO {table} (date) VALUES ('{START}')")
    with pytest.raises(SchemaMismatch, match="has 1 rows without pool_id or date"):
        compared(ground, table)


READER = """
GRANT USAGE ON SCHEMA public, yieldspark TO yieldspark;
GRANT SELECT ON ALL TABLES IN SCHEMA yieldspark TO yieldspark;
GRANT SELECT ON pools, raw_defillama_pool_history, raw_coinmarketcap_ohlcv TO yieldspark;
GRANT SELECT ON pool_daily_metrics TO yieldspark;
"""


def test_reader_may_compare_and_error_names_missing_right(ground: Ground, table: str) -> None:
    with role_with(ground.settings, READER) as reader:
        with pytest.raises(DatabaseRefused) as caught:
            compare_tables(make_engine(reader), Comparison(table))
        statement = f"GRANT SELECT ON public.{table} TO {reader.db_user};"
        assert statement in str(caught.value)
        execute(ground.engine, statement)
        assert compare_tables(make_engine(reader), Comparison(table))["unexplained"] == 0


def test_rejects_comparison_before_first_run(owner_database: Settings) -> None:
    with pytest.raises(NotEnoughHistory, match="calculate_metrics"):
        compare_tables(make_engine(owner_database), Comparison("pool_groups"))


@pytest.mark.long
def test_the_pandas_job_on_real_history(database: Settings, shared_data: Path) -> None:
    """Prints the table of differences, which `-s` shows."""
    names = ("defillama_pool_history.parquet", "defillama_pools.parquet", "ETHUSDT_1d.csv")
    load_files(
        database, [shared_data / name for name in (*names, "BTCUSDT_1d.csv", "AvgGasPrice.csv")]
    )
    engine = make_engine(database)
    last = datetime(2025, 10, 6, 12, tzinfo=UTC)
    run_metrics(without_jvm(database), now=last)
    execute(engine, "CREATE TABLE old_metrics (LIKE pool_daily_metrics INCLUDING ALL)")
    rows = old_metrics(engine, today=pd.Timestamp(last.date()))
    write_old_metrics(engine, "old_metrics", rows)
    began = monotonic()
    comparison = compare_tables(engine, Comparison("old_metrics"))
    print(json.dumps(comparison | {"seconds": monotonic() - began}, indent=1))
    assert comparison["unexplained"] == 0
    assert comparison["rows"]["both"] > 40_000
