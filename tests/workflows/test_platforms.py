"""Tests the table of runtimes: which job runs on which, and until when."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from common.errors import ConfigurationError
from tests.support.batches import BATCHES, TODAY
from workflows.spec.platforms import SCALA_OF_RUNTIME, platform_for, platform_rows


@pytest.mark.parametrize(
    ("job", "engine", "runtime", "scala"),
    [
        ("calculate_metrics", None, "2.3", "2.13"),
        ("forecast_pools", "lightgbm", "2.3", "2.13"),
        ("forecast_pools", "synapseml", "1.2", "2.12"),
    ],
)
def test_the_table_of_the_design(job: str, engine: str | None, runtime: str, scala: str) -> None:
    platform = platform_for(job, engine, today=TODAY)
    assert (platform.runtime, platform.spark, platform.scala) == (runtime, "3.5", scala)
    assert SCALA_OF_RUNTIME[platform.runtime] == platform.scala


def test_it_has_each_pair_once_and_no_other() -> None:
    assert [(row.job, row.engine) for row in platform_rows()] == [
        BATCHES[0],
        BATCHES[2],
        BATCHES[1],
    ]


@pytest.mark.parametrize(
    ("job", "engine"),
    [
        ("calculate_metrics", "lightgbm"),
        ("forecast_pools", None),
        ("forecast_pools", "xgboost"),
        ("ingest", None),
    ],
)
def test_a_pair_outside_the_table_is_refused_with_the_table(job: str, engine: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        platform_for(job, engine, today=TODAY)
    message = str(caught.value)
    assert message.startswith(
        f"{job}/{engine} has no platform" if engine else f"{job} has no platform"
    )
    assert (
        "forecast_pools/synapseml on runtime 1.2 (Spark 3.5, Scala 2.12), supported to 2026-09-30,"
        " available to 2028-09-30" in message
    )
    assert (
        "calculate_metrics on runtime 2.3 (Spark 3.5, Scala 2.13), supported to 2027-11-26,"
        " available to 2029-11-26" in message
    )


def test_without_support_it_runs_on_with_a_warning_that_names_the_way_out() -> None:
    last_day = date(2026, 9, 30)
    assert platform_for("forecast_pools", "synapseml", today=last_day).warning is None
    warning = platform_for(
        "forecast_pools", "synapseml", today=last_day + timedelta(days=1)
    ).warning
    assert (
        warning
        == "runtime 1.2 of forecast_pools/synapseml has had no support since 2026-09-30 and is"
        " available until 2028-09-30; ENGINE=lightgbm has a supported one"
    )
    assert platform_for("forecast_pools", "lightgbm", today=TODAY).warning is None


def test_after_its_last_day_it_is_refused() -> None:
    last_day = date(2028, 9, 30)
    assert platform_for("forecast_pools", "synapseml", today=last_day).warning
    with pytest.raises(
        ConfigurationError,
        match=r"runtime 1\.2 is available to 2028-09-30 only, and today is 2028-10-01",
    ):
        platform_for("forecast_pools", "synapseml", today=last_day + timedelta(days=1))
