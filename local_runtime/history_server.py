"""Runs Spark's own history server on a folder of event logs, on loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from common.errors import EnvironmentNotReady
from local_runtime.jars import pyspark_folder
from local_runtime.java import find_java

HOST = "127.0.0.1"
CLASS = "org.apache.spark.deploy.history.HistoryServer"
APPLICATIONS = "/api/v1/applications"
START_SECONDS, END_SECONDS = 120.0, 10.0
POLL_SECONDS = 0.2
MEMORY = "512m"
ERROR_WORD = re.compile("error|exception|invalid|unrecognized", re.IGNORECASE)


@contextmanager
def history_server(logs: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the logs while the block runs; it begins once the server answers.

    Args:
        logs: folder of event logs.
        port: TCP port on loopback.

    Yields:
        The server's process.

    Raises:
        EnvironmentNotReady: there is no Java, the port is in use, or the server ends at once or
            does not answer in time.
    """
    _require_free_port(port)
    # its classes are in Spark's jars, like those of a session
    command = [str(find_java() / "bin" / "java"), "-cp", f"{pyspark_folder() / 'jars'}/*"]
    command += [f"-Xmx{MEMORY}", "-Duser.timezone=UTC", *_properties(logs, port), CLASS]
    # Spark binds its web pages to this address, by default to all
    environment = os.environ | {"SPARK_LOCAL_IP": HOST}
    with TemporaryDirectory(prefix="yieldspark-history-") as folder:
        output = Path(folder) / "output"
        with output.open("wb") as stream:
            server = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Ctrl-C ends the command, which ends the server
                start_new_session=True,
            )
        try:
            _wait_until_it_answers(server, port, output)
            yield server
        finally:
            _end(server)


def _properties(logs: Path, port: int) -> list[str]:
    values = {
        "spark.history.fs.logDirectory": logs.resolve().as_uri(),
        "spark.history.ui.port": port,
        # another port than the one that is printed would be found by nobody
        "spark.port.maxRetries": 0,
        "spark.history.fs.update.interval": "5s",
    }
    return [f"-D{name}={value}" for name, value in values.items()]


def _require_free_port(port: int) -> None:
    """Raise EnvironmentNotReady if a program listens at the port: its answers are not ours."""
    with socket.socket() as probe:
        # as Java does: a port of a server that has just ended is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EnvironmentNotReady(
                f"can't listen at {HOST}, port {port}: {error.strerror}; give another --port"
            ) from None


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if server.poll() is not None:
            text = output.read_text(encoding="utf-8", errors="replace")
            errors = [line.strip() for line in text.splitlines() if ERROR_WORD.search(line)]
            raise EnvironmentNotReady(
                f"Spark's history server ended with exit code {server.returncode}:"
                f" {(errors or ['no message'])[0]}. Check JAVA_HOME, and Java's own variables"
                " JAVA_TOOL_OPTIONS, _JAVA_OPTIONS and JDK_JAVA_OPTIONS"
            )
        if time.monotonic() > deadline:
            raise EnvironmentNotReady(
                f"Spark's history server does not answer after {START_SECONDS:.0f} s; try again"
            )
        time.sleep(POLL_SECONDS)


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=START_SECONDS)
    try:
        connection.request("GET", APPLICATIONS)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
