"""Transports, staging and merge: real Spark and real PostgreSQL."""

from __future__ import annotations

import signal
from collections import Counter
from datetime import date, timedelta
from random import Random
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from sqlalchemy import Engine, text

from common.errors import CheckFailed
from config_spark import Settings
from database.db_utils_spark import (
    ArrowTransform,
    MergeTarget,
    StagedFrame,
    commit_run,
    execute_sql,
    transport_for,
    upsert_via_staging,
)
from database.ledger.runs import open_run
from database.schema.merge_sql import create_staging, keep_last_attempts, staging_facts
from database.schema.own_tables import OWN_SCHEMA, quarantine
from database.schema.owner_tables import pool_daily_metrics
from database.transport.adbc import AdbcTransport
from database.transport.staged_types import staging_types
from spark.interrupt import interruptible
from spark.jar_sets import has_jdbc_jar
from tests.spark.test_spark_interrupt import interrupt_inside_the_jvm

TRANSPORTS = ["adbc", "jdbc"]
SCHEMA = "pool_id string, date date, actual_apy double, actual_tvl double"
TARGET = MergeTarget(
    pool_daily_metrics,
    {"pool_id": "pool_id", "date": "date"},
    {"actual_apy": "actual_apy", "actual_tvl": "actual_tvl"},
)
DAY = date(2025, 8, 3)


@pytest.fixture(params=TRANSPORTS)
def transported(request: pytest.FixtureRequest, database: Settings) -> Settings:
    """Settings that read and write with each transport in turn."""
    assert has_jdbc_jar(database), "the JDBC jar is missing: run `python run_spark_local.py doctor`"
    return database.model_copy(
        update={"read_transport": request.param, "write_transport": request.param}
    )


def _frame(spark: SparkSession, *rows: tuple[str, date, float | None, float | None]) -> DataFrame:
    return spark.createDataFrame(list(rows), SCHEMA)


def _table(settings: Settings) -> list[dict[str, object]]:
    return execute_sql(
        settings,
        "SELECT pool_id, date, actual_apy::float8 AS apy, actual_tvl::float8 AS tvl,"
        " forecasted_apy::float8 AS f FROM pool_daily_metrics ORDER BY pool_id",
    )


