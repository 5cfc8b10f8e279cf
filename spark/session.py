"""The one place that makes a Spark session: UTC everywhere, jars as files, nothing resolved at
start.

The password never enters the Spark configuration (it would show in the event log); transports hand
it to their tasks.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext, java_gateway
from pyspark.accumulators import AccumulatorServer
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from common import interrupts
from common.errors import ConfigurationError, EnvironmentNotReady
from common.private_files import make_private, private_folder, private_opener
from config_spark import Settings

log = logging.getLogger(__name__)

CODE_ROOT = Path(__file__).resolve().parents[1]
"""The checkout, or the zip a job was submitted with: what Python workers need on their path."""

JDBC_JAR = "postgresql-*.jar"
SYNAPSEML_JARS = ("synapseml-*.jar", "lightgbmlib-*.jar", "spray-json_*.jar")

SHORT_RUN_ROWS = 1_000_000
"""Up to this many rows to read, the JVM's quick compiler alone is faster than both: the thorough
one takes longer than its code saves.
"""

STACK_FRAME = ("at ", "... ")
FAULT = re.compile("error|exception|invalid|unrecognized", re.IGNORECASE)

SPLIT_OR_GLOB = ",:*?[]{}\\"
"""Spark splits its list of jars at commas and takes each for a glob pattern of Hadoop."""

LOG_LAYOUT = """\
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {path}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yy/MM/dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""


def runs_here(settings: Settings) -> bool:
    """Whether Spark runs on this machine: on a laptop, or in one container of the platform with
    SPARK_MASTER=local[*].
    """
    return settings.environment == "local" or (settings.spark_master or "").startswith("local")


def jars_folder(settings: Settings) -> Path:
    return settings.jars_dir or settings.yieldspark_home / "jars"


def jar_files(settings: Settings, *, synapseml: bool) -> list[Path]:
    """PostgreSQL's JDBC driver, and with `synapseml` the four LightGBM jars too; fewer where they
    are not there.
    """
    folder = jars_folder(settings)
    patterns = (JDBC_JAR, *(SYNAPSEML_JARS if synapseml else ()))
    newest = {}
    for path in sorted(
        (path for pattern in patterns for path in folder.glob(pattern)), key=_version_of
    ):
        newest[path.name.rpartition("-")[0]] = path
    return sorted(newest.values())


def _version_of(jar: Path) -> list[int]:
    """The numbers after the last dash. An earlier release leaves its jar beside a newer one."""
    return [int(number) for number in re.findall(r"\d+", jar.stem.rpartition("-")[2])]


def has_jdbc_jar(settings: Settings) -> bool:
    return any(jars_folder(settings).glob(JDBC_JAR))


def get_spark_session(
    settings: Settings,
    app_name: str,
    *,
    synapseml: bool = False,
    rows_to_read: int | None = None,
    extra_conf: Mapping[str, str] | None = None,
) -> SparkSession:
    """A session in UTC with the settings' master; an existing one is reused.

    Args: synapseml puts the LightGBM jars on the class path, which a later call cannot do.
    rows_to_read is the plan's, None for not known: a JVM for few rows starts faster and works
    slower. extra_conf wins over the defaults. Where the platform gives the master, it has set jars,
    memory and shuffle partitions too, and they stay as they are.
    """
    conf = session_conf(settings, synapseml=synapseml, rows_to_read=rows_to_read) | dict(
        extra_conf or {}
    )
    if runs_here(settings):
        # PySpark takes its workers' interpreter from this variable alone, and python3 on PATH knows
        # none of our packages
        os.environ["PYSPARK_PYTHON"] = sys.executable
        # the JVM inherits it: on busy cores the OpenMP threads of LightGBM spin for minutes
        # otherwise
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # the thread behind it prints a traceback when the JVM goes away; who waits for the JVM says it
    # in a sentence
    AccumulatorServer.handle_error = _log_lost_jvm  # type: ignore[method-assign, assignment]
    if settings.environment == "local" and not jvm_runs():
        _start_jvm(conf, settings.yieldspark_home / "logs" / "java.log")
    builder = SparkSession.builder.appName(app_name)
    for key, value in conf.items():
        builder = builder.config(key, value)
    handler = signal.getsignal(signal.SIGINT)
    session = builder.getOrCreate()
    if threading.current_thread() is threading.main_thread():
        # PySpark's own calls the JVM from inside the call that it interrupts
        signal.signal(signal.SIGINT, handler)
    return session


