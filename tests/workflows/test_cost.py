"""Tests the list price of a batch before and after it runs, and its record in the ledger."""

from __future__ import annotations

import tomllib
from datetime import date

import pytest
from sqlalchemy import Engine, text

from common.errors import ConfigurationError
from config_spark import Settings
from database.ledger.run_json import LEDGER_KEYS
from database.ledger.run_records import read_run
from database.ledger.runs import open_run
from tests.support.batches import a_batch
from workflows.costs.cost import PRICES, actual_cost, cloud_run_usd, estimate, region_of
from workflows.costs.cost_ledger import record_cost

BATCH_ID = "metrics-0b5f7a52-9d0e-4c7e-8a63-0f6f1e2d3c4b"
NAME = f"projects/p/locations/us-central1/batches/{BATCH_ID}"


def test_the_example_of_the_pricing_page() -> None:
    """12 DCU and 25 GB of shuffle storage for 24 hours in us-central1: 17.28 USD of computing.
    int64 values are texts in JSON.
    """
    usage = {"milliDcuSeconds": str(12_000 * 86_400), "shuffleStorageGbSeconds": str(25 * 86_400)}
    cost = actual_cost({"name": NAME, "runtimeInfo": {"approximateUsage": usage}})
    assert cost is not None
    assert (cost.dcu_hours, cost.region) == (288, "us-central1")
    assert cost.shuffle_gb_months == pytest.approx(25 * 24 / 720)
    assert cost.usd == pytest.approx(17.28 + 25 * 0.04 * 24 / 720)


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"runtimeInfo": {}},
        {"runtimeInfo": {"approximateUsage": {}}},
        {"runtimeInfo": {"currentUsage": {"milliDcu": "1"}}},
    ],
)
def test_there_is_no_cost_before_the_service_reports_usage(batch: dict[str, object]) -> None:
    assert actual_cost(batch) is None


def test_the_services_own_machine_is_the_pages_four_dcu() -> None:
    """By the pricing page, 4 vCPU and 16 GB are 4 DCU, so driver and two executors have 12.

    Each has a disk of 400 GB (example of `batches describe`).
    """
    cost = estimate({"name": NAME}, 3600)
    assert cost.dcu_hours == pytest.approx(12, rel=0.001)
    assert cost.shuffle_gb_months == pytest.approx(1200 / 720)


def test_memory_above_eight_gb_a_core_costs_twice() -> None:
    driver = {"spark.driver.memoryOverhead": "0m"}
    at_eight, above = (
        {"runtimeConfig": {"properties": driver | {"spark.driver.memory": size}}}
        for size in ("28g", "38g")
    )
    # 28 GB requested and 2.88 of the system; the next 10 exceed 32
    more = 0.1 * (32 - 30.88) + 0.2 * (40.88 - 32)
    assert estimate(above, 3600).dcu_hours - estimate(at_eight, 3600).dcu_hours == pytest.approx(
        more
    )


def test_executors_that_may_come_are_counted_and_a_minute_is_the_least() -> None:
    small, ceiling = a_batch(), a_batch(expected_rows=30_000_000)
    assert estimate(ceiling, 600).dcu_hours == pytest.approx(estimate(small, 600).dcu_hours * 4 / 3)
    assert estimate(small, 1) == estimate(small, 60)
    assert estimate(small, 120).usd == pytest.approx(2 * estimate(small, 60).usd)


def test_the_region_is_the_batchs_own_and_one_without_a_price_is_refused() -> None:
    assert region_of(a_batch()) == "europe-west1"
    assert region_of({"name": NAME} | a_batch()) == "us-central1"
    assert region_of(a_batch(batch_subnetwork="yieldspark")) == "us-central1"
    assert estimate(a_batch(), 600).usd > estimate(a_batch(), 600, region="us-central1").usd
    with pytest.raises(
        ConfigurationError,
        match=r"prices\.toml has no prices of region 'moon-1'; it has us-central1, .* Add a line",
    ):
        estimate(a_batch(), 600, region="moon-1")


def test_the_price_table_has_its_day_its_sources_and_a_price_for_each_region() -> None:
    text = PRICES.read_text(encoding="utf-8")
    table = tomllib.loads(text)
    assert isinstance(table["read_on"], date)
    assert {
        rates.keys() <= {"dcu_hour", "shuffle_gb_month"} and min(rates.values()) > 0
        for rates in table["serverless"]["regions"].values()
    } == {True}
    for source in (
        "https://cloud.google.com/dataproc-serverless/pricing",
        "https://cloud.google.com/run/pricing",
        "https://cloud.google.com/sql/pricing",
        "PerfKitBenchmarker",
    ):
        assert source in text


def test_a_cloud_run_job_is_billed_for_a_minute_at_least_and_by_the_tier_of_its_region() -> None:
    minute = cloud_run_usd(4, 16, 60, region="us-central1")
    assert minute == pytest.approx(60 * (4 * 0.000018 + 16 * 0.000002))
    assert cloud_run_usd(4, 16, 5, region="us-central1") == minute
    # the price list has 0.0000252 for a vCPU-second in London
    assert cloud_run_usd(1, 0, 3600, region="europe-west2") == pytest.approx(3600 * 0.0000252)


def test_the_cost_of_a_batch_finds_the_row_of_its_run(database: Settings, engine: Engine) -> None:
    with open_run(engine, job="calculate_metrics", mode="incremental", batch_id=BATCH_ID) as run:
        pass
    with open_run(engine, job="calculate_metrics", mode="incremental"):
        pass
    assert record_cost(database, BATCH_ID, 0.0234) == 1
    assert record_cost(database, "metrics-of-another-night", 1.0) == 0
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT run_id, batch_id, cost_usd FROM yieldspark.run_ledger ORDER BY cost_usd"
                " NULLS LAST"
            )
        ).all()
    assert [tuple(row)[1:] for row in rows] == [(BATCH_ID, 0.0234), (None, None)]
    assert rows[0].run_id == run.run_id
    assert tuple(read_run(engine, run.run_id).to_json()) == LEDGER_KEYS
