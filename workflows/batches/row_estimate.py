"""How many rows a batch will read: what its machines are sized for.

In: settings, a job and its arguments. Out: a number, and in words where it is from. The plan is the
job's own, `--dry-run --json` in a process of its own: the plan's module brings Spark's, and this
command line starts without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import (
    BatchFailed,
    CloudRefused,
    CloudUnavailable,
    ConfigurationError,
    DatabaseError,
)
from common.jobs import job_spec
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.embedded.resolve import with_database

ROOT = Path(__file__).resolve().parents[2]

PLAN_SECONDS = 300
"""A plan of 30 million rows takes twenty."""

WRONG_USE = 2


@dataclass(frozen=True)
class Rows:
    number: int
    source: str


def rows_of(
    settings: Settings, job: str, arguments: Sequence[str], asked: int | None = None
) -> Rows:
    """Those that were asked for; else those of the job's plan, on the database that DB_HOST names;
    else EXPECTED_ROWS, as for a release's own batches: a database in a private network is out of
    reach from here.

    Raises: BatchFailed where the plan fails, as the batch would; ConfigurationError for what the
    plan refuses.
    """
    if asked is not None:
        return Rows(asked, "--rows")
    try:
        with checked_connection(make_engine(with_database(settings))):
            pass
    except (DatabaseError, CloudRefused, CloudUnavailable) as error:
        return Rows(
            settings.expected_rows, f"EXPECTED_ROWS, as there is no plan from here: {error}"
        )
    return Rows(int(_plan(job, arguments)[job_spec(job).plan_rows_key]), "the plan")


def _plan(job: str, arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", job_spec(job).module, *arguments, "--dry-run", "--json"]
    variables = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    }
    try:
        done = subprocess.run(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PLAN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BatchFailed(
            f"the plan of {job} takes more than {PLAN_SECONDS} s; nothing was submitted. Give"
            " --rows to do without"
        ) from None
    if done.returncode == 0:
        plan: dict[str, Any] = json.loads(done.stdout)["plan"]
        return plan
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if done.returncode == WRONG_USE:
        raise ConfigurationError(said)
    raise BatchFailed(
        f"the plan of {job} fails, and nothing was submitted: {said}. Give --rows to submit without"
        " a plan"
    )
