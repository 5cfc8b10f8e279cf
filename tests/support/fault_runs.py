"""Processes of a job that a test starts, watches and kills, including the JVM and Python workers.

All processes of a run have the same token in their environment, which finds them after their driver
has ended. Every wait has a deadline. Needs Linux's /proc.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from config_spark import Settings
from tests.support.fault_process import GO, REACHED

PROJECT = Path(__file__).resolve().parents[2]
LAUNCHER = PROJECT / "tests" / "support" / "fault_process.py"

RUN_SECONDS = 300
END_SECONDS = 60
TOKEN = "FAULT_TEST_RUN"

SETTINGS = (
    *(
        "db_host",
        "db_port",
        "db_name",
        "db_user",
        "db_sslmode",
        "yieldspark_home",
        "jars_dir",
        "executor",
        "spark_master",
        "shuffle_partitions",
    ),
    *(
        "read_transport",
        "write_transport",
        "max_fill_days",
        "max_apy_percent",
        "max_tvl_usd",
        "max_price_usd",
    ),
)

SMALL_SPARK = {"spark.sql.adaptive.coalescePartitions.enabled": "false"}
"""Keeps two partitions for few rows."""


def until(condition: Callable[[], Any], description: str, seconds: float = RUN_SECONDS) -> Any:
    """Wait for the first true value of `condition` and return it.

    Raises:
        TimeoutError: names the condition (`description`).
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} s still not: {description}")
        time.sleep(0.05)
    return value


METRICS = "data_processing.calculate_pool_metrics_spark"
FORECAST = "forecasting.forecast_pools_spark"


class JobProcess:
    """One run of a job with at most one fault, in a folder of its own.

    Args:
        database: settings of the run.
        folder: parent of its folder.
        fault: the fault, as `fault_process` reads it.
        spark_conf: Spark configuration.
        job: module of the job.
        more: fields of `database` to pass in addition to SETTINGS.
    """

    def __init__(
        self,
        database: Settings,
        folder: Path,
        *,
        fault: Mapping[str, Any] | None = None,
        spark_conf: Mapping[str, str] | None = None,
        job: str = METRICS,
        more: Sequence[str] = (),
    ) -> None:
        assert database.db_password is not None
        self.token = secrets.token_hex(8)
        self.folder = folder / self.token
        self.folder.mkdir()
        values = {name.upper(): str(getattr(database, name)) for name in (*SETTINGS, *more)}
        values |= {"DB_PASSWORD": database.db_password.get_secret_value(), TOKEN: self.token}
        values["FAULT"] = json.dumps(
            {"job": job, "spark_conf": SMALL_SPARK | dict(spark_conf or {})}
            | dict(fault or {})
            | ({"folder": str(self.folder)} if fault else {})
        )
        with (
            (self.folder / "stdout").open("w") as out,
            (self.folder / "stderr").open("w") as errors,
        ):
            # files, not pipes: an orphan that holds a pipe would keep its reader waiting
            self.process = subprocess.Popen(
                [sys.executable, str(LAUNCHER), "--json"],
                cwd=self.folder,
                env=os.environ | values,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def wait(self, seconds: float = RUN_SECONDS) -> int:
        """Return the exit code when the driver has ended; -9 is SIGKILL."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"the run did not end in {seconds} s; its standard error:\n{self.errors[-3000:]}"
            ) from None

    def result(self) -> dict[str, Any]:
        """Return the ledger row that the run printed."""
        document: dict[str, Any] = json.loads((self.folder / "stdout").read_text())
        return document

    def succeeded(self) -> dict[str, Any]:
        """Wait for success and return the ledger row."""
        assert self.wait() == 0, self.errors
        return self.result()

    def wait_for_fault(self) -> None:
        """Wait until a pausing run has reached its fault."""
        until(
            lambda: (self.folder / REACHED).exists() or self.process.poll() is not None,
            "the run came to the fault's point",
            RUN_SECONDS,
        )
        assert self.process.poll() is None, self.errors

    def resume(self) -> None:
        (self.folder / GO).touch()

    def alive(self, program: str = "") -> list[int]:
        """Return ids of the run's processes (driver, JVM, executors, workers) with `program` in
        their command line.
        """
        return processes_with(self.token, program)

    def assert_all_ended(self) -> None:
        """Wait until every process has ended: a JVM that continues would load rows during the next
        run.
        """
        until(
            lambda: not self.alive(),
            "every process of the run has ended,"
            f" {[_read(pid, 'cmdline')[:80] for pid in self.alive()]}",
            END_SECONDS,
        )

    def kill(self, program: str) -> None:
        """Kill the run's processes that have `program` in their command line."""
        pids = self.alive(program)
        assert pids, f"no process of the run is {program}"
        for pid in pids:
            _kill(pid)

    def end(self) -> None:
        """Kill all remaining processes, by id."""
        for pid in self.alive():
            _kill(pid)
        self.process.wait()


def processes_with(token: str, program: str = "") -> list[int]:
    """Return ids of processes with this token and `program` in their command line."""
    variable = f"{TOKEN}={token}".encode()
    return [
        pid
        for pid in _processes()
        if variable in _read(pid, "environ").split(b"\0")
        and not _is_zombie(pid)
        and program.encode() in _read(pid, "cmdline")
    ]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, signal.SIGKILL)


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        # it has ended meanwhile, or is another user's
        return b""


def _is_zombie(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b") ")[2].startswith(b"Z")
