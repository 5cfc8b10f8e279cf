"""`submit`, `wait`, `status`, `list`, `cancel` and `logs`: one batch on Dataproc Serverless at a
time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from cli.options import AsJson, AsOf, End, Engine, Start, day, load_command_settings
from cli.terminal import err, out, print_json, print_pairs, say
from common.jobs import job_names, job_spec
from common.plain_text import without_controls
from config_spark import Settings
from workflows.batches.batch_monitor import (
    BatchSummary,
    batch_summary,
    duration,
    wait_for_batch,
)
from workflows.batches.driver_output import DriverOutput
from workflows.batches.submit_request import Submission, build_submission
from workflows.clients.dataproc import TERMINAL, Batches
from workflows.clients.interrupts import wait_or_offer_cancel
from workflows.commands.app import app
from workflows.commands.options import BatchId, DryRunRequest, FullRefresh, Version
from workflows.commands.tables import print_entries
from workflows.spec.job_options import JobOptions

FOLLOW_SECONDS = 5.0
"""Polling interval of `logs --follow`."""


def checked_job(name: str | None) -> str | None:
    """Return the name of a job as it is.

    Raises:
        ConfigurationError: No job has this name.
    """
    return job_spec(name).name if name is not None else None


JOB_CHOICES = "|".join(job_names())
JobName = Annotated[str, typer.Argument(metavar=JOB_CHOICES, callback=checked_job)]


class State(StrEnum):
    """States of a batch that `--state` takes, by the REST API's names."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@app.command()
def submit(
    job: JobName,
    engine: Engine = None,
    version: Version = None,
    start: Start = None,
    end: End = None,
    full_refresh: FullRefresh = False,
    as_of: AsOf = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=(
                "Number of rows to size the batch for; default: from the plan, or EXPECTED_ROWS."
            ),
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option(help="Wait for the end, and fail if the batch fails.")
    ] = True,
    dry_run: DryRunRequest = False,
    as_json: AsJson = False,
) -> None:
    """Run one job as a batch; --start and --end, or --full-refresh, backfill metrics.

    Example: python -m workflows submit calculate_metrics --start 2025-08-01 --end 2025-09-01
    """
    settings = load_command_settings(engine=engine.value if engine else None)
    options = JobOptions(day(start), day(end), full_refresh, day(as_of))
    submission = build_submission(settings, job, options, version=version, rows=rows)
    if submission.warning:
        err.print(f"  {submission.warning}", style="yellow", markup=False, soft_wrap=True)
    if dry_run:
        print_json(submission.payload())
        return
    batches, name = Batches(settings), submission.batch_id
    rows_text = f"{submission.rows.number:,} rows, by {submission.rows.source}"
    say(f"{name}: sized for {rows_text}{cost_ceiling_text(submission)}")

    def send() -> BatchSummary:
        batch = batches.submit(submission.batch, name, submission.request_id)
        say(f"{name}: submitted, {batches.console_url(name)}")
        return wait_for_batch(settings, batches, name) if wait else batch_summary(batches, batch)

    show_batch(_until_ended(batches, name, send), as_json)


@app.command()
def wait(batch: BatchId, as_json: AsJson = False) -> None:
    """Wait for the end and the cost of a batch; fail if the batch fails.

    Example: python -m workflows wait metrics-0b2c7d1e-6f0a-4c2b-9a55-3f3f0f8f2b11
    """
    settings, batches, name = open_batch(batch)
    show_batch(
        _until_ended(batches, name, lambda: wait_for_batch(settings, batches, name)), as_json
    )


@app.command()
def status(batch: BatchId, as_json: AsJson = False) -> None:
    """Show the state of a batch.

    Example: python -m workflows status metrics-0b2c7d1e-6f0a-4c2b-9a55-3f3f0f8f2b11 --json
    """
    _, batches, name = open_batch(batch)
    show_batch(batch_summary(batches, batches.get(name)), as_json)


@app.command("list")
def list_batches(
    job: Annotated[
        str | None,
        typer.Option(metavar=JOB_CHOICES, callback=checked_job, help="Only batches of this job."),
    ] = None,
    state: Annotated[State | None, typer.Option(help="Only batches in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of batches.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest batches.

    Example: python -m workflows list --state RUNNING
    """
    batches = Batches(load_command_settings())
    entries = [
        asdict(batch_summary(batches, batch))
        for batch in batches.list(job=job, state=state, limit=limit)
    ]
    if as_json:
        print_json({"batches": entries})
        return
    print_entries(["batch", "job", "state", "created", "seconds", "cost_usd"], entries)


@app.command()
def cancel(batch: BatchId, as_json: AsJson = False) -> None:
    """Cancel a batch and wait until it has ended.

    Example: python -m workflows cancel metrics-0b2c7d1e-6f0a-4c2b-9a55-3f3f0f8f2b11
    """
    _, batches, name = open_batch(batch)
    before = batches.get(name)["state"]
    if before in TERMINAL:
        say(f"{name} is {before} already; nothing was cancelled")
    ended = batches.cancel(name)
    if before not in TERMINAL and ended["state"] != "CANCELLED":
        say(f"{name} ended before the cancel: it is {ended['state']}")
    show_batch(batch_summary(batches, ended), as_json)


@app.command()
def logs(
    batch: BatchId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep printing until the batch has ended.")
    ] = False,
) -> None:
    """Print the output of a batch's driver.

    Example: python -m workflows logs metrics-0b2c7d1e-6f0a-4c2b-9a55-3f3f0f8f2b11 --follow
    """
    settings, batches, name = open_batch(batch)
    output = None
    while True:
        # the state is read first: once a batch has ended, its output is complete
        current = batches.get(name)
        uri = current.get("runtimeInfo", {}).get("outputUri")
        output = output or (DriverOutput(settings, uri) if uri else None)
        if output:
            # control characters of a job's output would act on the terminal
            sys.stdout.write(without_controls(output.read_new()))
            sys.stdout.flush()
        if not follow or current["state"] in TERMINAL:
            break
        time.sleep(FOLLOW_SECONDS)
    if output is None:
        say(f"{name} is {current['state']} and has written nothing yet")


def open_batch(batch: str) -> tuple[Settings, Batches, str]:
    """Return settings, client and the batch's id.

    Args:
        batch: Id or full resource name.
    """
    settings = load_command_settings()
    return settings, Batches(settings), batch.rpartition("/")[2]


def show_batch(summary: BatchSummary, as_json: bool) -> None:
    """Print a batch's summary: one JSON document, or the pairs that have a value."""
    values = asdict(summary)
    if as_json:
        print_json(values)
        return
    # printed apart and unwrapped, so that they can be clicked
    addresses = ("output", "console")
    print_pairs(
        {
            name: value
            for name, value in values.items()
            if value is not None and name not in addresses
        }
    )
    for name in addresses:
        if values[name]:
            out.print(values[name], markup=False, soft_wrap=True)


def _until_ended(batches: Batches, name: str, work: Callable[[], BatchSummary]) -> BatchSummary:
    return wait_or_offer_cancel(
        work, lambda: batches.cancel(name), f"batch {name}", f"python -m workflows cancel {name}"
    )


def cost_ceiling_text(submission: Submission) -> str:
    """Describe the duration and the highest cost of a usual run; empty without past runs."""
    if submission.usual_seconds is None or submission.usd_at_most is None:
        return ""
    return (
        f"; a usual run takes {duration(submission.usual_seconds)} and costs"
        f" {submission.usd_at_most:.4f} USD at most"
    )
