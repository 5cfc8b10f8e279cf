"""`python -m workflows run`: starts the pipeline that the daily run executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from cli.options import AsJson, DryRun, End, Engine, EngineName, Start, load_command_settings
from cli.terminal import print_json, say
from common.errors import CloudRefused, CloudUnavailable, ConfigurationError
from common.jobs import job_names
from config_spark import Settings
from workflows.batches.batch_monitor import actual_cost_or_none, last_lines, record_cost_if_possible
from workflows.clients.dataproc import Batches
from workflows.clients.executions import (
    ExecutionNotSucceeded,
    Executions,
    ExecutionSummary,
    wait_for_execution,
)
from workflows.clients.interrupts import wait_or_offer_cancel
from workflows.commands.app import app
from workflows.commands.options import FullRefresh, OnPlatform, Version
from workflows.commands.tables import print_entries
from workflows.inside_network.container_log import last_log_lines
from workflows.spec.platform_choice import PLATFORMS
from workflows.spec.release_paths import VALIDATE, cloud_run_job

NOT_CREATED = "NOT_CREATED"
"""State that pipeline.yaml reports for a batch that was not created."""


@app.command()
def run(
    version: Version = None,
    start: Start = None,
    end: End = None,
    full_refresh: FullRefresh = False,
    engine: Engine = None,
    platform: OnPlatform = None,
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option(help="Wait for the end, and fail if the run fails.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run the pipeline now: metrics, then forecasts, then the validation.

    The exit code is 1 if a job fails, or if the validation does.

    Example: python -m workflows run --engine lightgbm
    """
    settings = load_command_settings()
    argument = pipeline_argument(
        version,
        start,
        end,
        full_refresh=full_refresh,
        engine=engine,
        platform=platform,
        dry_run=dry_run,
    )
    summary = run_pipeline(settings, argument, wait=wait)
    print_json(asdict(summary)) if as_json else print_pipeline(summary)
    require_validation(summary)


