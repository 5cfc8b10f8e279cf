"""A job as a process with one fault in it: what the environment's FAULT names is put in, then the
job's own `main` runs.

FAULT is a JSON object. `job` is the job's module, `spark_conf` Spark's configuration. `do` is
`kill` (SIGKILL of this process: nothing is cleaned up) or `pause` (the file REACHED appears, and
the process waits for the file GO beside it). Where: `stage` and `edge` (before, after) of a stage
of the ledger, or `statement` (a regular expression) and `edge` of the `nth` statement that matches
while `stage` runs; the statement COMMIT is the commit.
"""

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
from local_runtime import jars as spark_runtime

REACHED, GO = "reached", "go"
PAUSE_SECONDS = 300
NOBODY_CAME = 98
"""Exit code of a paused process that nobody told to go on."""


def act(fault: dict[str, Any]) -> None:
    """Do at the point what the fault says."""
    if fault["do"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    folder = Path(fault["folder"])
    (folder / REACHED).touch()
    deadline = time.monotonic() + PAUSE_SECONDS
    while not (folder / GO).exists():
        if time.monotonic() > deadline:
            os._exit(NOBODY_CAME)
        time.sleep(0.02)


def put_in(fault: dict[str, Any]) -> None:
    """Wrap `Run.stage`, and listen to every statement where the fault names one."""
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
    met = 0

    def meet(statement: str) -> None:
        nonlocal met
        if fault["stage"] in inside and pattern.search(statement):
            met += 1
            if met == fault.get("nth", 1):
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
    """Give Spark what no setting of the product has. The job drops such variables of its
    environment, so this one is set when it has done that.
    """
    drops_variables = spark_runtime.prepare_process

    def prepare_process() -> None:
        drops_variables()
        os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(
            [*(f"--conf {name}={value}" for name, value in conf.items()), "pyspark-shell"]
        )

    spark_runtime.prepare_process = prepare_process


if __name__ == "__main__":
    the_fault = json.loads(os.environ["FAULT"])
    configure_spark(the_fault["spark_conf"])
    if "do" in the_fault:
        put_in(the_fault)
    sys.exit(importlib.import_module(the_fault["job"]).main())
