"""The table of jobs, and that one more entry is enough for one more job."""

from __future__ import annotations

import importlib.util
import json

import pytest

import cli.main  # noqa: F401 - registers the commands on the application
from cli.app import app
from common.errors import ConfigurationError
from common.jobs import JOBS, job_names, job_spec
from tests.support.batches import RELEASE, TODAY, cloud_settings
from tests.support.third_job import THIRD_JOB, third_job_added
from workflows.releases.code_archive import job_paths
from workflows.releases.release_batches import build_batches_json
from workflows.releases.release_content import job_entry_files


def test_names_every_job_once() -> None:
    for attribute in ("name", "module", "short_name", "request_prefix"):
        values = [getattr(job, attribute) for job in JOBS]
        assert len(set(values)) == len(values), attribute
    # the service takes 40 characters, and a UUID has 36
    assert max(len(job.request_prefix) for job in JOBS) <= 3


def test_every_job_is_a_command_and_a_module() -> None:
    for job in JOBS:
        assert importlib.util.find_spec(job.module)
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert set(job_names()) <= commands


def test_rejects_an_unknown_job() -> None:
    with pytest.raises(ConfigurationError, match="ingest is no job; allowed: calculate_metrics, "):
        job_spec("ingest")


def test_third_job_is_in_the_release() -> None:
    with third_job_added():
        batches = json.loads(json.dumps(build_batches_json(cloud_settings(), RELEASE, today=TODAY)))
        entries, paths = job_entry_files(), job_paths()
    assert [job["name"] for job in batches["jobs"]] == [
        "calculate_metrics",
        "forecast_pools",
        THIRD_JOB.name,
    ]
    assert batches["jobs"][2] == {
        "name": "score_pools",
        "short_name": "scores",
        "request_prefix": "s",
        "engines": [],
        "options": [
            {"name": "start", "flag": "--start", "has_value": True},
            {"name": "dry_run", "flag": "--dry-run", "has_value": False},
        ],
    }
    batch = batches["batches"][THIRD_JOB.name]
    assert batch["pysparkBatch"]["mainPythonFileUri"].endswith("/score_pools.py")
    assert batches["cloud_run_jobs"][THIRD_JOB.name] == "yieldspark-score-pools"
    assert b"from scoring.score_pools_spark import main" in entries["score_pools.py"]
    assert "scoring" in paths
