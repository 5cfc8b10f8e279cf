"""Ctrl-C and SIGTERM end each stage of each command within seconds: exit code 130, one message, no
process left, the lock free, no staging tables.

No stage would end by itself: another session holds a lock, a trigger sleeps, or a server accepts
connections and never answers.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, text

from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.ledger.runs import is_job_idle, open_run
from sample_data import SAMPLE_FILES
from tests.support.fault_database import fault_first_loader, fault_merged_row, staging_tables
from tests.support.fault_runs import TOKEN, processes_with, until
from tests.support.forecast_panels import panel_rows, store
from tests.support.killed_process import forks
from tests.support.metrics_histories import world
from tests.support.metrics_store import put, rows_of
from tests.support.processes import PROJECT, CommandLine

FOREVER = "PERFORM pg_sleep(600);"

END_SECONDS = 30
"""Limit for a command that hangs; on an idle machine each ends within five seconds."""

LOCK_SECONDS = 20

JAVA_STACK = re.compile(r"(?m)^\s+at [\w.$]+\(|Py4J|^(java|org|py4j)\.[\w.]+(Exception|Error)")
"""Frames and errors of a JVM, which belong into its log file."""

WAITING = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'yieldspark' AND state = 'active'
        AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')"""

RAW = "raw_defillama_pool_history"


@dataclass
class World:
    """Environment of a stage; `environment` is the command's."""

    engine: Engine
    environment: dict[str, str] = field(default_factory=dict)
    accepted: list[socket.socket] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def hold(self, table: str) -> None:
        """Lock the table in another session."""
        connection = self.stack.enter_context(self.engine.begin())
        connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))

    def silent_server(self) -> int:
        """Return the port of a server that accepts connections and never answers."""
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        self.accepted.append(listener)
        return int(listener.getsockname()[1])

    def is_asked(self) -> bool:
        try:
            self.accepted.append(self.accepted[0].accept()[0])
        except BlockingIOError:
            return False
        return True


@dataclass(frozen=True)
class Stage:
    """A stage of a command. The command prints `reached` then; without it, PostgreSQL or the silent
    server keeps the command waiting.
    """

    command: tuple[str, ...]
    prepare: Callable[[World], Any] = lambda _: None
    reached: str | None = None
    after_seconds: float = 0.5
    job: str | None = None
    executor: str = "spark"


def _raw_rows(world_: World) -> None:
    put(world_.engine, world(33, pools=8, days=60))


def _metrics(then: Callable[[World], Any] = lambda _: None) -> Callable[[World], None]:
    def prepare(made: World) -> None:
        _raw_rows(made)
        then(made)

    return prepare


def _panel(then: Callable[[World], Any] = lambda _: None) -> Callable[[World], None]:
    def prepare(made: World) -> None:
        store(made.engine, panel_rows(12, 110))
        then(made)

    return prepare


def _silent_database(made: World) -> None:
    made.environment |= {"DB_HOST": "127.0.0.1", "DB_PORT": str(made.silent_server())}


def _silent_source(made: World) -> None:
    made.environment["DEFILLAMA_YIELDS_URL"] = f"http://127.0.0.1:{made.silent_server()}"


def _silent_proxy(made: World) -> None:
    proxy = f"http://127.0.0.1:{made.silent_server()}"
    made.environment |= {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "JARS_DIR": "no_jars"}


def _jdbc(made: World) -> None:
    made.environment |= {"READ_TRANSPORT": "jdbc", "WRITE_TRANSPORT": "jdbc"}
    fault_first_loader(made.engine, FOREVER)


METRICS, FORECAST = "calculate_metrics", "forecast_pools"
LIGHTGBM = ("forecast_pools", "--engine", "lightgbm")
SYNAPSEML = ("forecast_pools", "--engine", "synapseml")

