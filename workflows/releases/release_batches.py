"""batches.json: the requests that a release's workflow sends, made when it is released, and what
two of them differ in.

In: settings, a release, the platform table. Out: the document of the contract with `pipeline.yaml`:
every batch by its key, the Cloud Run jobs by the job, which of the two a run takes and why, the
operator's variables, and how long a run waits. It holds no secret: the builder refuses one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from common import jobs
from common.google.clients import required
from config_spark import Settings
from workflows.spec.batch_request import batch_key, build_batch, operator_environment
from workflows.spec.platform_choice import DATAPROC, choose_platform
from workflows.spec.platforms import platform_for, platform_rows
from workflows.spec.release_paths import Release, cloud_run_job

GRACE_SECONDS = 600
"""What a run waits beyond a batch's ttl, after which the service has ended it."""


def batches_document(
    settings: Settings, release: Release, *, today: date | None = None
) -> dict[str, Any]:
    """The document, for EXPECTED_ROWS. A runtime that is no longer available is left out, unless it
    is that of the settings' engine. Batches and Cloud Run jobs are there whatever the platform is:
    a run may ask for the other one.

    Raises: ConfigurationError naming what is missing or wrong.
    """
    required(settings, "project_id", "region")
    day = today or datetime.now(UTC).date()
    rows = [
        row for row in platform_rows() if day <= row.available_to or row.engine == settings.engine
    ]
    chosen = choose_platform(settings)
    return {
        "version": release.version,
        "project": settings.project_id,
        "region": settings.region,
        "engine": settings.engine,
        "platform": chosen.platform,
        "platform_reason": chosen.reason,
        "jobs": job_entries(),
        "batches": {
            batch_key(row.job, row.engine): build_batch(
                settings, release, row.job, engine=row.engine, today=day
            )
            for row in rows
        },
        "cloud_run_jobs": {name: cloud_run_job(name) for name in jobs.job_names()},
        "operator_variables": operator_environment(settings),
        "deadline_seconds": settings.batch_ttl_minutes * 60 + GRACE_SECONDS,
    }


def support_warnings(settings: Settings, *, today: date | None = None) -> list[str]:
    """What Google no longer supports of that which the nightly run takes: the metrics, and the
    forecast by the settings' engine. Cloud Run jobs run in the product's own image: none.
    """
    if choose_platform(settings).platform != DATAPROC:
        return []
    day = today or datetime.now(UTC).date()
    rows = [platform_for(job.name, job.engine_of(settings.engine), today=day) for job in jobs.JOBS]
    return [row.warning for row in rows if row.warning]


def job_entries() -> list[dict[str, Any]]:
    """Return the jobs as `pipeline.yaml` reads them, in the order in which it runs them."""
    return [
        {
            "name": job.name,
            "short_name": job.short_name,
            "request_prefix": job.request_prefix,
            "engines": list(job.engines),
            "options": [
                {"name": option.name, "flag": option.flag, "has_value": option.has_value}
                for option in job.options
            ],
        }
        for job in jobs.JOBS
    ]


def differences(there: Any, here: Any) -> list[str]:
    """One line for each value that two documents differ in: where it is, what it is there and what
    here.
    """
    values = [dict(_values(document, "")) for document in (there, here)]
    names = sorted(values[0].keys() | values[1].keys())
    found = ((name, *(side.get(name, "nothing") for side in values)) for name in names)
    return [f"{name}: {old} there, {new} here" for name, old, new in found if old != new]


def _values(document: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _values(value, f"{name}.{key}".lstrip("."))
    else:
        yield name, document
