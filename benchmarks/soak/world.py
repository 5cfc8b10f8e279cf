"""The emulated project of a soak: workflow, batches, Cloud Monitoring and database on one clock."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from benchmarks.databases import temporary_server
from benchmarks.processes import PASSIVE_THREADS, PROJECT
from benchmarks.soak.clock import SoakClock, create_database, set_server_clock
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.schema.migrate import migrate
from emulator.local.local_cloud import LOCAL_BATCH, LocalCloud, Rehearsal, local_cloud
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.cut_proxy import CutProxy, cut_proxy
from workflows.clients.executions import ExecutionNotSucceeded, Executions, wait_for_execution
from workflows.releases.release import publish

DATABASE = "soak"
ENGINE = "lightgbm"

SPEED_UP = 50.0
"""Divisor of the workflow's waits."""

SECONDS_BETWEEN = 0.1

QUICK_MODEL = {"TRAIN_DAYS": "60", "MODEL_THREADS": "2"}
MODEL_PARAMETERS = {"parameters": {"rounds": 50, "learning_rate": 0.2}}
"""Settings of a model that is fitted in seconds."""


@dataclass(frozen=True)
class LogEntry:
    """A log entry of the workflow and its time on the soak's clock."""

    at: datetime
    entry: Mapping[str, Any]


@dataclass(frozen=True)
class Execution:
    """An ended execution of the workflow.

    Attributes:
        name: its id.
        state: its state.
        error: message of its error.
        skipped: another execution was running.
        ended: end, on the soak's clock.
    """

    name: str
    state: str
    error: str
    skipped: bool
    ended: datetime

    @property
    def outcome(self) -> str:
        """Return `succeeded`, `failed` or `skipped`."""
        return "skipped" if self.skipped else self.state.lower()

    @property
    def failed(self) -> bool:
        return self.state != "SUCCEEDED" and not self.skipped


@dataclass
class World:
    """What the nights work with.

    Attributes:
        clock: clock of jobs and services.
        settings: the jobs' database, without the proxy.
        engine: engine of `settings`.
        proxy: the jobs' way to the database.
        variables: further variables of the jobs, as a fault sets them.
        log: entries of the workflow.
        least_billed_seconds: duration that Dataproc bills at least for a batch.
        execution: id of the night's first execution.
        fault_applied: the night's fault has met its run; False if that was over before.
        folder: files of the soak.
    """

    clock: SoakClock
    settings: Settings
    engine: Engine
    proxy: CutProxy
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    log: list[LogEntry] = field(default_factory=list)
    least_billed_seconds: float = LOCAL_BATCH.least_billed_seconds
    execution: str = ""
    fault_applied: bool = True
    _cloud: LocalCloud | None = None
    _executions: Executions | None = None
    _base: dict[str, str] = field(default_factory=dict)

    @property
    def cloud(self) -> LocalCloud:
        assert self._cloud is not None, "it is set before the first night"
        return self._cloud

    def set_clock(self, moment: datetime, server_skew_seconds: float = 0.0) -> None:
        """Move the clock of the jobs, the services and the database.

        Args:
            moment: the time, UTC.
            server_skew_seconds: what is added to the database's clock alone.
        """
        self.clock.set(moment)
        shift = self.clock.shift_seconds + round(server_skew_seconds)
        set_server_clock(self.settings, DATABASE, shift)
        # sessions keep the clock that they began with
        self.engine.dispose()

    def job_variables(self) -> Mapping[str, str]:
        """Return the variables of a job that starts now."""
        return {**self._base, **self.clock.variables(), **self.variables}

    def batch_script(self, batch_id: str) -> BatchScript:
        """Return the behaviour of a batch that starts now."""
        del batch_id
        return replace(LOCAL_BATCH, least_billed_seconds=self.least_billed_seconds)

    def price(self, day: date) -> str:
        """Write the costs of a day as the daily schedule does; return the error, if any."""
        ended = subprocess.run(
            [sys.executable, "-m", "workflows", "cost", "--day", str(day)],
            cwd=PROJECT,
            env={**self.cloud.environment(), **self.clock.variables()},
            capture_output=True,
            text=True,
        )
        return ended.stderr if ended.returncode else ""

    def start(self, **argument: Any) -> str:
        """Start an execution as the schedule does; return its name."""
        assert self._executions is not None
        started = self._executions.start({"engine": ENGINE, **argument})
        self.execution = self.execution or started["name"].rpartition("/")[2]
        return str(started["name"])

    def wait(self, name: str) -> Execution:
        """Wait until an execution has ended."""
        assert self._executions is not None
        state, error, skipped = "SUCCEEDED", "", False
        try:
            wait_for_execution(self._executions, name, lambda _: None, SECONDS_BETWEEN)
        except ExecutionNotSucceeded as failure:
            state, error = "FAILED", str(failure)
            raised = failure.raised
            skipped = isinstance(raised, dict) and raised.get("state") == "SKIPPED"
        return Execution(name.rpartition("/")[2], state, error, skipped, self.clock.now())

    def record(self, entry: Mapping[str, Any]) -> None:
        """Keep a log entry of the workflow."""
        self.log.append(LogEntry(self.clock.now(), entry))


@contextmanager
def soak_world(first: datetime) -> Iterator[World]:
    """Create the project with an empty migrated database and a release of the working tree.

    Args:
        first: first moment on the soak's clock, UTC.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yieldspark-soak-")))
        # the batches' account passes through it
        folder.chmod(0o711)
        server = stack.enter_context(temporary_server())
        settings = create_database(server, DATABASE)
        clock = SoakClock(first)
        assert settings.db_host is not None
        proxy = stack.enter_context(cut_proxy(settings.db_host, settings.db_port))
        world = World(clock, settings, make_engine(settings), proxy, folder)
        parameters = folder / "model_parameters.json"
        parameters.write_text(json.dumps(MODEL_PARAMETERS), encoding="utf-8")
        world._base = {
            **QUICK_MODEL,
            "MODEL_PARAMETERS_FILE": str(parameters),
            **PASSIVE_THREADS,
            "EXECUTOR": "inprocess",
        }
        world.set_clock(first)
        migrate(world.engine)
        jobs_settings = settings.model_copy(
            update={"db_port": proxy.port, "yieldspark_home": folder / "home"}
        )
        rehearsal = Rehearsal(
            clock.seconds, world.job_variables, world.record, SPEED_UP, world.batch_script
        )
        world._cloud = stack.enter_context(local_cloud(jobs_settings, rehearsal=rehearsal))
        operator = load_settings(
            _env_file=None,
            yieldspark_home=jobs_settings.yieldspark_home,
            jars_dir=settings.jars_dir,
            **{name.lower(): value for name, value in world.cloud.variables.items()},
        )
        publish(operator, allow_dirty=True, say=lambda _: None)
        world._executions = Executions(operator)
        yield world
        world.engine.dispose()