def session_conf(
    settings: Settings, *, synapseml: bool = False, rows_to_read: int | None = None
) -> dict[str, str]:
    """What `get_spark_session` asks Spark for."""
    conf = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # the native engine collects its feature rows, 400 bytes each: a year of 20,000 pools is
        # beyond Spark's limit of 1 GB
        "spark.driver.maxResultSize": "0",
        # what Spark keeps of past queries, each with its plan in words: two hundred fits on wide
        # rows filled the driver's memory with it
        "spark.sql.maxPlanStringLength": "20000",
        "spark.sql.ui.retainedExecutions": "20",
        "spark.ui.retainedJobs": "100",
        "spark.ui.retainedStages": "100",
    }
    if runs_here(settings):
        conf |= _laptop_conf(
            settings,
            synapseml=synapseml,
            short=rows_to_read is not None and rows_to_read <= SHORT_RUN_ROWS,
        )
    return conf


def jvm_runs() -> bool:
    """Whether this process has started its JVM; it outlives the sessions in it."""
    return SparkContext._gateway is not None


def jvm_exit_code() -> int | None:
    """How this process's JVM ended; None while it runs, and where it is not this process's own (on
    a cluster).
    """
    process = getattr(SparkContext._gateway, "proc", None)
    return None if process is None else process.poll()


def stop_session(spark: SparkSession) -> None:
    """Stop it. Where its JVM is gone there is nothing to stop, and what ended it is the error to
    tell.
    """
    with suppress(Py4JError, OSError):
        spark.stop()


class _JvmProcess(subprocess.Popen[bytes]):
    """The process of a JVM that is starting or runs; PySpark starts no other that way."""

    newest: ClassVar[_JvmProcess | None] = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _JvmProcess.newest = self


def kill_jvm() -> bool:
    """End the JVM that this process has started at once; returns whether there is one."""
    if _JvmProcess.newest is None:
        return False
    _JvmProcess.newest.kill()
    return True


def end_jvm(timeout_seconds: float) -> int | None:
    """End this process's JVM, whose session is stopped, and wait for what it does at its end.

    Returns: its exit code, None where it had to be killed. The next session gets a new JVM; without
    this, PySpark keeps the old one for it.
    """
    gateway = SparkContext._gateway
    assert gateway is not None, "no JVM was started"
    # the order of PySpark's own tests: what is left of the old gateway would be taken for a running
    # one
    SparkContext._gateway = SparkContext._jvm = None
    gateway.shutdown()
    process: subprocess.Popen[bytes] = gateway.proc
    assert process.stdin is not None, "the JVM lives as long as this pipe"
    process.stdin.close()
    try:
        return process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _start_jvm(conf: Mapping[str, str], log_file: Path) -> None:
    """Start this process's JVM, and append what it prints to the file.

    Raises: EnvironmentNotReady with the JVM's last line where it ends at once.
    """
    # PySpark forgets a process whose start is interrupted, and such a JVM would stay for ever
    java_gateway.Popen = _JvmProcess  # type: ignore[assignment, attr-defined]
    with open(log_file, "ab", opener=private_opener) as stream:
        begin = stream.tell()
        try:
            SparkContext._ensure_initialized(
                gateway=launch_gateway(  # type: ignore[no-untyped-call]
                    SparkConf(loadDefaults=False).setAll(list(conf.items())),
                    {"stdout": stream, "stderr": stream},
                )
            )
        except KeyboardInterrupt:
            kill_jvm()
            raise
        except PySparkRuntimeError as error:
            printed = log_file.read_bytes()[begin:].decode(errors="replace").split("\n")
            lines = [line.strip() for line in printed if line.strip()]
            causes = [line for line in lines if not line.startswith(STACK_FRAME)]
            first = next((i for i, line in enumerate(causes) if FAULT.search(line)), -1)
            raise EnvironmentNotReady(
                f"Java ended before Spark began, and {log_file} says:"
                f" {' '.join(causes[first:][:2]) or 'nothing'}. Look at JAVA_HOME,"
                " SPARK_DRIVER_MEMORY, and Java's own variables JAVA_TOOL_OPTIONS, _JAVA_OPTIONS"
                " and JDK_JAVA_OPTIONS"
            ) from error