def pipeline_argument(
    version: str | None,
    start: datetime | None,
    end: datetime | None,
    *,
    full_refresh: bool,
    engine: EngineName | None,
    platform: list[str] | None,
    dry_run: bool,
) -> dict[str, Any]:
    """Build the argument of pipeline.yaml's `main`, with only the options that are set.

    Raises:
        ConfigurationError: A platform is wrong.
    """
    values = {
        "version": version,
        "start": start.date().isoformat() if start else None,
        "end": end.date().isoformat() if end else None,
        "full_refresh": full_refresh or None,
        "engine": engine.value if engine else None,
        "platform": platforms_by_job(platform) if platform else None,
        "dry_run": dry_run or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def platforms_by_job(choices: Sequence[str]) -> dict[str, str]:
    """Map each job to its platform.

    Args:
        choices: `PLATFORM` for both jobs, or `JOB=PLATFORM`, which wins whatever the order.

    Raises:
        ConfigurationError: A choice is neither, or a job gets two platforms.
    """
    names = job_names()
    shared: dict[str, str] = {}
    single: dict[str, str] = {}
    for choice in choices:
        job, _, platform = choice.rpartition("=")
        if platform not in PLATFORMS or ("=" in choice and job not in names):
            raise ConfigurationError(
                f"--platform {choice} is wrong; allowed is {' or '.join(PLATFORMS)}, or one of them"
                f" for one job, such as {names[-1]}={PLATFORMS[1]}; jobs are {', '.join(names)}"
            )
        platforms, jobs = (single, (job,)) if job else (shared, names)
        if platforms.get(jobs[0], platform) != platform:
            raise ConfigurationError(
                f"--platform names {platforms[jobs[0]]} and {platform} for {' and '.join(jobs)};"
                " give one of them"
            )
        platforms.update(dict.fromkeys(jobs, platform))
    return shared | single


def run_pipeline(
    settings: Settings,
    argument: dict[str, Any],
    *,
    wait: bool = True,
    seconds_between: float = 10.0,
    owns_cloud: bool = False,
) -> ExecutionSummary:
    """Start an execution, wait for it, and record what its batches cost.

    Args:
        settings: Project, region and workflow.
        argument: Argument of `main`.
        wait: False returns as soon as the execution runs.
        seconds_between: Polling interval.
        owns_cloud: The cloud is emulated in this process, and Ctrl-C ends it without a question.

    Raises:
        BatchFailed: The workflow raised an error.
        CloudRefused: Google rejected a request.
        CloudUnavailable: Google cannot be reached.
        Interrupted: Ctrl-C ended the wait.
    """
    executions = Executions(settings)
    started = executions.start(argument)
    name = started["name"].rpartition("/")[2]
    say(f"execution {name} of {settings.workflow_name}")
    if not wait:
        return ExecutionSummary(name, started["state"], seconds=0.0)

    def wait_until_ended() -> ExecutionSummary:
        return wait_for_execution(executions, started["name"], say, seconds_between)

    cancel_command = (
        f"gcloud workflows executions cancel {name} --workflow {settings.workflow_name} --location"
        f" {settings.region}"
    )
    try:
        cancel = partial(executions.cancel, started["name"])
        summary = (
            wait_until_ended()
            if owns_cloud
            else wait_or_offer_cancel(wait_until_ended, cancel, f"execution {name}", cancel_command)
        )
    except ExecutionNotSucceeded as error:
        error.document["driver_output"] = _output_of_failed_job(
            settings, error.raised, started["createTime"]
        )
        raise
    _record_costs(settings, summary.result["steps"])
    if not is_valid(summary):
        for line in _output_of_container(settings, VALIDATE, started["createTime"]):
            say(line)
    return summary


def is_valid(summary: ExecutionSummary) -> bool:
    """Whether the validation succeeded, or there was none: of a dry run or an earlier release."""
    validation = (summary.result or {}).get("validation")
    return validation is None or validation["state"] == "SUCCEEDED"


def require_validation(summary: ExecutionSummary) -> None:
    """End the command with exit code 1 if the validation failed.

    Raises:
        typer.Exit: It failed.
    """
    if not is_valid(summary):
        validation = summary.result["validation"]
        say(
            f"the jobs have committed their rows, and the validation {validation['batch']} ended"
            f" {validation['state']}: {validation['message']}. docs/runbooks/validation-failed.md"
            " says what to do"
        )
        raise typer.Exit(1)


def _record_costs(settings: Settings, steps: list[dict[str, Any]]) -> None:
    """Add the cost to each step of an execution, and record it in the ledger."""
    parent = f"projects/{settings.project_id}/locations/{settings.region}"
    # the workflow reads the usage when it polls, so the batch is not read again
    for step in steps:
        usage = {"approximateUsage": step["usage"] or {}}
        batch = {"name": f"{parent}/batches/{step['batch']}", "runtimeInfo": usage}
        cost = actual_cost_or_none(batch)
        step["cost_usd"] = round(cost.usd, 6) if cost else None
        record_cost_if_possible(settings, step["batch"], cost)


def _output_of_failed_job(settings: Settings, raised: Any, since: str) -> list[str]:
    """Print and return the last lines of the batch or container that the workflow's error names.
    `since` is when the execution began, RFC 3339.
    """
    if not isinstance(raised, dict) or not raised.get("batch") or raised["state"] == NOT_CREATED:
        return []
    try:
        lines = last_lines(settings, Batches(settings).get(raised["batch"]))
    except (CloudRefused, CloudUnavailable):
        # no batch has that name, so it ran as a Cloud Run job
        lines = _output_of_container(settings, raised["job"], since)
    for line in lines:
        say(line)
    return lines


def _output_of_container(settings: Settings, job: str, since: str) -> list[str]:
    try:
        return last_log_lines(settings, cloud_run_job(job), since)
    except (CloudRefused, CloudUnavailable) as error:
        say(f"the log of {cloud_run_job(job)} can't be read: {error}")
        return []


def print_pipeline(summary: ExecutionSummary) -> None:
    """Print the steps of an execution and its validation as a table."""
    result = summary.result or {}
    validation = result.get("validation")
    # a validation that was not started has no seconds, and a container has no cost
    validations = [{"seconds": None, "cost_usd": None} | validation] if validation else []
    print_entries(
        ["job", "platform", "batch", "state", "seconds", "cost_usd"],
        [*result.get("steps", []), *validations],
        title=f"execution {summary.execution}: {summary.state}",
    )