WITHOUT_A_JVM = {
    "connect": Stage(("status",), _silent_database),
    "migrate": Stage(("db", "migrate"), lambda made: made.hold("yieldspark.alembic_version")),
    "load files": Stage(("load", str(SAMPLE_FILES[0])), lambda made: made.hold("pools")),
    "ingest": Stage(("ingest", "--min-tvl", "1e9"), _silent_source, job="ingest"),
    "report": Stage(("report",), _metrics(lambda made: made.hold("pool_daily_metrics"))),
    "evaluate": Stage(("evaluate",), _panel(lambda made: made.hold("pool_daily_metrics"))),
    "metrics ledger": Stage(
        ("calculate_metrics",), _metrics(lambda made: made.hold("yieldspark.run_ledger"))
    ),
    "metrics plan": Stage(
        ("calculate_metrics",), _metrics(lambda made: made.hold(RAW)), job=METRICS
    ),
    "metrics load in process": Stage(
        ("calculate_metrics",),
        _metrics(lambda made: fault_first_loader(made.engine, FOREVER)),
        job=METRICS,
        executor="inprocess",
    ),
    "metrics merge in process": Stage(
        ("calculate_metrics",),
        _metrics(lambda made: fault_merged_row(made.engine, FOREVER, row=5)),
        job=METRICS,
        executor="inprocess",
    ),
    "forecast fit in process": Stage(
        LIGHTGBM, _panel(), "fit_tvl ...", job=FORECAST, executor="inprocess"
    ),
    "forecast load in process": Stage(
        LIGHTGBM,
        _panel(lambda made: fault_first_loader(made.engine, FOREVER)),
        job=FORECAST,
        executor="inprocess",
    ),
}
WITH_A_JVM = {
    "jars": Stage(SYNAPSEML, _panel(_silent_proxy), job=FORECAST),
    "metrics session": Stage(
        ("calculate_metrics",), _raw_rows, "session ...", after_seconds=2, job=METRICS
    ),
    "metrics compute": Stage(
        ("calculate_metrics",), _raw_rows, "compute_and_load ...", job=METRICS
    ),
    "metrics transform": Stage(
        ("calculate_metrics",), _raw_rows, "compute_and_load ...", after_seconds=1, job=METRICS
    ),
    "metrics load": Stage(
        ("calculate_metrics",),
        _metrics(lambda made: fault_first_loader(made.engine, FOREVER)),
        job=METRICS,
    ),
    "metrics load by jdbc": Stage(("calculate_metrics",), _metrics(_jdbc), job=METRICS),
    "metrics merge": Stage(
        ("calculate_metrics",),
        _metrics(lambda made: fault_merged_row(made.engine, FOREVER, row=5)),
        job=METRICS,
    ),
    "forecast features": Stage(LIGHTGBM, _panel(), "features ...", job=FORECAST),
    "forecast fit": Stage(LIGHTGBM, _panel(), "fit_tvl ...", 1, job=FORECAST),
    "synapseml fit": Stage(SYNAPSEML, _panel(), "fit_tvl ...", 3, job=FORECAST),
    "forecast write": Stage(
        LIGHTGBM, _panel(lambda made: fault_first_loader(made.engine, FOREVER)), job=FORECAST
    ),
    "forecast merge": Stage(
        LIGHTGBM, _panel(lambda made: made.hold("yieldspark.forecasts")), job=FORECAST
    ),
}


@contextmanager
def _started(run: CommandLine, stage: Stage, made: World) -> Iterator[subprocess.Popen[str]]:
    token = secrets.token_hex(8)
    with (run.folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "run_spark_local.py"), *stage.command, "--json"],
            cwd=run.folder,
            env=run.environment
            | {"BACKTEST_DAYS": "5", TOKEN: token, "EXECUTOR": stage.executor}
            | made.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
        until(lambda: not processes_with(token), "every process has ended", END_SECONDS)
    finally:
        for pid in processes_with(token):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def _is_reached(run: CommandLine, stage: Stage, made: World, process: Any) -> bool:
    errors = (run.folder / "stderr").read_text()
    assert process.poll() is None, errors
    if stage.reached:
        return stage.reached in errors
    if made.accepted:
        return made.is_asked()
    return bool(rows_of(made.engine, WAITING))


