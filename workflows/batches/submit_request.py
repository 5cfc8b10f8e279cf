"""What a submit sends, made before anything is sent: ids, body, size, and what a usual run costs.

In: settings, a job and its options. Out: plain values, as `--dry-run` prints them. The release is
read, and where DB_HOST names a database, the job's plan and its past runs. Seconds, USD.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from statistics import median
from typing import Any

from common.errors import ConfigurationError
from common.google.clients import required
from common.jobs import job_spec
from config_spark import Settings
from data_processing.planning.run_request import Request
from workflows.batches.row_estimate import rows_of
from workflows.costs.cost import estimate
from workflows.costs.cost_ledger import usual_seconds
from workflows.releases.release import released
from workflows.spec.batch_request import REQUIRED_SETTINGS, batch_id, build_batch, request_id
from workflows.spec.platforms import platform_for


def job_arguments(
    job: str, start: date | None, end: date | None, *, full_refresh: bool, as_of: date | None
) -> list[str]:
    """Return the arguments of the job's command line.

    Raises:
        ConfigurationError: an option that the job does not have, or days that are no interval.
    """
    Request(full_refresh, start, end)
    values = {
        "start": str(start) if start else "",
        "end": str(end) if end else "",
        "full_refresh": full_refresh,
        "as_of": str(as_of) if as_of else "",
    }
    options = {option.name: option for option in job_spec(job).options}
    arguments = []
    for name, value in values.items():
        if not value:
            continue
        if name not in options:
            allowed = ", ".join(options[key].flag for key in values if key in options)
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is no option of {job}; allowed: {allowed or 'none'}"
            )
        option = options[name]
        arguments += [option.flag, str(value)] if option.has_value else [option.flag]
    return arguments


def submission(
    settings: Settings,
    job: str,
    arguments: Sequence[str],
    *,
    version: str | None = None,
    rows: int | None = None,
) -> dict[str, Any]:
    """Args: version None is the newest release; rows None leaves the size to the plan. The ids are
    random, and the same for every try of this one.

    Raises: ConfigurationError; BatchFailed where the job's plan fails; CloudRefused,
    CloudUnavailable where the release can't be read.
    """
    required(settings, "project_id", "region", *REQUIRED_SETTINGS)
    engine = job_spec(job).engine_of(settings.engine)
    release = released(settings, version)
    size = rows_of(settings, job, [*arguments, *(["--engine", engine] if engine else [])], rows)
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