def _staging_tables(settings: Settings) -> list[dict[str, object]]:
    return execute_sql(settings, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'staging%'")


def test_upsert_counts_rows_and_keeps_other_columns(
    spark: SparkSession, transported: Settings
) -> None:
    execute_sql(
        transported,
        "INSERT INTO pool_daily_metrics (pool_id, date, forecasted_apy) VALUES ('a',"
        " '2025-08-03', 9)",
    )
    first = upsert_via_staging(
        _frame(spark, ("a", DAY, 1.00004, None), ("b", DAY, -2.5, 10.0)),
        transported,
        pool_daily_metrics,
    )
    assert (first.inserted, first.updated, first.unchanged) == (1, 1, 0)
    second = upsert_via_staging(
        _frame(spark, ("a", DAY, 1.0, None), ("b", DAY, None, 10.0)),
        transported,
        pool_daily_metrics,
    )
    assert (second.inserted, second.updated, second.unchanged) == (0, 1, 1)
    assert _table(transported) == [
        {"pool_id": "a", "date": DAY, "apy": 1.0, "tvl": None, "f": 9.0},
        {"pool_id": "b", "date": DAY, "apy": None, "tvl": 10.0, "f": None},
    ]
    assert _staging_tables(transported) == []


@pytest.fixture(params=["plain", "partitioned"])
def target_kind(request: pytest.FixtureRequest, database: Settings) -> str:
    """`pool_daily_metrics` as it is, and partitioned by halves of 2025."""
    if request.param == "partitioned":
        execute_sql(
            database,
            """
            ALTER TABLE pool_daily_metrics RENAME TO plain_metrics;
            CREATE TABLE pool_daily_metrics (LIKE plain_metrics INCLUDING ALL)
                PARTITION BY RANGE (date);
            CREATE TABLE first_half PARTITION OF pool_daily_metrics
                FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
            CREATE TABLE second_half (note text, LIKE plain_metrics INCLUDING ALL);
            ALTER TABLE second_half DROP COLUMN note;
            ALTER TABLE pool_daily_metrics ATTACH PARTITION second_half
                FOR VALUES FROM ('2025-07-01') TO ('2026-01-01');
            """,
        )
    return str(request.param)


def test_distinguishes_new_changed_and_equal_rows_in_every_partition(
    spark: SparkSession, database: Settings, target_kind: str
) -> None:
    spring = date(2025, 3, 1)
    upsert_via_staging(
        _frame(spark, ("a", DAY, 1.0, None), ("a", spring, 1.0, None), ("b", DAY, 2.0, 5.0)),
        database,
        pool_daily_metrics,
    )
    counts = upsert_via_staging(
        _frame(
            spark,
            ("a", DAY, 1.5, None),
            ("a", spring, 1.5, None),
            ("b", DAY, 2.0, 5.0),
            ("c", DAY, None, None),
            ("c", spring, 3.0, 1.0),
            ("d", spring, 3.0, 1.0),
        ),
        database,
        pool_daily_metrics,
    )
    assert (counts.inserted, counts.updated, counts.unchanged) == (3, 2, 1)


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_rows_dropped_by_a_trigger_fail_the_commit(
    spark: SparkSession, database: Settings, target_kind: str, event: str
) -> None:
    upsert_via_staging(
        _frame(spark, ("a", DAY, 1.0, None), ("dropped", DAY, 1.0, None), ("same", DAY, 1.0, 1.0)),
        database,
        pool_daily_metrics,
    )
    execute_sql(
        database,
        f"""
        CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF new.pool_id LIKE 'dropped%' THEN RETURN NULL; END IF; RETURN new; END $$;
        CREATE TRIGGER drop_row BEFORE {event} ON pool_daily_metrics
            FOR EACH ROW EXECUTE FUNCTION drop_row();
        """,
    )
    before = _table(database)
    dropped = "dropped" if event == "UPDATE" else "dropped too"
    with pytest.raises(CheckFailed) as caught:
        upsert_via_staging(
            _frame(
                spark,
                ("a", DAY, 2.0, None),
                (dropped, DAY, 2.0, None),
                ("new", DAY, 2.0, None),
                ("same", DAY, 1.0, 1.0),
            ),
            database,
            pool_daily_metrics,
        )
    message = str(caught.value)
    assert "pool_daily_metrics did not take 1 of 4 staged rows" in message
    assert f"the first with pool_id {dropped} and date 2025-08-03" in message
    assert "2 inserted or updated, 1 unchanged" in message
    assert _table(database) == before
    (ledger,) = execute_sql(
        database, "SELECT checks FROM yieldspark.run_ledger WHERE status = 'blocked'"
    )
    (failed,) = [entry for entry in ledger["checks"] if not entry["passed"]]
    assert (failed["name"], failed["failing"]) == ("pool_daily_metrics.merged_rows", 1)

    execute_sql(database, "DROP TRIGGER drop_row ON pool_daily_metrics")
    counts = upsert_via_staging(
        _frame(spark, ("a", DAY, 1.0, None), (dropped, DAY, 2.0, None)),
        database,
        pool_daily_metrics,
    )
    assert (counts.inserted + counts.updated, counts.unchanged) == (1, 1)


def test_trigger_that_changes_keys_fails_the_commit(
    spark: SparkSession, database: Settings, target_kind: str
) -> None:
    execute_sql(
        database,
        """
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN new.pool_id := upper(new.pool_id); RETURN new; END $$;
        CREATE TRIGGER shout BEFORE INSERT ON pool_daily_metrics
            FOR EACH ROW EXECUTE FUNCTION shout();
        """,
    )
    rows = _frame(spark, ("a", DAY, 1.0, None), ("B", DAY, 1.0, None))
    with pytest.raises(CheckFailed, match=r"did not take 1 of 2 .* with pool_id a and date"):
        upsert_via_staging(rows, database, pool_daily_metrics)
    assert _table(database) == []


def test_trigger_that_changes_values_is_accepted(
    spark: SparkSession, database: Settings, target_kind: str
) -> None:
    execute_sql(
        database,
        """
        CREATE FUNCTION round_apy() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN new.actual_apy := round(new.actual_apy, 1); RETURN new; END $$;
        CREATE TRIGGER round_apy BEFORE INSERT OR UPDATE ON pool_daily_metrics
            FOR EACH ROW EXECUTE FUNCTION round_apy();
        """,
    )
    rows = _frame(spark, ("a", DAY, 1.25, None), ("b", DAY, 1.5, None))
    first = upsert_via_staging(rows, database, pool_daily_metrics)
    again = upsert_via_staging(rows, database, pool_daily_metrics)
    assert (first.inserted, again.updated, again.unchanged) == (2, 1, 1)


@pytest.mark.parametrize(
    ("rows", "check"),
    [
        ([("a", DAY, 1.0, 1.0), ("a", DAY, 2.0, 1.0)], "unique_key"),
        ([(None, DAY, 1.0, 1.0)], "key_not_null"),
        ([("a", DAY, float("nan"), 1.0)], "finite"),
        ([("a", DAY, 1.0, float("-inf"))], "finite"),
    ],
)
def test_failing_check_writes_nothing(
    spark: SparkSession,
    transported: Settings,
    rows: list[tuple[str, date, float, float]],
    check: str,
) -> None:
    with pytest.raises(CheckFailed, match=check):
        upsert_via_staging(_frame(spark, *rows), transported, pool_daily_metrics)
    assert _table(transported) == []
    assert _staging_tables(transported) == []
    (ledger,) = execute_sql(transported, "SELECT status, checks FROM yieldspark.run_ledger")
    (failed,) = [entry for entry in ledger["checks"] if not entry["passed"]]
    assert (ledger["status"], failed["name"], failed["failing"]) == (
        "blocked",
        f"pool_daily_metrics.{check}",
        1,
    )
    assert failed["sample"][0]["pool_id"] == rows[0][0]


@pytest.mark.parametrize("by_days", [True, False])
def test_counts_rows_beyond_the_first_of_their_key(engine: Engine, by_days: bool) -> None:
    """Counting days as bits gives the same as grouping by all keys."""
    random = Random(7)
    dates = [date(1969, 1, 1) + timedelta(days=random.randrange(900)) for _ in range(700)]
    keys = Counter((random.choice("abc"), day) for day in dates)
    target = (
        TARGET
        if by_days
        else MergeTarget(quarantine, {"source_table": "pool_id", "source_id": "day_text"}, {})
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE staged (pool_id text, date date, value double precision, day_text text)"
        )
        rows: list[dict[str, Any]] = []
        for (pool, day), times in keys.items():
            rows += [{"pool_id": pool, "date": day, "day_text": str(day)}] * times
        rows += [
            {"pool_id": "a", "date": None, "day_text": None},
            {"pool_id": None, "date": DAY, "day_text": str(DAY)},
        ]
        connection.execute(text("INSERT INTO staged VALUES (:pool_id, :date, 1, :day_text)"), rows)
        connection.exec_driver_sql(
            "UPDATE staged SET value = 'NaN' WHERE date = (SELECT min(date) FROM staged)"
        )
        counts = dict(
            connection.exec_driver_sql(staging_facts("staged", target, ["value"])).mappings().one()
        )
    first = min(day for _, day in keys)
    surplus = sum(times - 1 for times in keys.values())
    assert surplus > 20
    assert counts == {
        "unique_key": surplus,
        "key_not_null": 2,
        "finite": sum(times for (_, day), times in keys.items() if day == first),
    }


def test_detects_a_lost_row(spark: SparkSession, database: Settings, engine: Engine) -> None:
    class LosesARow(AdbcTransport):
        def write(
            self,
            frame: DataFrame,
            settings: Settings,
            staging: str,
            transform: ArrowTransform | None = None,
        ) -> int:
            written_rows = super().write(frame, settings, staging, transform)
            execute_sql(settings, f"DELETE FROM {staging} WHERE pool_id = 'b'")
            return written_rows

    rows = _frame(spark, ("a", DAY, 1.0, 1.0), ("b", DAY, 1.0, 1.0))
    with (
        pytest.raises(CheckFailed, match="staged_rows: 1 in staging, 2 sent"),
        open_run(engine, job="upsert", mode="upsert") as run,
    ):
        commit_run(run, database, [StagedFrame(rows, [TARGET])], transport=LosesARow())
    assert _table(database) == []


def test_failure_after_the_merge_rolls_back_everything(
    spark: SparkSession, transported: Settings, engine: Engine
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("the last statement failed")

    with pytest.raises(RuntimeError), open_run(engine, job="upsert", mode="upsert") as run:
        commit_run(
            run,
            transported,
            [StagedFrame(_frame(spark, ("a", DAY, 1.0, 1.0)), [TARGET])],
            in_transaction=fails,
        )
    assert _table(transported) == []
    assert execute_sql(transported, "SELECT status, error FROM yieldspark.run_ledger") == [
        {"status": "failed", "error": "RuntimeError: the last statement failed"}
    ]


def test_interrupt_during_the_last_load_commits_nothing(
    spark: SparkSession, database: Settings, engine: Engine
) -> None:
    """Spark's job was nearly done, so its cancellation had no effect: the merge must not start."""

    class DoneWhenTheSignalComes(AdbcTransport):
        def write(
            self,
            frame: DataFrame,
            settings: Settings,
            staging: str,
            transform: ArrowTransform | None = None,
        ) -> int:
            written_rows = super().write(frame, settings, staging, transform)
            interrupt_inside_the_jvm(spark)
            return written_rows

    def interrupted_while_loading() -> None:
        with interruptible(spark), open_run(engine, job="upsert", mode="upsert") as run:
            commit_run(
                run,
                database,
                [StagedFrame(_frame(spark, ("a", DAY, 1.0, 1.0)), [TARGET])],
                transport=DoneWhenTheSignalComes(),
            )

    with pytest.raises(KeyboardInterrupt):
        interrupted_while_loading()
    assert _table(database) == []
    assert _staging_tables(database) == []
    assert execute_sql(database, "SELECT status FROM yieldspark.run_ledger") == [
        {"status": "cancelled"}
    ]


def test_interrupt_after_the_commit_keeps_the_run(
    spark: SparkSession, database: Settings, engine: Engine
) -> None:
    def interrupted_at_the_end() -> None:
        with interruptible(spark), open_run(engine, job="upsert", mode="upsert") as run:
            commit_run(run, database, [StagedFrame(_frame(spark, ("a", DAY, 1.0, 1.0)), [TARGET])])
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted_at_the_end()
    assert [row["pool_id"] for row in _table(database)] == ["a"]
    assert execute_sql(database, "SELECT status, error FROM yieldspark.run_ledger") == [
        {"status": "succeeded", "error": None}
    ]


def test_two_attempts_of_a_partition_stage_its_rows_once(
    spark: SparkSession, transported: Settings
) -> None:
    """A task is retried after its commit: the driver sees one success, staging two writes."""
    name = f"{OWN_SCHEMA}.staging_retry"
    frame = _frame(spark, ("a", DAY, 1.0, 1.0), ("b", DAY, 2.0, 2.0)).coalesce(1)
    transport = transport_for(transported, transported.write_transport)
    execute_sql(transported, create_staging(name, staging_types(to_arrow_schema(frame.schema))))
    transport.write(frame, transported, name)
    transport.write(frame, transported, name)
    execute_sql(transported, keep_last_attempts(name))
    assert execute_sql(transported, f"SELECT pool_id FROM {name} ORDER BY 1") == [
        {"pool_id": "a"},
        {"pool_id": "b"},
    ]