def _ends(run: CommandLine, engine: Engine, stage: Stage, sent: signal.Signals) -> None:
    with ExitStack() as stack:
        world = World(engine, stack=stack)
        stage.prepare(world)
        with _started(run, stage, world) as process:
            until(lambda: _is_reached(run, stage, world, process), "the stage", 240)
            time.sleep(stage.after_seconds)
            started_at = time.monotonic()
            if sent == signal.SIGINT:
                os.killpg(process.pid, sent)
            else:
                process.send_signal(sent)
            output, _ = process.communicate(timeout=END_SECONDS)
            print(f"seconds {time.monotonic() - started_at:.1f}", end=" ")
        errors = (run.folder / "stderr").read_text()
        assert process.returncode == 130, errors
        assert "interrupted" in errors.splitlines()[-1], errors
        assert "Traceback" not in errors, errors
        assert not JAVA_STACK.search(errors), errors
        if stage.job:
            assert '"cancelled"' in output, output
    with checked_connection(engine) as connection:
        until(
            lambda: is_job_idle(connection, stage.job or METRICS), "the lock is free", END_SECONDS
        )
    if stage.job:
        statuses = rows_of(engine, "SELECT status FROM yieldspark.run_ledger")
        print([row["status"] for row in statuses], staging_tables(engine), end=" ")


@pytest.mark.parametrize(
    "stage", ["connect", "load files", "metrics plan", "metrics load in process"]
)
def test_signal_ends_a_wait_for_a_server(run: CommandLine, engine: Engine, stage: str) -> None:
    _ends(run, engine, WITHOUT_A_JVM[stage], signal.SIGTERM)


def test_signal_ends_a_merge_that_waits_for_a_lock(run: CommandLine, engine: Engine) -> None:
    """Without a JVM. test_command_line.py and test_metrics_script.py interrupt jobs that have
    one.
    """
    _ends(run, engine, WITHOUT_A_JVM["metrics merge in process"], signal.SIGINT)


def _works_for_long(settings: Settings) -> None:
    with open_run(make_engine(settings), job=METRICS, mode="incremental") as run:
        run.connection.exec_driver_sql("SELECT pg_sleep(600)")


def test_lock_of_a_killed_driver_is_free_while_its_statement_runs(
    database: Settings, engine: Engine
) -> None:
    """Over 10 s: the server's interval of checks for its client
    (`client_connection_check_interval`).
    """
    driver = forks().Process(target=_works_for_long, args=(database,))
    driver.start()
    until(lambda: rows_of(engine, WAITING), "the server works")
    assert driver.pid is not None
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    with checked_connection(engine) as connection:
        until(lambda: is_job_idle(connection, METRICS), "the lock is free", LOCK_SECONDS)


GOES_ON = """
import os, signal, sys, time
from common.interrupts import before_forced_exit, end_on_signal

before_forced_exit(lambda: time.sleep(0.5))  # as the JVM and its folders are cleared
with end_on_signal(lambda: sys.stderr.write("interrupted\\n"), end_seconds=0.5):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        while True:
            sys.stderr.write("a step\\n")
            sys.stderr.flush()
            time.sleep(0.01)
"""


@pytest.mark.usefixtures("processes")
def test_nothing_is_reported_after_the_last_words() -> None:
    """The clean-up of the main thread takes too long, and continues until the process ends."""
    ended = subprocess.run(
        [sys.executable, "-c", GOES_ON],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (130, "interrupted")


SIGNALLED_LATE = """
import atexit, os, signal, sys
import typer
from cli.run_application import run_application

app = typer.Typer()

def signal_process(kill=os.kill, process=os.getpid(), number=signal.{sent}):
    kill(process, number)

class Recording:  # takes the place of local_runtime.class_data_sharing
    save_class_archive = signal_process
    discard_class_archive = list

class Finalized:
    def __del__(self, signal_process=signal_process):
        signal_process()

@app.command()
def command():
    global finalized
    if "{moment}" == "save":
        sys.modules["local_runtime.class_data_sharing"] = Recording
    if "{moment}" == "atexit":
        atexit.register(signal_process)
    if "{moment}" == "finalize":
        finalized = Finalized()  # deleted with this module, when Python has no handlers any more
    print("result", flush=True)

run_application(app, lambda error, arguments: {{}}, arguments=[])
"""


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("moment", "sent"),
    [("save", "SIGINT"), ("atexit", "SIGINT"), ("atexit", "SIGTERM"), ("finalize", "SIGTERM")],
)
def test_signal_after_the_result_changes_no_exit_code(moment: str, sent: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED_LATE.format(moment=moment, sent=sent)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "result\n", "")


