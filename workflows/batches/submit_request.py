"""Builds the request that `submit` sends: ids, batch, size, and the cost ceiling of a usual run.

Reads the release and, where DB_HOST names a database, the job's plan and its past runs. Sends
nothing to Dataproc. Durations are seconds, costs USD.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from statistics import median
from typing import Any

from common.errors import ConfigurationError
from common.google.clients import require_settings
from config_spark import Settings
from data_processing.planning.run_request import Request
from workflows.batches.row_estimate import ForecastRequest, estimate_rows
from workflows.costs.cost import estimate
from workflows.costs.cost_ledger import usual_seconds
from workflows.releases.release import find_release
from workflows.spec.batch_request import REQUIRED, batch_id, build_batch, request_id
from workflows.spec.platforms import FORECAST_JOB, METRICS_JOB, platform_for


@dataclass(frozen=True)
class JobOptions:
    """Options of one job's command line. Days are UTC; `end` is exclusive."""

    start: date | None = None
    end: date | None = None
    full_refresh: bool = False
    as_of: date | None = None

    def request(self, job: str, engine: str) -> Request | ForecastRequest:
        """Return the run that the options describe.

        Args:
            job: `calculate_pool_metrics` or `forecast_pools`.
            engine: Engine of a forecast.

        Raises:
            ConfigurationError: The job has no such option, or the days are no interval.
        """
        if job == METRICS_JOB:
            if self.as_of:
                raise ConfigurationError(
                    f"--as-of is an option of {FORECAST_JOB}; {METRICS_JOB} has --start with"
                    " --end, and --full-refresh"
                )
            return Request(self.full_refresh, self.start, self.end)
        if self.start or self.end or self.full_refresh:
            raise ConfigurationError(
                f"--start, --end and --full-refresh are options of {METRICS_JOB}; {FORECAST_JOB}"
                " has --as-of"
            )
        return ForecastRequest(self.as_of, engine)

    def arguments(self) -> Sequence[str]:
        """Return the job's command-line arguments."""
        arguments: list[str] = []
        if self.start:
            arguments += ["--start", str(self.start), "--end", str(self.end)]
        if self.full_refresh:
            arguments.append("--full-refresh")
        if self.as_of:
            arguments += ["--as-of", str(self.as_of)]
        return arguments


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
        job: `calculate_pool_metrics` or `forecast_pools`.
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
    request = options.request(job, settings.engine)
    require_settings(settings, "project_id", "region", *REQUIRED)
    engine = settings.engine if job == FORECAST_JOB else None
    release = find_release(settings, version)
    size = estimate_rows(settings, job, request, rows)
    execution = str(uuid.uuid4())
    name = batch_id(job, execution)
    batch = build_batch(
        settings,
        release,
        job,
        engine=engine,
        rows=size.number,
        arguments=[*options.arguments(), "--batch", name],
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
