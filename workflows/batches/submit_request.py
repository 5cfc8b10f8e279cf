"""Builds the request that `submit` sends: ids, batch, size, and the cost ceiling of a usual run.

Reads the release and, where DB_HOST names a database, the job's plan and its past runs. Sends
nothing to Dataproc. Durations are seconds, costs USD.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from statistics import median
from typing import Any

from common.google.clients import require_settings
from common.jobs import job_spec
from config_spark import Settings
from data_processing.planning.run_request import Request
from workflows.batches.row_estimate import estimate_rows
from workflows.costs.cost import estimate
from workflows.costs.cost_ledger import usual_seconds
from workflows.releases.release import find_release
from workflows.spec.batch_request import REQUIRED_SETTINGS, batch_id, build_batch, request_id
from workflows.spec.job_options import JobOptions
from workflows.spec.platforms import platform_for


def build_submission(
    settings: Settings,
    job: str,
    options: JobOptions,
    *,
    version: str | None = None,
    rows: int | None = None,
) -> dict[str, Any]:
    """Build the request of one batch, as `--dry-run` prints it.

    Args:
        settings: Project, region and the job's settings.
        job: name of the job.
        options: Options of the job's command line.
        version: Release to run; default: the latest.
        rows: Rows to size the batch for; default: from the plan.

    Returns:
        Payload with the batch, its random ids, which every retry of this submit reuses, and
        `usd_at_most`.

    Raises:
        BatchFailed: The job's plan fails.
        CloudRefused: The release cannot be read.
        CloudUnavailable: The release cannot be read now.
        ConfigurationError: A setting or option is missing or wrong.
    """
    arguments = options.arguments(job)
    # refuses days that are no interval, before anything is read
    Request(options.full_refresh, options.start, options.end)
    require_settings(settings, "project_id", "region", *REQUIRED_SETTINGS)
    engine = job_spec(job).engine_of(settings.engine)
    release = find_release(settings, version)
    size = estimate_rows(settings, job, options, rows)
    execution = str(uuid.uuid4())
    name = batch_id(job, execution)
    batch = build_batch(
        settings,
        release,
        job,
        engine=engine,
        rows=size.number,
        arguments=[*arguments, "--batch", name],
    )
    past = usual_seconds(settings, job)
    seconds = median(past) if past else None
    return {
        "batchId": name,
        "requestId": request_id(job, execution),
        "parent": f"projects/{settings.project_id}/locations/{settings.region}",
        "rows": size.number,
        "rows_from": size.source,
        "usual_seconds": seconds,
        "usd_at_most": (
            round(estimate(batch, seconds, region=settings.region).usd, 4) if seconds else None
        ),
        "warning": platform_for(job, engine, today=datetime.now(UTC).date()).warning,
        "batch": batch,
    }