SIGNALLED_IN_CALLBACK = """
import ctypes, gc, signal, time, weakref
import typer
from cli.run_application import run_application

app = typer.Typer()

def wait_for_signal(*arguments):
    if wait_for_signal in gc.callbacks:
        gc.callbacks.remove(wait_for_signal)
    print("waiting", flush=True)
    while True:
        time.sleep(0.01)

class Finalized:
    __del__ = wait_for_signal

class Referenced:
    pass

def call_back(place):
    if place == "del":
        Finalized()
    if place == "weakref":
        target = Referenced()
        reference = weakref.ref(target, wait_for_signal)
        del target
    if place == "gc":
        gc.callbacks.append(wait_for_signal)
        gc.collect()
    if place == "ctypes":
        ctypes.CFUNCTYPE(None)(wait_for_signal)()

@app.command()
def command():
    if {ignores_sigint}:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        call_back("{place}")
        time.sleep(60)
    except KeyboardInterrupt:
        print("handled", flush=True)
        raise

run_application(app, lambda error, arguments: {{}}, arguments=[])
"""


def _end_of(source: str, *signals: signal.Signals) -> tuple[int, str, str]:
    """Run a program and send it a signal for each line that it prints; return exit code, standard
    output and standard error.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for sent in signals:
        lines.append(process.stdout.readline())
        process.send_signal(sent)
    output, errors = process.communicate(timeout=60)
    return process.returncode, "".join(lines) + output, errors


INTERRUPTED = "interrupted: uncommitted changes were rolled back, and the next run continues"


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("place", "sent"),
    [
        ("del", signal.SIGINT),
        ("weakref", signal.SIGTERM),
        ("gc", signal.SIGINT),
        ("ctypes", signal.SIGTERM),
    ],
    ids=["del", "weakref", "gc", "ctypes"],
)
def test_signal_in_a_callback_of_python_ends_the_command(place: str, sent: signal.Signals) -> None:
    """Where Python ignores exceptions. A command that is ended by force handles nothing."""
    source = SIGNALLED_IN_CALLBACK.format(place=place, ignores_sigint=False)
    code, output, errors = _end_of(source, sent)
    assert (code, output) == (130, "waiting\nhandled\n"), errors
    assert errors.split("error: ") == ["", INTERRUPTED + "\n"]


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_signal_in_a_callback_ends_a_background_job(sent: signal.Signals) -> None:
    """A shell makes it ignore SIGINT, and sends SIGHUP if the terminal is closed."""
    source = SIGNALLED_IN_CALLBACK.format(place="del", ignores_sigint=True)
    code, output, errors = _end_of(source, sent)
    assert (code, output) == (130, "waiting\nhandled\n"), errors


SIGNALLED_TWICE = """
import time
import typer
from cli.run_application import run_application

app = typer.Typer()

@app.command()
def command():
    try:
        print("working", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("cleaning up", flush=True)
        time.sleep(60)

run_application(app, lambda error, arguments: {}, arguments=[])
"""


@pytest.mark.usefixtures("processes")
def test_second_signal_prints_no_traceback() -> None:
    code, _, errors = _end_of(SIGNALLED_TWICE, signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert errors.split("error: ") == ["", INTERRUPTED + "\n"]


@pytest.mark.long
@pytest.mark.usefixtures("jvm")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("stage", [*WITHOUT_A_JVM, *WITH_A_JVM])
def test_signal_ends_every_stage(
    run: CommandLine, engine: Engine, stage: str, sent: signal.Signals
) -> None:
    """Minutes: 13 of the 24 stages start a JVM, for each of the two signals."""
    _ends(run, engine, (WITHOUT_A_JVM | WITH_A_JVM)[stage], sent)
