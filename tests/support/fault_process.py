"""Runs a job's `main` with one fault, which the variable FAULT describes as a JSON object.

`job` is the module, `spark_conf` Spark's configuration. `do` is `kill` (SIGKILL of this process) or
`pause` (create the file REACHED and wait for the file GO). The point is `stage` and `edge` (before,
after) of a ledger stage, or `statement` (a regular expression), `nth` and `edge` of a statement
during `stage`; COMMIT is the commit."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sqlalchemy import Connection, Engine, event

from database.ledger.runs import Run
from local_runtime import jars as local_jars

REACHED, GO = "reached", "go"
PAUSE_SECONDS = 300
NOT_RESUMED = 98
"""Exit code of a paused process that was not continued."""


def act(fault: dict[str, Any]) -> None:
    """Kill or pause this process."""
    if fault["do"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    folder = Path(fault["folder"])
    (folder / REACHED).touch()
    deadline = time.monotonic() + PAUSE_SECONDS
    while not (folder / GO).exists():
        if time.monotonic() > deadline:
            os._exit(NOT_RESUMED)
        time.sleep(0.02)


def install_fault(fault: dict[str, Any]) -> None:
    """Wrap `Run.stage`, and listen to statements if the fault has one."""
    inside: list[str] = []
    original: Callable[[Run, str], AbstractContextManager[None]] = Run.stage
    of_the_stage = "statement" not in fault

    @contextmanager
    def stage(run: Run, name: str) -> Iterator[None]:
        if of_the_stage and (name, fault["edge"]) == (fault["stage"], "before"):
            act(fault)
        with original(run, name):
            inside.append(name)
            try:
                yield
            finally:
                inside.pop()
        if of_the_stage and (name, fault["edge"]) == (fault["stage"], "after"):
            act(fault)

    Run.stage = stage  # type: ignore[assignment, method-assign]
    if not of_the_stage:
        _listen(fault, inside)


def _listen(fault: dict[str, Any], inside: Sequence[str]) -> None:
    pattern = re.compile(fault["statement"], re.IGNORECASE | re.DOTALL)
    count = 0

    def meet(statement: str) -> None:
        nonlocal count
        if fault["stage"] in inside and pattern.search(statement):
            count += 1
            if count == fault.get("nth", 1):
                act(fault)

    def on_statement(
        _c: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        _context: object,
        _many: bool,
    ) -> None:
        meet(statement)

    def on_commit(_: Connection) -> None:
        meet("COMMIT")

    event.listen(Engine, f"{fault['edge']}_cursor_execute", on_statement)
    event.listen(Engine, "commit", on_commit)


def configure_spark(conf: Mapping[str, str]) -> None:
    """Configure Spark beyond the product's settings. The job removes such variables of its
    environment, so the variable is set after that.
    """
    drops_variables = local_jars.prepare_process

    def prepare_process() -> None:
        drops_variables()
        os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(
            [*(f"--conf {name}={value}" for name, value in conf.items()), "pyspark-shell"]
        )

    local_jars.prepare_process = prepare_process


if __name__ == "__main__":
    fault_of_run = json.loads(os.environ["FAULT"])
    configure_spark(fault_of_run["spark_conf"])
    if "do" in fault_of_run:
        install_fault(fault_of_run)
    sys.exit(importlib.import_module(fault_of_run["job"]).main())
