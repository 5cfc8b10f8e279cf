"""Tests the guide for moving from the pandas job: its statements and commands run as written, in
order, on a database with the tables of that job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from benchmarks.old_pandas_job import old_metrics, write_old_metrics
from common.errors import DatabaseRefused
from config_spark import Settings
from data_processing.comparison.rules import (
    Precision,
    Rule,
    column_rules,
    our_row_rules,
    their_row_rules,
)
from database.connections.engine import make_engine
from database.schema.migrate import migrate
from database.schema.owner_tables import METRIC_COLUMNS
from tests.support.databases import fresh_database
from tests.support.metrics_store import rows_of
from tests.support.owner_schema import documented_grants, ordinary_owner, put_as_owner, role_with
from tests.support.pandas_job_history import DAYS, history
from tests.support.processes import PROJECT, CommandLineHere

GUIDE = (PROJECT / "docs" / "guides" / "migrate-from-pandas.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sql|bash)\n(.*?)```", GUIDE, re.DOTALL)
PROGRAM = "python run_spark_local.py "
QUICK = Path(__file__).resolve().parents[1] / "support" / "few_rounds.json"

OTHERS = (
    "SELECT pool_id, date, forecasted_apy, is_filtered_out, filter_reason, pool_group FROM"
    " pool_daily_metrics WHERE filter_reason IS NOT NULL ORDER BY pool_id, date"
)


LAST_COMPLETE_DAY = (
    "SELECT (now() AT TIME ZONE 'UTC')::date - max(date) AS days_ago FROM pool_daily_metrics"
    " WHERE pool_id = 'g-inactive' AND date < (now() AT TIME ZONE 'UTC')::date"
)
"""Of a pool that has snapshots of the first 40 days alone."""


@pytest.fixture
def pandas_system(owner_tables: Settings) -> Settings:
    """The owner's tables with a history up to today, and the pandas job's metrics."""
    engine = make_engine(owner_tables)
    today = datetime.now(UTC).date()
    put_as_owner(engine, history(today))
    write_old_metrics(engine, "pool_daily_metrics", old_metrics(engine, today=pd.Timestamp(today)))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE pool_daily_metrics SET filter_reason = 'low tvl', is_filtered_out = true,"
            " pool_group = 2 WHERE pool_id = 'a-steady'"
        )
    return owner_tables


@contextmanager
def role_of_the_guide(database: Settings) -> Iterator[Settings]:
    """The role that the first block creates, with the rights that it grants."""
    language, rights = BLOCKS[0]
    assert (language, "CREATE ROLE yieldspark" in rights) == ("sql", True)
    with role_with(database, rights) as settings:
        yield settings


def execute_as_owner(engine: Engine, block: str, role: str) -> None:
    """Execute statements one by one, because CREATE INDEX CONCURRENTLY allows no transaction."""
    block_of_role = re.sub(r"\bTO yieldspark\b", f"TO {role}", block)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        for statement in filter(None, map(str.strip, block_of_role.split(";\n"))):
            connection.exec_driver_sql(statement)


def test_the_guide_runs_as_written_and_other_jobs_columns_stay(
    pandas_system: Settings, spark: SparkSession, tmp_path: Path
) -> None:
    """Takes half a minute: both jobs on each side of the cut-over, with two small fits."""
    engine = make_engine(pandas_system)
    before = rows_of(engine, OTHERS)
    untouched = "SELECT xmin::text, t.* FROM pool_daily_metrics AS t ORDER BY id"
    theirs = rows_of(engine, untouched)
    environment = {"MODEL_PARAMETERS_FILE": str(QUICK), "TRAIN_DAYS": "30"}
    with role_of_the_guide(pandas_system) as settings:
        command = CommandLineHere(settings, tmp_path, spark)
        for language, block in BLOCKS[1:]:
            if language == "sql":
                if "pool_daily_metrics_before" in block and "CREATE TABLE" in block:
                    assert rows_of(engine, untouched) == theirs, "written before the cut-over"
                execute_as_owner(engine, block, settings.db_user)
                if "DELETE FROM public.pool_daily_metrics" in block:
                    assert rows_of(engine, LAST_COMPLETE_DAY) == [{"days_ago": DAYS - 39}]
                continue
            for line in block.splitlines():
                if line.startswith("export "):
                    exported = dict(pair.split("=", 1) for pair in line.split()[1:])
                    environment |= {
                        name: value
                        for name, value in exported.items()
                        if not name.startswith("DB_")
                    }
                    continue
                assert line.startswith(PROGRAM), line
                finished = command(*line.removeprefix(PROGRAM).split(), **environment)
                assert finished.returncode == 0, f"{line}\n{finished.stdout}\n{finished.stderr}"
    for row in before:
        del row["forecasted_apy"]
    assert rows_of(engine, OTHERS.replace("forecasted_apy, ", "")) == before
    back = rows_of(engine, untouched)
    metrics = {(row["pool_id"], row["date"]): row["rolling_apy_7d"] for row in back}
    for row in theirs:
        assert metrics[row["pool_id"], row["date"]] == row["rolling_apy_7d"], "not rolled back"


def test_owner_without_superuser_can_run_statements(owner_tables: Settings) -> None:
    """The owner's statements: those that grant rights, and the one that reads YieldSpark's
    tables.
    """
    (clean_up,) = [block for _, block in BLOCKS if "yieldspark.pool_coverage" in block]
    for rights in (BLOCKS[0][1], documented_grants()):
        with (
            fresh_database(owner_tables, owner_tables.db_name) as copy,
            ordinary_owner(copy) as owner,
            role_with(copy, rights, owner=owner) as settings,
        ):
            migrate(make_engine(settings))
            with make_engine(copy).begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL ROLE {owner}")
                connection.exec_driver_sql(clean_up)


def test_missing_schema_right_names_statements_for_owner(
    owner_tables: Settings,
) -> None:
    with (
        ordinary_owner(owner_tables) as owner,
        role_with(owner_tables, "CREATE ROLE yieldspark LOGIN", owner=owner) as settings,
    ):
        with pytest.raises(DatabaseRefused) as caught:
            migrate(make_engine(settings))
        statements = str(caught.value).split("As its owner run: ")[1]
        with make_engine(owner_tables).begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {owner}")
            connection.exec_driver_sql(statements)
        assert migrate(make_engine(settings))


def test_guide_table_names_every_rule() -> None:
    precision = Precision(4, "0.0001")
    rules: list[Rule] = [*our_row_rules(), *their_row_rules("m", {})]
    for column in METRIC_COLUMNS:
        rules += column_rules(column, "m", precision)
    documented = re.findall(r"^\| `([a-z_]+)` \|", GUIDE, re.MULTILINE)
    assert sorted(documented) == sorted({rule.name for rule in rules})
