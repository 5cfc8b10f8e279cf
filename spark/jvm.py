"""The JVM of this process: starts, watches and ends it.

PySpark keeps one JVM for a process, also when a session is stopped.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pyspark import SparkConf, SparkContext, java_gateway
from pyspark.accumulators import AccumulatorServer
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway

from common.errors import EnvironmentNotReady
from common.private_files import private_opener

log = logging.getLogger(__name__)

STACK_FRAME = ("at ", "... ")
ERROR_WORD = re.compile("error|exception|invalid|unrecognized", re.IGNORECASE)


def is_jvm_running() -> bool:
    """Whether this process has started its JVM, which outlives its sessions."""
    return SparkContext._gateway is not None


def jvm_exit_code() -> int | None:
    """Return the exit code of this process's JVM; None while it runs, and on a cluster."""
    process = getattr(SparkContext._gateway, "proc", None)
    return None if process is None else process.poll()


class _JvmProcess(subprocess.Popen[bytes]):
    """Process of a JVM. PySpark starts no other processes with this class."""

    newest: ClassVar[_JvmProcess | None] = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _JvmProcess.newest = self


def kill_jvm() -> bool:
    """Kill the JVM that `start_jvm` started last; returns whether it started one."""
    if _JvmProcess.newest is None:
        return False
    _JvmProcess.newest.kill()
    return True


def end_jvm(timeout_seconds: float) -> int | None:
    """End this process's JVM, whose session is stopped, and wait for its exit handlers.

    Without this, PySpark reuses the JVM for the next session.

    Args:
        timeout_seconds: time until the JVM is killed.

    Returns:
        Its exit code, None if it was killed.
    """
    gateway = SparkContext._gateway
    assert gateway is not None, "no JVM was started"
    # cleared first, as in PySpark's own tests: PySpark takes a remaining gateway for a running JVM
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


def start_jvm(conf: Mapping[str, str], log_file: Path) -> None:
    """Start this process's JVM.

    Args:
        conf: Spark configuration; memory and class path are options of the JVM.
        log_file: gets the output of Java.

    Raises:
        EnvironmentNotReady: Java ended at once; with its message.
    """
    # PySpark loses a process whose start is interrupted, and that JVM would never end
    java_gateway.Popen = _JvmProcess  # type: ignore[assignment, attr-defined]
    with open(log_file, "ab", opener=private_opener) as stream:
        offset = stream.tell()
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
            output = log_file.read_bytes()[offset:].decode(errors="replace")
            raise EnvironmentNotReady(
                f"Java ended before Spark started: {_java_error(output) or 'no message'} (in"
                f" {log_file}). Check JAVA_HOME, SPARK_DRIVER_MEMORY, and Java's own variables"
                " JAVA_TOOL_OPTIONS, _JAVA_OPTIONS and JDK_JAVA_OPTIONS"
            ) from error


def _java_error(output: str) -> str:
    """Return the first two lines of a Java error, without its stack trace."""
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    messages = [line for line in lines if not line.startswith(STACK_FRAME)]
    first = next((i for i, line in enumerate(messages) if ERROR_WORD.search(line)), -1)
    return " ".join(messages[first:][:2])


def log_lost_jvm() -> None:
    """Log that the JVM has ended, where PySpark would print a traceback."""
    # the thread of AccumulatorServer prints it; the call that waits for the JVM raises the same
    # error already
    AccumulatorServer.handle_error = _log_lost_connection  # type: ignore[method-assign, assignment]


def _log_lost_connection(_server: AccumulatorServer, _request: object, _address: object) -> None:
    log.debug("the JVM closed the accumulator connection", exc_info=True)