def _log_lost_jvm(_server: AccumulatorServer, _request: object, _address: object) -> None:
    log.debug("the JVM left the connection of its accumulators", exc_info=True)


def _property(path: Path) -> str:
    """The path as a value of a Java properties file (java.util.Properties.load)."""
    escaped = str(path).replace("\\", "\\\\")
    units = escaped.encode("utf-16-be")
    codes = [int.from_bytes(units[place : place + 2], "big") for place in range(0, len(units), 2)]
    return "".join(chr(code) if code < 127 else f"\\u{code:04x}" for code in codes)


@cache
def temporary_folder() -> str:
    """This process's folder for what Spark shuffles, spills and sends to its workers, deleted when
    the process ends. Spark's own folders of blocks can be read by everybody.
    """
    usual = tempfile.gettempdir()
    folder = tempfile.mkdtemp(
        prefix="yieldspark-spark-",
        # Spark takes a comma for the end of a folder's name
        dir="/tmp" if "," in usual else usual,
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _clear_at_once() -> None:
    kill_jvm()
    if temporary_folder.cache_info().currsize:
        shutil.rmtree(temporary_folder(), ignore_errors=True)


interrupts.at_the_end(_clear_at_once)


def _jar_list(settings: Settings, *, synapseml: bool) -> str:
    """Raises: ConfigurationError for a folder whose name Spark would take apart."""
    folder = jars_folder(settings).resolve()
    taken_apart = sorted(set(SPLIT_OR_GLOB) & set(str(folder)))
    if taken_apart:
        raise ConfigurationError(
            f"the jars are in {folder}, and Spark can't read jars from a path with"
            f" {' '.join(taken_apart)}; set JARS_DIR or YIELDSPARK_HOME to a folder without them"
        )
    files = jar_files(settings, synapseml=synapseml)
    return ",".join(path.resolve().as_uri() for path in files)


def closed_ports(master: str) -> dict[str, str]:
    """Any account of this machine reaches the driver's port on loopback, which reads Java's objects
    and gives blocks of data: a secret is asked for first. With a local master Spark makes it
    itself; a cluster has to be given one. The jars stay open to everyone.
    """
    is_one_process = master == "local" or master.startswith("local[")
    return {"spark.authenticate": "true"} if is_one_process else {}


def _laptop_conf(settings: Settings, *, synapseml: bool, short: bool) -> dict[str, str]:
    logs = private_folder(settings.yieldspark_home / "logs")
    # Java makes files that everybody may read
    make_private(logs / "spark.log")
    layout = logs / "log4j2.properties"
    layout.write_text(LOG_LAYOUT.format(path=_property(logs / "spark.log")), encoding="ascii")
    # Spark 3.5 maps JDBC dates through the JVM's own zone, whatever the session's is.
    java_options = (
        # in Turkish, Java's upper case of `i` is no `I`, and Spark's own names are not found
        "-Duser.timezone=UTC -Duser.language=en -Duser.country=US"
        f" -Dlog4j2.configurationFile={layout.resolve().as_uri()} -XX:+UseParallelGC"
    )
    if short:
        java_options += " -XX:TieredStopAtLevel=1"
    return {
        "spark.master": settings.spark_master or "local[*]",
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.local.dir": temporary_folder(),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": java_options,
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(
            [str(CODE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "spark.executorEnv.OMP_WAIT_POLICY": "PASSIVE",
        "spark.jars": _jar_list(settings, synapseml=synapseml),
        "spark.sql.warehouse.dir": str(settings.yieldspark_home / "spark-warehouse"),
        "spark.ui.enabled": "false",
        **closed_ports(settings.spark_master or "local[*]"),
        "spark.ui.showConsoleProgress": "false",
    }
