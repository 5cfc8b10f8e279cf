"""Scenarios of the workflow: each executes a source and asserts the outcome. The tests of the
workflow and of its faults share them.

A scenario takes a folder, an executor, and the source: pipeline.yaml, or a copy with a fault.
"""

from __future__ import annotations

from tests.support import (
    batch_scenarios,
    platform_scenarios,
    release_scenarios,
    validation_scenarios,
)
from tests.support.scenario_checks import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    batch_scenarios.success,
    batch_scenarios.usage_comes_later,
    batch_scenarios.usage_never_comes,
    batch_scenarios.arguments_reach_the_jobs,
    batch_scenarios.failed,
    batch_scenarios.second_failed,
    batch_scenarios.cancelled,
    batch_scenarios.unavailable_twice,
    batch_scenarios.lost_answer,
    batch_scenarios.batch_is_there_already,
    batch_scenarios.create_is_aborted,
    batch_scenarios.not_created,
    batch_scenarios.deadline,
    batch_scenarios.deadline_without_an_end,
    batch_scenarios.ended_well_while_cancelled,
    release_scenarios.rollback,
    platform_scenarios.on_cloud_run,
    platform_scenarios.platform_of_the_release,
    platform_scenarios.failed_on_cloud_run,
    platform_scenarios.deadline_on_cloud_run,
    platform_scenarios.job_is_missing_on_cloud_run,
    batch_scenarios.second_execution,
    batch_scenarios.batch_is_gone,
    batch_scenarios.long_silence,
    release_scenarios.broken_release,
    release_scenarios.changed_release,
    release_scenarios.wrong_argument,
    release_scenarios.third_job,
    validation_scenarios.validated,
    validation_scenarios.validation_failed,
    validation_scenarios.validation_not_started,
)
