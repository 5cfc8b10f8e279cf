"""Creates Spark sessions: UTC, jars as files, no download at the start.

The database password is not part of the Spark configuration, which the event log shows; transports
pass it to their tasks.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from common import interrupts
from common.errors import ConfigurationError
from common.private_files import make_private, private_folder
from config_spark import Settings
from spark.driver_memory import heap_mib
from spark.event_logs import event_log_conf
from spark.jar_sets import JDBC, JarSet, jar_files, jars_folder
from spark.jvm import is_jvm_running, kill_jvm, log_lost_jvm, start_jvm

# The checkout, or the zip of a submitted job; Python workers need it on their path
CODE_ROOT = Path(__file__).resolve().parents[1]

# Up to this number of rows, the JVM's quick compiler alone is faster: the optimizing one takes
# longer than its code saves
SHORT_RUN_ROWS = 1_000_000

# Characters in a path that Spark takes for a separator of jars or a glob pattern
SPLIT_OR_GLOB = ",:*?[]{}\\"

LOG_LAYOUT = """\
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {path}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yy/MM/dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""


def is_local_spark(settings: Settings) -> bool:
    """Whether Spark runs on this machine: a laptop, or one container with SPARK_MASTER=local[*]."""
    return settings.environment == "local" or (settings.spark_master or "").startswith("local")


def get_spark_session(
    settings: Settings,
    app_name: str,
    *,
    jar_sets: Sequence[JarSet] = (JDBC,),
    rows_to_read: int | None = None,
    feature_rows: int = 0,
    extra_conf: Mapping[str, str] | None = None,
) -> SparkSession:
    """Return a session in UTC; an existing one is reused.

    Args:
        settings: master, memory and folders. On a platform that sets the master, its jars, memory
            and shuffle partitions are kept.
        app_name: name of the application.
        jar_sets: jars on the class path; a later call cannot add any.
        rows_to_read: number of rows that the job will read, None if unknown. A JVM for few rows
            starts faster and computes slower.
        feature_rows: rows of a forecast that the driver holds; its memory follows from them.
        extra_conf: Spark configuration that overrides the defaults.

    Raises:
        ConfigurationError: Spark cannot read jars from the jars folder.
        EnvironmentNotReady: Java ends before the session starts.
    """
    conf = session_conf(
        settings, jar_sets, rows_to_read=rows_to_read, feature_rows=feature_rows
    ) | dict(extra_conf or {})
    if is_local_spark(settings):
        # PySpark reads the interpreter of workers from this variable only, and `python3` on PATH
        # may not have the packages
        os.environ["PYSPARK_PYTHON"] = sys.executable
        # inherited by the JVM: on busy cores LightGBM's OpenMP threads would spin for minutes
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    log_lost_jvm()
    if settings.environment == "local" and not is_jvm_running():
        start_jvm(conf, settings.yieldspark_home / "logs" / "java.log")
    builder = SparkSession.builder.appName(app_name)
    for key, value in conf.items():
        builder = builder.config(key, value)
    handler = signal.getsignal(signal.SIGINT)
    session = builder.getOrCreate()
    if threading.current_thread() is threading.main_thread():
        # PySpark's handler calls the JVM inside the call that it interrupts
        signal.signal(signal.SIGINT, handler)
    return session


def session_conf(
    settings: Settings,
    jar_sets: Sequence[JarSet] = (JDBC,),
    *,
    rows_to_read: int | None = None,
    feature_rows: int = 0,
) -> dict[str, str]:
    """Return the Spark configuration of `get_spark_session`."""
    conf = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # the native engine collects feature rows of 400 bytes: a year of 20,000 pools exceeds
        # Spark's limit of 1 GB
        "spark.driver.maxResultSize": "0",
        # history of queries with their plans: two hundred model fits on wide rows filled the
        # driver's memory
        "spark.sql.maxPlanStringLength": "20000",
        "spark.sql.ui.retainedExecutions": "20",
        "spark.ui.retainedJobs": "100",
        "spark.ui.retainedStages": "100",
    }
    if is_local_spark(settings):
        is_short = rows_to_read is not None and rows_to_read <= SHORT_RUN_ROWS
        conf |= _local_conf(settings, jar_sets, is_short=is_short, feature_rows=feature_rows)
    return conf


