"""A third batch job that exists only as an entry of the table of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from common import jobs
from common.jobs import DRY_RUN, JobOption, JobSpec

THIRD_JOB = JobSpec(
    name="score_pools",
    module="scoring.score_pools_spark",
    short_name="scores",
    request_prefix="s",
    options=(JobOption("start"), DRY_RUN),
)


@contextmanager
def third_job_added() -> Iterator[None]:
    """Add the third job to the table of jobs."""
    with patch.object(jobs, "JOBS", (*jobs.JOBS, THIRD_JOB)):
        yield
