"""Builds the request that `submit` sends: ids, batch, size, and the cost ceiling of a usual run.

Reads the release and, where DB_HOST names a database, the job's plan and its past runs. Sends
nothing to Dataproc. Durations are seconds, costs USD.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from common.google.clients import require_settings
from common.jobs import job_spec
from config_spark import Settings
from data_processing.planning.run_request import Request
from workflows.batches.row_estimate import RowEstimate, estimate_rows
from workflows.costs.cost import estimate
from workflows.costs.cost_ledger import usual_seconds
from workflows.releases.released_versions import find_release
from workflows.spec.batch_request import batch_id, build_batch, request_id, required_settings
from workflows.spec.job_options import JobOptions
from workflows.spec.platforms import platform_for


@dataclass(frozen=True)
class Submission:
    """The request of one batch.

    Attributes:
        batch_id: Id of the batch, random.
        request_id: Request id, which every retry of this submit reuses.
        parent: `projects/P/locations/R`.
        rows: Rows that size the batch.
        usual_seconds: Median duration of past daily runs; None without past runs.
        usd_at_most: Highest cost of a run of `usual_seconds`; None without past runs.
        warning: The runtime's end of support; None while Google supports it.
        batch: Batch as the REST API's JSON.
    """

    batch_id: str
    request_id: str
    parent: str
    rows: RowEstimate
    usual_seconds: float | None
    usd_at_most: float | None
    warning: str | None
    batch: dict[str, Any]

    def payload(self) -> dict[str, Any]:
        """Return the JSON of `submit --dry-run`."""
        return {
            "batchId": self.batch_id,
            "requestId": self.request_id,
            "parent": self.parent,
            "rows": self.rows.number,
            "rows_from": self.rows.source,
            "usual_seconds": self.usual_seconds,
            "usd_at_most": self.usd_at_most,
            "warning": self.warning,
            "batch": self.batch,
        }


def build_submission(
    settings: Settings,
    job: str,
    options: JobOptions,
    *,
    version: str | None = None,
    rows: int | None = None,
) -> Submission:
    """Build the request of one batch.

    Args:
        settings: Project, region and the job's settings.
        job: Name of the job.
        options: Options of the job's command line.
        version: Release to run; default: the latest.
        rows: Rows to size the batch for; default: from the plan.

    Raises:
        BatchFailed: The job's plan fails.
        CloudRefused: The release cannot be read.
        CloudUnavailable: The release cannot be read now.
        ConfigurationError: A setting or option is missing or wrong.
    """
    arguments = options.arguments(job)
    # rejects days that are no interval before anything is read
    Request(options.full_refresh, options.start, options.end)
    require_settings(settings, "project_id", "region", *required_settings(settings))
    engine = job_spec(job).engine_of(settings.engine)
    release = find_release(settings, version)
    estimated_rows = estimate_rows(settings, job, options, rows)
    execution = str(uuid.uuid4())
    name = batch_id(job, execution)
    batch = build_batch(
        settings,
        release,
        job,
        engine=engine,
        rows=estimated_rows.number,
        # the job writes the id into its ledger row, where `record_cost` looks it up
        arguments=[*arguments, "--batch", name],
    )
    past = usual_seconds(settings, job)
    seconds = median(past) if past else None
    return Submission(
        batch_id=name,
        request_id=request_id(job, execution),
        parent=f"projects/{settings.project_id}/locations/{settings.region}",
        rows=estimated_rows,
        usual_seconds=seconds,
        usd_at_most=(
            round(estimate(batch, seconds, region=settings.region).usd, 4) if seconds else None
        ),
        warning=platform_for(job, engine, today=datetime.now(UTC).date()).warning,
        batch=batch,
    )