def stop_session(spark: SparkSession) -> None:
    """Stop the session. If its JVM has ended, do nothing: that error is reported elsewhere."""
    with suppress(Py4JError, OSError):
        spark.stop()


def _property(path: Path) -> str:
    """Escape a path for a Java properties file (java.util.Properties.load)."""
    escaped = str(path).replace("\\", "\\\\")
    units = escaped.encode("utf-16-be")
    codes = [int.from_bytes(units[index : index + 2], "big") for index in range(0, len(units), 2)]
    return "".join(chr(code) if code < 127 else f"\\u{code:04x}" for code in codes)


@cache
def temporary_folder() -> str:
    """Return this process's folder for shuffles, spills and data for workers. It is deleted at
    exit.
    """
    # all accounts may read Spark's own block folders; `mkdtemp` creates a private one
    parent = tempfile.gettempdir()
    folder = tempfile.mkdtemp(
        prefix="yieldspark-spark-",
        # Spark splits `spark.local.dir` at commas
        dir="/tmp" if "," in parent else parent,
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _clean_up() -> None:
    kill_jvm()
    if temporary_folder.cache_info().currsize:
        shutil.rmtree(temporary_folder(), ignore_errors=True)


interrupts.before_forced_exit(_clean_up)


def _jar_list(settings: Settings, jar_sets: Sequence[JarSet]) -> str:
    """Return the value of `spark.jars`."""
    folder = jars_folder(settings).resolve()
    special = sorted(set(SPLIT_OR_GLOB) & set(str(folder)))
    if special:
        raise ConfigurationError(
            f"the jars are in {folder}, and Spark can't read jars from a path with"
            f" {' '.join(special)}; set JARS_DIR or YIELDSPARK_HOME to a folder without them"
        )
    files = jar_files(settings, jar_sets)
    return ",".join(path.resolve().as_uri() for path in files)


def authentication_conf(master: str) -> dict[str, str]:
    """Return the configuration that makes the driver's port ask for a secret.

    All accounts of the machine can reach that port on loopback, and it deserializes Java objects. A
    local master generates the secret; a cluster has to be given one.
    """
    is_one_process = master == "local" or master.startswith("local[")
    return {"spark.authenticate": "true"} if is_one_process else {}


def _local_conf(
    settings: Settings, jar_sets: Sequence[JarSet], *, is_short: bool, feature_rows: int
) -> dict[str, str]:
    logs = private_folder(settings.yieldspark_home / "logs")
    # Java would create it with rights for all accounts
    make_private(logs / "spark.log")
    layout = logs / "log4j2.properties"
    layout.write_text(LOG_LAYOUT.format(path=_property(logs / "spark.log")), encoding="ascii")
    java_options = (
        # Spark 3.5 converts JDBC dates in the JVM's time zone, not in the session's. In a Turkish
        # locale the upper case of `i` is not `I`, and Spark does not find its own names.
        "-Duser.timezone=UTC -Duser.language=en -Duser.country=US"
        f" -Dlog4j2.configurationFile={layout.resolve().as_uri()} -XX:+UseParallelGC"
    )
    if is_short:
        java_options += " -XX:TieredStopAtLevel=1"
    return {
        "spark.master": settings.spark_master or "local[*]",
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.driver.memory": settings.spark_driver_memory or f"{heap_mib(feature_rows)}m",
        "spark.local.dir": temporary_folder(),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": java_options,
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(
            [str(CODE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "spark.executorEnv.OMP_WAIT_POLICY": "PASSIVE",
        "spark.jars": _jar_list(settings, jar_sets),
        "spark.sql.warehouse.dir": str(settings.yieldspark_home / "spark-warehouse"),
        "spark.ui.enabled": "false",
        **authentication_conf(settings.spark_master or "local[*]"),
        **event_log_conf(settings),
        "spark.ui.showConsoleProgress": "false",
    }
