"""The faults of a soak's nights: what is broken while an execution runs, and how it must end."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from benchmarks.soak.world import World
from common.errors import DatabaseError
from common.jobs import CALCULATE_METRICS, JOBS, JobSpec
from emulator.local.local_cloud import LOCAL_BATCH

WATCH_SECONDS = 0.02
SERVER_SKEWS = (-5.0, -2 * 3600.0, -26 * 3600.0)
"""Seconds that the database's clock is behind; the last is before the previous night's run."""

SLOW_SECONDS = 0.004
"""Delay of each 4 kB between the jobs and the database."""

COSTLY_SECONDS = 2 * 3600.0
"""Billed duration of a batch that then costs more than 1 USD, and six of them less than 20."""

MOST_BYTES = 20_000
"""A connection is cut before so many bytes have gone to the server since the run began."""

Outcome = Literal["succeeds", "fails", "either"]


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: its name in the table.
        outcome: how the execution must end.
        apply: breaks something while the block runs.
        deliveries: executions that the schedule's request starts.
        skews_server: the database's clock is behind.
        is_costly: its batches cost more than the budget of a run.
    """

    name: str
    outcome: Outcome
    apply: Callable[[World, random.Random], AbstractContextManager[None]]
    deliveries: int = 1
    skews_server: bool = False
    is_costly: bool = False


def _nothing(world: World, draw: random.Random) -> AbstractContextManager[None]:
    del world, draw
    return nullcontext()


@contextmanager
def _killed_driver(world: World, draw: random.Random) -> Iterator[None]:
    job = draw.choice(JOBS)
    with _when_running(world, job, lambda: _kill(job, "python", world.execution)):
        yield


@contextmanager
def _killed_jvm(world: World, draw: random.Random) -> Iterator[None]:
    """Kill the JVM of a metrics batch that computes with Spark."""
    del draw
    with (
        _variables(world, {"EXECUTOR": "spark", "SPARK_DRIVER_MEMORY": "1g"}),
        _when_running(
            world, CALCULATE_METRICS, lambda: _kill(CALCULATE_METRICS, "java", world.execution)
        ),
    ):
        yield


@contextmanager
def _cut_connection(world: World, draw: random.Random) -> Iterator[None]:
    passed = draw.randrange(1, MOST_BYTES)
    job = draw.choice(JOBS)
    with _when_running(world, job, lambda: world.proxy.cut_after(passed, "to_server")):
        yield
    world.proxy.disarm()


@contextmanager
def _unavailable(world: World, draw: random.Random) -> Iterator[None]:
    """Answer 503 to the workflow's next requests to Dataproc."""
    world.cloud.dataproc.fail_next("create", 503, times=draw.randint(1, 3))
    world.cloud.dataproc.fail_next("get", 503, times=draw.randint(1, 3))
    yield


@contextmanager
def _slow_database(world: World, draw: random.Random) -> Iterator[None]:
    del draw
    world.proxy.delay_seconds = SLOW_SECONDS
    try:
        yield
    finally:
        world.proxy.delay_seconds = 0.0


@contextmanager
def _costly_run(world: World, draw: random.Random) -> Iterator[None]:
    del draw
    world.least_billed_seconds = COSTLY_SECONDS
    try:
        yield
    finally:
        world.least_billed_seconds = LOCAL_BATCH.least_billed_seconds


FULL_DISK = """
    CREATE SCHEMA fault;
    CREATE SEQUENCE fault.merged;
    CREATE FUNCTION fault.meet() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('fault.merged') = {row} THEN
            RAISE EXCEPTION 'could not extend file: No space left on device'
                USING ERRCODE = 'disk_full';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER fault AFTER INSERT OR UPDATE ON pool_daily_metrics
        FOR EACH ROW EXECUTE FUNCTION fault.meet();
"""


@contextmanager
def _full_disk(world: World, draw: random.Random) -> Iterator[None]:
    """Refuse a row of the merge, as a server whose disk is full."""
    with world.engine.begin() as connection:
        connection.exec_driver_sql(FULL_DISK.format(row=draw.randint(1, 4)))
    try:
        yield
    finally:
        with world.engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA fault CASCADE")


@contextmanager
def _registry_down(world: World, draw: random.Random) -> Iterator[None]:
    del draw
    with socket.socket() as closed:
        # bound and not listening: the port refuses connections
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with _variables(world, {"MLFLOW_TRACKING_URI": address, "MLFLOW_ARTIFACTS_URI": ""}):
            yield


FAULTS = (
    Fault("none", "succeeds", _nothing),
    Fault("killed driver", "fails", _killed_driver),
    Fault("killed JVM", "fails", _killed_jvm),
    Fault("cut connection", "either", _cut_connection),
    Fault("503s", "succeeds", _unavailable),
    Fault("double delivery", "succeeds", _nothing, deliveries=2),
    Fault("slow database", "succeeds", _slow_database),
    Fault("disk full", "fails", _full_disk),
    Fault("registry down", "succeeds", _registry_down),
    Fault("costly run", "succeeds", _costly_run, is_costly=True),
    Fault("clock skew", "succeeds", _nothing, skews_server=True),
)


def faults_of_nights(faults: Sequence[Fault], nights: int, draw: random.Random) -> list[Fault]:
    """Return a fault for each night: all of them in a random order, then again."""
    chosen: list[Fault] = []
    while len(chosen) < nights:
        chosen += draw.sample(faults, len(faults))
    return chosen[:nights]


@contextmanager
def _variables(world: World, values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the jobs."""
    world.variables.update(values)
    try:
        yield
    finally:
        for name in values:
            world.variables.pop(name, None)


RUNNING = text("""
    SELECT 1
    FROM yieldspark.run_ledger
    WHERE job = :job
        AND status = 'running'
        AND batch_id LIKE '%' || :execution
""")


@contextmanager
def _when_running(world: World, job: JobSpec, action: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as a run of the job is in the ledger.

    A run may be over before: `fault_applied` of the world tells whether it was done.
    """
    ended = threading.Event()
    world.fault_applied = False

    def watch() -> None:
        while not ended.wait(WATCH_SECONDS):
            if world.execution and _is_running(world, job):
                # the process of a run that ends at once may be over
                with suppress(ProcessLookupError):
                    action()
                    world.fault_applied = True
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_running(world: World, job: JobSpec) -> bool:
    values = {"job": job.name, "execution": world.execution}
    try:
        with world.engine.connect() as connection:
            return connection.execute(RUNNING, values).first() is not None
    except (DBAPIError, DatabaseError):
        # a connection of the pool that ended meanwhile, or none in time on a busy machine
        return False


def _kill(job: JobSpec, program: Literal["python", "java"], execution: str) -> None:
    """Kill the process of a batch.

    Raises:
        ProcessLookupError: there is no such process.
    """
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _is_driver(process, job, program, execution):
            os.kill(int(process.name), signal.SIGKILL)
            return
    raise ProcessLookupError(f"{job.name} of execution {execution} has no process {program}")


def _is_driver(process: Path, job: JobSpec, program: str, execution: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        # it has ended meanwhile
        return False
    batch = f"{job.short_name}-{execution}"
    return Path(words[0]).name.startswith(program) and batch in words
