"""A Spark cluster on this machine whose two workers have different addresses.

Spark starts a speculative copy of a task on another host only, and the workers of `local-cluster`
share one. Needs Linux, where all of 127.0.0.0/8 is local.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pyspark

from local_runtime.java import find_java
from tests.support.fault_runs import until

HOSTS = ("127.0.0.2", "127.0.0.3")
SPARK_HOME = Path(pyspark.__file__).parent

EAGER_SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.0",
    "spark.speculation.minTaskRuntime": "100ms",
}


@contextmanager
def cluster_of_two_hosts(folder: Path) -> Iterator[str]:
    """Yield the URL of the master; each host has a worker with one core. All processes end with the
    block.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = int(free.getsockname()[1])
    url = f"spark://127.0.0.1:{port}"
    master = ["master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    worker = ["--cores", "1", "--memory", "1g", "--webui-port", "0"]
    workers = [
        ["worker.Worker", "--host", host, *worker, "--work-dir", str(folder / host), url]
        for host in HOSTS
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_daemon(master, folder / "master.log"))
        until(lambda: _listens(port), "the Spark master listens")
        started += [_daemon(arguments, folder / f"{arguments[2]}.log") for arguments in workers]
        until(
            lambda: (folder / "master.log").read_text().count("Registering worker") == len(HOSTS),
            "both workers are registered",
        )
        yield url
    finally:
        for process in reversed(started):
            # a worker that is asked to end takes its executors with it
            process.terminate()
            process.wait(30)


def _daemon(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    command = [
        str(SPARK_HOME / "bin" / "spark-class"),
        f"org.apache.spark.deploy.{arguments[0]}",
        *arguments[1:],
    ]
    with log.open("wb") as output:
        environment = os.environ | {"SPARK_HOME": str(SPARK_HOME), "JAVA_HOME": str(find_java())}
        return subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
