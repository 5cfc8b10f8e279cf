"""How big a batch is for the rows it will read: legal for the service at every size, and the
smallest that is on a small night.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigurationError
from emulator.services.dataproc_machines import machine_faults
from tests.support.batches import BATCHES
from workflows.spec.batch_size import Machine, size_for


def test_a_small_night_of_the_metrics_is_the_smallest_batch_there_is() -> None:
    size = size_for("calculate_metrics", None, 1_000_000, max_executors=20)
    smallest = Machine(cores=4, heap_mib=2048, overhead_mib=2048)
    assert (size.driver, size.executor, size.executors_min, size.executors_max) == (
        smallest,
        smallest,
        2,
        2,
    )
    for role in ("driver", "executor"):
        assert machine_faults(size.properties() | {f"spark.{role}.memory": "2047m"}) == [
            f"{role} has 1023.75 MiB of memory a core, overhead included: the standard tier allows"
            " 1024 to 7424, 4096 to 29696 for its 4 cores"
        ]


@given(st.sampled_from(BATCHES), st.integers(0, 20_000_000), st.integers(2, 2000))
def test_every_size_is_legal(pair: tuple[str, str | None], rows: int, ceiling: int) -> None:
    size = size_for(*pair, rows, max_executors=ceiling)
    assert machine_faults(size.properties()) == []
    assert 2 <= size.executors_min <= size.executors_max <= ceiling
    assert size.properties()["spark.default.parallelism"] == str(
        size.executors_max * size.executor.cores
    )
    assert (
        2 * size.executors_max * size.executor.cores <= size.shuffle_partitions <= 10_000
        or size.shuffle_partitions == 10_000
    )


def test_more_rows_get_more_executors_up_to_the_ceiling() -> None:
    executors = [
        size_for("calculate_metrics", None, rows, max_executors=20).executors_max
        for rows in (20_000_000, 28_600_000, 10**9)
    ]
    assert executors == [2, 3, 20]
    assert size_for("calculate_metrics", None, 10**9, max_executors=20).shuffle_partitions == 1000


def test_feature_rows_are_held_where_the_engine_fits() -> None:
    native, spark = (
        size_for("forecast_pools", engine, 900_000, max_executors=20)
        for engine in ("lightgbm", "synapseml")
    )
    measured_mib = 4.1e9 / 2**20
    assert native.driver.overhead_mib + native.driver.heap_mib > 1.4 * measured_mib
    assert native.executor == Machine(4, 2048, 2048)
    assert spark.executor == native.driver
    assert spark.driver.overhead_mib < native.driver.overhead_mib


def test_a_driver_with_more_rows_than_four_cores_may_hold_gets_more_cores() -> None:
    cores = [
        size_for("forecast_pools", "lightgbm", rows, max_executors=20).driver.cores
        for rows in (5_000_000, 12_000_000, 25_000_000)
    ]
    assert cores == [4, 8, 16]


def test_what_no_machine_holds_is_refused_with_its_size() -> None:
    with pytest.raises(
        ConfigurationError,
        match=(
            r"50,000,000 feature rows need 194,831 MiB on one machine, and the standard tier has"
            r" 118,784; .*TRAIN_DAYS"
        ),
    ):
        size_for("forecast_pools", "lightgbm", 50_000_000, max_executors=20)
