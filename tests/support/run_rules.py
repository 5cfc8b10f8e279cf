"""Rules for a plan of `terraform/`: workflow, schedules, Cloud Run jobs and the settings of
releases. Part of `plan_rules.findings`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from config_spark import Settings
from tests.support.plan_document import Plan, Resource
from workflows.pipeline_lint.rules import check_source

CRON_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CRON_NAMES = {name: number for number, name in enumerate(MONTHS, start=1)} | {
    name: number for number, name in enumerate(WEEKDAYS, start=1)
}
MOST_RETRIES = 5
"""Cloud Scheduler's limit of retry_count."""

NEEDED_SETTINGS = (
    *("PROJECT_ID", "REGION", "CODE_BUCKET", "STAGING_BUCKET", "BATCH_SERVICE_ACCOUNT"),
    *("BATCH_SUBNETWORK", "DB_HOST", "DB_NAME", "DB_USER", "DB_SSLMODE", "DB_PASSWORD_SECRET"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACTS_URI", "ENGINE", "EXPECTED_ROWS", "MAX_EXECUTORS"),
    *("BATCH_TTL_MINUTES", "WORKFLOW_NAME"),
)


def cron_faults(text: str) -> list[str]:
    """Return the faults of five cron fields, each a list of *, N or N-M with an optional /STEP."""
    fields = text.lower().split()
    if len(fields) != len(CRON_LIMITS):
        return [f"{text!r} has {len(fields)} fields, not five"]
    faults = []
    for field, (least, most) in zip(fields, CRON_LIMITS, strict=True):
        for item in field.split(","):
            match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", item)
            ends = [_cron_number(end) for end in match.groups()[:2] if end] if match else [-1]
            if any(not least <= end <= most for end in ends) or ends != sorted(ends):
                faults.append(f"{item!r} in {text!r} is not between {least} and {most}")
    return faults


def _cron_number(text: str) -> int:
    return int(text) if text.isdecimal() else CRON_NAMES.get(text, -1)


def _workflow(plan: Plan) -> Iterator[str]:
    workflow = plan.resource("google_workflows_workflow", "pipeline")
    for fault in check_source(workflow.values["source_contents"])[:3]:
        yield f"{workflow.address}: {fault}"


def _code_bucket(plan: Plan) -> Iterator[str]:
    """Check that every reader of releases uses the code bucket."""
    bucket = plan.resource("google_storage_bucket", "code").values["name"]
    bucket_names: list[tuple[str, Any]] = [("settings.env", plan.setting("CODE_BUCKET"))]
    for workflow in plan.of_type("google_workflows_workflow"):
        bucket_names.append(
            (workflow.address, (workflow.values["user_env_vars"] or {}).get("CODE_BUCKET"))
        )
    for job in plan.of_type("google_cloud_run_v2_job"):
        bucket_names.append((job.address, _variables(job).get("CODE_BUCKET")))
    for trigger in plan.of_type("google_cloudbuild_trigger"):
        bucket_names.append(
            (trigger.address, (trigger.values["substitutions"] or {}).get("_CODE_BUCKET"))
        )
    for where, name in bucket_names:
        if name != bucket:
            yield f"{where}: the code bucket is {name!r} there, and {bucket!r} is made"
    others = {"STAGING_BUCKET": "staging", "MLFLOW_ARTIFACTS_URI": "models"}
    for setting, resource in others.items():
        bucket_of_resource = plan.resource("google_storage_bucket", resource).values["name"]
        if plan.setting(setting).removeprefix("gs://").partition("/")[0] != bucket_of_resource:
            yield (
                f"settings.env: {setting} is {plan.setting(setting)}, and {bucket_of_resource!r} is"
                " made"
            )


def _container(job: Resource) -> dict[str, Any]:
    task: dict[str, Any] = job.values["template"][0]["template"][0]
    return task


def _variables(job: Resource) -> dict[str, str]:
    return {
        variable["name"]: variable["value"] for variable in _container(job)["containers"][0]["env"]
    }


def _jobs(plan: Plan) -> Iterator[str]:
    for job in plan.of_type("google_cloud_run_v2_job"):
        task = _container(job)
        if task.get("max_retries") != 0:
            yield f"{job.address}: max_retries is {task.get('max_retries')}, and a job runs once"
        limits = task["containers"][0]["resources"][0]["limits"]
        if limits != {"cpu": "4", "memory": "16Gi"}:
            yield f"{job.address}: has {limits}, not 4 vCPU and 16 GiB"
        if _variables(job).get("SPARK_DRIVER_MEMORY") != "8g":
            yield f"{job.address}: Spark does not have half of the memory"
        egress = [access.get("egress") for access in task["vpc_access"]]
        if egress != ["PRIVATE_RANGES_ONLY"]:
            yield f"{job.address}: the network has no way out for what is not private"


def _schedules(plan: Plan) -> Iterator[str]:
    for job in plan.of_type("google_cloud_scheduler_job"):
        for fault in cron_faults(job.values["schedule"]):
            yield f"{job.address}: {fault}"
        if job.values["time_zone"] not in ("UTC", "Etc/UTC"):
            yield f"{job.address}: runs by the clock of {job.values['time_zone']}, not by UTC"
        retries = [retry.get("retry_count") for retry in job.blocks("retry_config")]
        if any(retry is not None and not 0 <= retry <= MOST_RETRIES for retry in retries):
            yield f"{job.address}: retry_count is {retries[0]}; 0 to {MOST_RETRIES} are allowed"
        if job.values.get("paused") is not True:
            yield f"{job.address}: is not paused before there is a release"
        target = job.blocks("http_target")[0]
        if not target.get("oauth_token") or target.get("oidc_token"):
            yield f"{job.address}: Google's APIs take an OAuth token alone"


def _daily_run_argument(plan: Plan) -> Iterator[str]:
    job = plan.resource("google_cloud_scheduler_job", "jobs", "nightly")
    workflow = plan.resource("google_workflows_workflow", "pipeline")
    target = job.blocks("http_target")[0]
    if not target["uri"].endswith(f"/workflows/{workflow.values['name']}/executions"):
        yield f"{job.address}: {target['uri']} does not start {workflow.values['name']}"
    try:
        body = json.loads(base64.b64decode(target["body"], validate=True))
        argument = json.loads(body["argument"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        yield f"{job.address}: the body has no argument for the workflow ({error!r})"
        return
    if set(body) != {"argument"} or not isinstance(argument, dict):
        yield f"{job.address}: the body is {body}, not an argument that holds a map"


def _settings(plan: Plan) -> Iterator[str]:
    lines = dict(line.split("=", 1) for line in plan.settings_text.splitlines())
    for name in NEEDED_SETTINGS:
        if not lines.get(name):
            yield f"settings.env: {name} is missing"
    for name in lines:
        field = Settings.model_fields.get(name.lower())
        if field is None:
            yield f"settings.env: {name} is no setting of the product"
        elif "SecretStr" in str(field.annotation):
            yield f"settings.env: {name} is a secret"
    values: dict[str, Any] = {name.lower(): value for name, value in lines.items()}
    try:
        Settings(_env_file=None, **values)
    except ValidationError as error:
        yield f"settings.env: {error}"


RUN_RULES = (_workflow, _code_bucket, _jobs, _schedules, _daily_run_argument, _settings)
