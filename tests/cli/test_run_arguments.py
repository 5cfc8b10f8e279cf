"""Tests the platforms that `workflows run --platform ..` passes to the workflow."""

from __future__ import annotations

import pytest

from common.errors import ConfigurationError
from workflows.commands.run_commands import pipeline_argument, platforms_by_job

METRICS, FORECAST = "calculate_metrics", "forecast_pools"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["cloud_run"], {METRICS: "cloud_run", FORECAST: "cloud_run"}),
        ([f"{FORECAST}=cloud_run"], {FORECAST: "cloud_run"}),
        (
            [f"{METRICS}=dataproc", "cloud_run"],
            {METRICS: "dataproc", FORECAST: "cloud_run"},
        ),
        (["dataproc", "dataproc"], {METRICS: "dataproc", FORECAST: "dataproc"}),
    ],
)
def test_a_platform_is_for_both_jobs_or_for_one(
    options: list[str], expected: dict[str, str]
) -> None:
    assert platforms_by_job(options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["auto"],
            "--platform auto is wrong; allowed is dataproc or cloud_run, or one of them for",
        ),
        (["forecast=cloud_run"], "--platform forecast=cloud_run is wrong"),
        ([f"{METRICS}="], "is wrong"),
        (["=dataproc"], "--platform =dataproc is wrong"),
        (["dataproc", "cloud_run"], "names dataproc and cloud_run for calculate_metrics and"),
        (
            [f"{FORECAST}=dataproc", f"{FORECAST}=cloud_run"],
            "names dataproc and cloud_run for forecast_pools; give one",
        ),
    ],
)
def test_unknown_platforms_and_two_platforms_of_one_job_are_refused(
    options: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        platforms_by_job(options)


def test_without_the_option_the_release_decides() -> None:
    nothing = pipeline_argument(
        None, None, None, full_refresh=False, engine=None, platform=None, dry_run=False
    )
    assert nothing == {}
