"""What `workflows run --platform ..` hands to the workflow."""

from __future__ import annotations

import pytest

from common.errors import ConfigurationError
from workflows.commands.run_commands import pipeline_argument, platforms_by_job

METRICS, FORECAST = "calculate_metrics", "forecast_pools"


@pytest.mark.parametrize(
    ("asked", "expected"),
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
def test_a_platform_is_for_both_jobs_or_for_one(asked: list[str], expected: dict[str, str]) -> None:
    assert platforms_by_job(asked) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
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
def test_other_words_and_two_platforms_of_one_job_are_refused(
    asked: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        platforms_by_job(asked)


def test_without_the_option_the_release_decides() -> None:
    nothing = pipeline_argument(
        None, None, None, full_refresh=False, engine=None, platform=None, dry_run=False
    )
    assert nothing == {}
