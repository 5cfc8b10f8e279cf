"""Runs a job's command as a script, as spark-submit and a container do.

The output is that of a log: lines with time and level on standard error, and the result on standard
output. Options, exit codes and `--json` are those of the job's command in `run_spark_local.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import NoReturn

import typer

from cli.context import PREFERS_SPARK
from cli.job_commands import job_command
from cli.output import OUTPUT, BatchOutput
from cli.run_application import run_application
from common.jobs import JobSpec
from database.ledger.run_json import failure_payload


def run_job_script(job: JobSpec, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command of a job and exit with its code.

    Args:
        job: the job to run.
        arguments: the command line (default: that of `sys.argv`).
    """
    command = job_command(job)
    script = f"{job.module.replace('.', '/')}.py"
    help_text = inspect.getdoc(command) or ""
    # Rich's boxes and colours do not belong in a platform's log
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(job.name, help=help_text.replace(f"run_spark_local.py {job.name}", script))(command)
    form = OUTPUT.set(BatchOutput())
    # a platform that starts the script has given the job a Spark of the right size
    executor = PREFERS_SPARK.set(True)
    try:
        run_application(
            app,
            lambda error, _: failure_payload(error, job.name),
            prog_name=job.name,
            arguments=arguments,
        )
    finally:
        PREFERS_SPARK.reset(executor)
        OUTPUT.reset(form)
