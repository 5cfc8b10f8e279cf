"""Configuration of a Spark session, without starting one."""

from __future__ import annotations

from pathlib import Path

import pytest

from config_spark import load_settings
from spark.jar_sets import JDBC, SYNAPSEML, jar_files
from spark.session import SHORT_RUN_ROWS, session_conf

QUICK_COMPILER_ALONE = "-XX:TieredStopAtLevel=1"


@pytest.mark.parametrize(
    ("rows_to_read", "is_short"),
    [(0, True), (SHORT_RUN_ROWS, True), (SHORT_RUN_ROWS + 1, False), (None, False)],
)
def test_short_runs_use_only_the_quick_compiler(
    tmp_path: Path, rows_to_read: int | None, is_short: bool
) -> None:
    settings = load_settings(_env_file=None, yieldspark_home=tmp_path)
    options = session_conf(settings, rows_to_read=rows_to_read)["spark.driver.extraJavaOptions"]
    assert (QUICK_COMPILER_ALONE in options) is is_short


@pytest.mark.parametrize(
    ("chosen", "feature_rows", "memory"),
    # 3.6 million rows: a year of 10,000 pools
    [(None, 0, "2048m"), (None, 3_600_000, "4795m"), ("6g", 3_600_000, "6g")],
)
def test_memory_of_the_driver_follows_from_the_rows_of_a_forecast(
    tmp_path: Path, chosen: str | None, feature_rows: int, memory: str
) -> None:
    settings = load_settings(_env_file=None, yieldspark_home=tmp_path, spark_driver_memory=chosen)
    assert session_conf(settings, feature_rows=feature_rows)["spark.driver.memory"] == memory


def test_uses_the_newest_version_of_a_jar(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, yieldspark_home=tmp_path)
    names = ["postgresql-42.7.14.jar", "postgresql-42.7.4.jar", "synapseml-core_2.12-1.1.3.jar"]
    (tmp_path / "jars").mkdir()
    for name in [*names, "synapseml-lightgbm_2.12-1.1.3.jar"]:
        (tmp_path / "jars" / name).touch()
    assert [path.name for path in jar_files(settings, [JDBC])] == [names[0]]
    assert [path.name for path in jar_files(settings, [JDBC, SYNAPSEML])] == [
        names[0],
        names[2],
        "synapseml-lightgbm_2.12-1.1.3.jar",
    ]


def test_keeps_memory_and_options_of_the_platform(tmp_path: Path) -> None:
    settings = load_settings(
        _env_file=None, yieldspark_home=tmp_path, environment="production", db_host="db.example.com"
    )
    assert set(session_conf(settings, rows_to_read=1)) == {
        "spark.sql.session.timeZone",
        "spark.sql.execution.arrow.pyspark.enabled",
        "spark.driver.maxResultSize",
        "spark.sql.maxPlanStringLength",
        "spark.sql.ui.retainedExecutions",
        "spark.ui.retainedJobs",
        "spark.ui.retainedStages",
    }


@pytest.mark.parametrize(
    ("master", "closed"),
    [
        ("local", True),
        ("local[2]", True),
        ("local-cluster[2,1,1024]", False),
        ("spark://other:7077", False),
    ],
)
def test_local_driver_requires_a_secret(master: str, closed: bool, tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, yieldspark_home=tmp_path, spark_master=master)
    assert ("spark.authenticate" in session_conf(settings)) == closed
