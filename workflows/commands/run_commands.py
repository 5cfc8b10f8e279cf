"""`python -m workflows run`: the whole pipeline, as the nightly schedule runs it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from cli.options import AsJson, DryRun, End, Engine, EngineName, Start, edge_settings
from cli.terminal import print_json, print_table, say
from common.errors import CloudRefused, CloudUnavailable, ConfigurationError
from common.jobs import job_names
from config_spark import Settings
from workflows.batches.batch_monitor import actual_or_none, keep_cost, last_lines
from workflows.clients.dataproc import Batches
from workflows.clients.executions import ExecutionNotSucceeded, Executions, wait_for_execution
from workflows.clients.waiting import wait_or_ask
from workflows.commands.app import app
from workflows.inside_network.container_log import last_log_lines
from workflows.spec.platform_choice import PLATFORMS
from workflows.spec.release_paths import cloud_run_job

NOT_CREATED = "NOT_CREATED"
"""The state that pipeline.yaml gives what was never made."""

Version = Annotated[str | None, typer.Option(help="Published version; default: the latest.")]
OnPlatform = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="[JOB=]PLATFORM",
        help=(
            "dataproc or cloud_run, for all jobs or one; repeatable. Default: "
            "PLATFORM of the release."
        ),
    ),
]
FullRefresh = Annotated[
    bool, typer.Option("--full-refresh", help="Recompute every day of every pool.")
]


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
    """Run the pipeline now: metrics, then forecasts.

    Example: python -m workflows run --engine lightgbm
    """
    settings = edge_settings()
    argument = pipeline_argument(
        version,
        start,
        end,
        full_refresh=full_refresh,
        engine=engine,
        platform=platform,
        dry_run=dry_run,
    )
    document = run_pipeline(settings, argument, wait=wait)
    print_json(document) if as_json else print_pipeline(document)


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
    """The argument map of pipeline.yaml's `main`: what was given and nothing else. Raises:
    ConfigurationError.
    """
    given = {
        "version": version,
        "start": start.date().isoformat() if start else None,
        "end": end.date().isoformat() if end else None,
        "full_refresh": full_refresh or None,
        "engine": engine.value if engine else None,
        "platform": platforms_by_job(platform) if platform else None,
        "dry_run": dry_run or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def platforms_by_job(asked: Sequence[str]) -> dict[str, str]:
    """The argument's map of job to platform. A platform without a job is for both; one for a job
    wins over it, wherever it stands.

    Raises: ConfigurationError for a word that is neither, and for two platforms of one job.
    """
    names = job_names()
    both: dict[str, str] = {}
    single: dict[str, str] = {}
    for word in asked:
        job, _, platform = word.rpartition("=")
        if platform not in PLATFORMS or ("=" in word and job not in names):
            raise ConfigurationError(
                f"--platform {word} is wrong; allowed is {' or '.join(PLATFORMS)}, or one of them"
                f" for one job, such as {names[-1]}={PLATFORMS[1]}; jobs are {', '.join(names)}"
            )
        known, jobs = (single, (job,)) if job else (both, names)
        if known.get(jobs[0], platform) != platform:
            raise ConfigurationError(
                f"--platform names {known[jobs[0]]} and {platform} for {' and '.join(jobs)}; give"
                " one of them"
            )
        known.update(dict.fromkeys(jobs, platform))
    return both | single


def run_pipeline(
    settings: Settings,
    argument: dict[str, Any],
    *,
    wait: bool = True,
    seconds_between: float = 10.0,
    ends_with_us: bool = False,
) -> dict[str, Any]:
    """Start an execution and, with wait, see it through: `{"execution", "state", "seconds",
    "result"}`. What its batches cost goes into the ledger.

    Args: ends_with_us is for a cloud that this process is: on Ctrl-C there is nothing to ask.
    Raises: BatchFailed with what the workflow raised; CloudRefused, CloudUnavailable; Interrupted.
    """
    executions = Executions(settings)
    started = executions.start(argument)
    name = started["name"].rpartition("/")[2]
    say(f"execution {name} of {settings.workflow_name}")
    if not wait:
        return {"execution": name, "state": started["state"], "seconds": 0.0, "result": None}

    def see_through() -> dict[str, Any]:
        return wait_for_execution(executions, started["name"], say, seconds_between)

    how = (
        f"gcloud workflows executions cancel {name} --workflow {settings.workflow_name} --location"
        f" {settings.region}"
    )
    try:
        cancel = partial(executions.cancel, started["name"])
        document = (
            see_through()
            if ends_with_us
            else wait_or_ask(see_through, cancel, f"execution {name}", how)
        )
    except ExecutionNotSucceeded as error:
        error.document["driver_output"] = _words_of_the_job(
            settings, error.document["raised"], started["createTime"]
        )
        raise
    for step in document["result"]["steps"]:
        place = (
            f"projects/{settings.project_id}/locations/{settings.region}/batches/{step['batch']}"
        )
        cost = actual_or_none(
            {"name": place, "runtimeInfo": {"approximateUsage": step["usage"] or {}}}
        )
        step["cost_usd"] = round(cost.usd, 6) if cost else None
        keep_cost(settings, step["batch"], cost)
    return document


def _words_of_the_job(settings: Settings, raised: Any, since: str) -> list[str]:
    """The last lines of the batch or the container that the workflow's error names, said too. Args:
    since is when the execution began, RFC 3339.
    """
    if not isinstance(raised, dict) or not raised.get("batch") or raised["state"] == NOT_CREATED:
        return []
    try:
        lines = last_lines(settings, Batches(settings).get(raised["batch"]))
    except (CloudRefused, CloudUnavailable):
        # no batch of that name: it was an execution of a Cloud Run job
        lines = _words_of_the_container(settings, raised["job"], since)
    for line in lines:
        say(line)
    return lines


def _words_of_the_container(settings: Settings, job: str, since: str) -> list[str]:
    try:
        return last_log_lines(settings, cloud_run_job(job), since)
    except (CloudRefused, CloudUnavailable) as error:
        say(f"the log of {cloud_run_job(job)} can't be read: {error}")
        return []


def print_pipeline(document: dict[str, Any]) -> None:
    """What ran, for a person."""
    steps = (document["result"] or {}).get("steps", [])
    columns = ["job", "platform", "batch", "state", "seconds", "cost_usd"]
    print_table(
        columns,
        [[step[column] for column in columns] for step in steps],
        title=f"execution {document['execution']}: {document['state']}",
    )
