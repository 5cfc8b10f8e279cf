"""Builds batches.json: the requests that pipeline.yaml sends, fixed when a version is released, and
compares two of them. The file holds no secret; the request builder rejects one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from common import jobs
from common.google.clients import require_settings
from common.jobs import JobSpec
from config_spark import Settings
from workflows.clients.dataproc import GRACE_SECONDS
from workflows.spec.batch_request import batch_key, build_batch, operator_environment
from workflows.spec.platform_choice import DATAPROC, choose_platform
from workflows.spec.platforms import platform_for, platform_rows
from workflows.spec.release_paths import VALIDATE_JOB, Release, cloud_run_job


def build_batches_json(
    settings: Settings, release: Release, *, today: date | None = None
) -> dict[str, Any]:
    """Build batches.json for EXPECTED_ROWS.

    Args:
        settings: Project, region and the jobs' settings.
        release: Version and jars.
        today: Replaces the clock; UTC day.

    Returns:
        Every batch by its key, Cloud Run jobs by job and that of the validation, the default
        platform with its reason, the operator's variables, and the deadline of a run in seconds.

    Raises:
        ConfigurationError: A setting is missing or wrong.
    """
    require_settings(settings, "project_id", "region")
    day = today or datetime.now(UTC).date()
    # a runtime that is no longer available is left out, except that of the settings' engine
    rows = [
        row for row in platform_rows() if day <= row.available_to or row.engine == settings.engine
    ]
    choice = choose_platform(settings)
    return {
        "version": release.version,
        "project": settings.project_id,
        "region": settings.region,
        "engine": settings.engine,
        "platform": choice.platform,
        "platform_reason": choice.reason,
        "jobs": job_entries(),
        # both platforms are included: a run may override the default
        "batches": {
            batch_key(row.job, row.engine): build_batch(
                settings, release, row.job, engine=row.engine, today=day
            )
            for row in rows
        },
        "cloud_run_jobs": {name: cloud_run_job(name) for name in jobs.job_names()},
        "validation_job": VALIDATE_JOB,
        "operator_variables": operator_environment(settings),
        # later than the ttl, by which the service itself ends a batch
        "deadline_seconds": settings.batch_ttl_minutes * 60 + GRACE_SECONDS,
    }


def support_warnings(settings: Settings, *, today: date | None = None) -> list[str]:
    """Warn of Dataproc runtimes that Google no longer supports and the daily run uses. Cloud Run
    jobs use the product's own image and cause none.
    """
    if choose_platform(settings).platform != DATAPROC:
        return []
    day = today or datetime.now(UTC).date()
    rows = [platform_for(job.name, job.engine_of(settings.engine), today=day) for job in jobs.JOBS]
    return [row.warning for row in rows if row.warning]


def job_entries() -> list[dict[str, Any]]:
    """Return the jobs as `pipeline.yaml` reads them, in the order in which it runs them."""
    return [_job_entry(job) for job in jobs.JOBS]


def _job_entry(job: JobSpec) -> dict[str, Any]:
    options = [
        {"name": option.name, "flag": option.flag, "has_value": option.has_value}
        for option in job.options
    ]
    return {
        "name": job.name,
        "short_name": job.short_name,
        "request_prefix": job.request_prefix,
        "engines": list(job.engines),
        "options": options,
    }


def differences(released: Any, built: Any) -> list[str]:
    """Describe each value in which two payloads differ.

    Args:
        released: Payload in the bucket.
        built: Payload of this release.

    Returns:
        One line for each value.
    """
    old_values, new_values = dict(_values(released, "")), dict(_values(built, ""))
    lines = []
    for name in sorted(old_values.keys() | new_values.keys()):
        old, new = old_values.get(name, "nothing"), new_values.get(name, "nothing")
        if old != new:
            lines.append(f"{name}: {old} there, {new} here")
    return lines


def _values(payload: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(payload, dict):
        for key, value in payload.items():
            yield from _values(value, f"{name}.{key}".lstrip("."))
    else:
        yield name, payload
