"""The class archive that the JVMs of all tests map; created once and kept between runs.

It is in the user's data folder, under the key of `local_runtime.class_data_sharing`: another Java
or jar makes another archive.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from common.settings.paths import default_home
from config_spark import Settings
from local_runtime.class_data_sharing import QUIET_OPTIONS, find_archive
from tests.support.processes import PROJECT, SMALL_RUN

HOME = Path(default_home()) / "tests"

QUICK_COMPILER = "-XX:TieredStopAtLevel=1"
"""As in the jobs' JVMs for few rows; the optimizing compiler costs a tenth of the whole suite."""

RECORDED_RUN = (
    SMALL_RUN
    + """
import pandas as pd
from pyspark.sql import Window, functions as F
from spark.session import get_spark_session

spark = get_spark_session(settings, "the classes of the tests")
rows = spark.createDataFrame(pd.DataFrame({"key": [1, 1, 2], "value": [1.0, 2.0, 3.0]}))
sums = rows.withColumn("total", F.sum("value").over(Window.partitionBy("key").orderBy("value")))
grouped = sums.groupBy("key").applyInPandas(lambda group: group, sums.schema).join(rows, "key")
grouped.groupBy("key").agg(F.max("total")).toPandas()
rows.mapInArrow(lambda batches: batches, rows.schema).rdd.map(tuple).collect()
spark.stop()
class_archive.save_class_archive()
"""
)
"""Uses the same parts of Spark as the jobs, on three rows."""


def mapping_options(jars: Path, *, record: bool) -> str | None:
    """Return JVM options that map the archive; None if there is none.

    Args:
        jars: folder of the jars.
        record: create the archive if it is missing (10 s).
    """
    settings = Settings(yieldspark_home=HOME, jars_dir=jars, db_host=None, environment="local")
    archive = find_archive(settings)
    if archive is not None and archive.classes is None and record:
        _record(jars)
    if archive is None or archive.classes is None:
        return None
    mapped = [f'"{option}"' for option in archive.mapping(archive.classes)]
    return " ".join([QUIET_OPTIONS, *mapped, QUICK_COMPILER])


def _record(jars: Path) -> None:
    foreign = ("SPARK_SUBMIT_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
    variables = {name: value for name, value in os.environ.items() if name not in foreign}
    variables |= {
        "YIELDSPARK_HOME": str(HOME),
        "JARS_DIR": str(jars),
        "PYTHONPATH": str(PROJECT),
        "SPARK_MASTER": "local[1]",
    }
    HOME.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", RECORDED_RUN]
    subprocess.run(command, cwd=HOME, env=variables, capture_output=True, check=True)
