"""Work of the product in a process that is killed before one of its SQL statements, of PostgreSQL
or of the model registry.

The processes are forks of one that has imported the product, so they start at once. COMMIT counts
as a statement.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from sqlalchemy import Connection, Engine, event

from config_spark import Settings
from data_processing.ingest.defillama import pull as defillama
from database.connections.engine import make_engine
from database.schema.migrate import migrate
from forecasting.registry import versions
from tests.support.fault_database import GATE
from tests.support.releases import cloud_settings
from workflows.releases.release import rollback

EVERY = "."
NONE = "(?!)"
"""Pattern that matches no statement."""


def forks() -> ForkServerContext:
    """Return the context of the processes; the first one takes the time of the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.killed_process", "mlflow"])
    return context


def kill_at_each(
    work: Callable[..., Any], *arguments: Any, statements: str = EVERY, step: int = 1
) -> Iterator[int]:
    """Repeat the work, killed before every `step`th statement that matches, until it finishes.

    Yields:
        The number of the statement, after each kill.
    """
    nth = 1
    while killed(work, *arguments, statements=statements, nth=nth):
        yield nth
        nth += step


def killed(work: Callable[..., Any], *arguments: Any, statements: str, nth: int) -> bool:
    """Run the work; returns True if it was killed, False if it finished."""
    process = started(work, *arguments, statements=statements, nth=nth)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def started(
    work: Callable[..., Any], *arguments: Any, statements: str, nth: int, at_gate: bool = False
) -> ForkServerProcess:
    """Start a process that is killed at its statement, or with `at_gate` waits there at the gate of
    `tests.support.fault_database`.
    """
    task = (work, arguments, statements, nth, at_gate)
    process: ForkServerProcess = forks().Process(target=_work, args=task)
    process.start()
    return process


def _work(
    work: Callable[..., Any], arguments: tuple[Any, ...], statements: str, nth: int, at_gate: bool
) -> None:
    pattern = re.compile(statements, re.IGNORECASE | re.DOTALL)
    count = 0

    def meet(connection: Connection, statement: str) -> None:
        nonlocal count
        count += bool(pattern.search(statement.lstrip()))
        if count != nth:
            return
        count += 1
        if not at_gate:
            os.kill(os.getpid(), signal.SIGKILL)
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({GATE})")

    def on_statement(connection: Connection, _: Any, statement: str, *__: Any) -> None:
        meet(connection, statement)

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Engine, "commit", lambda connection: meet(connection, "COMMIT"))
    work(*arguments)


def migrate_database(settings: Settings) -> None:
    migrate(make_engine(settings))


def promote(settings: Settings, version: str) -> None:
    versions.promote(settings, make_engine(settings), version, "looked at it")


def roll_back(settings: Settings, version: str) -> None:
    versions.roll_back(settings, make_engine(settings), version, "looked at it")


def pull(settings: Settings, pool_ids: list[str]) -> None:
    defillama.ingest(settings, pool_ids=pool_ids)


def roll_release_back(url: str, version: str) -> None:
    rollback(cloud_settings(url), version)
