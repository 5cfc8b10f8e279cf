"""Tests that the fake of Cloud Monitoring enforces the service's limits, by Google's client."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.api.metric_pb2 import MetricDescriptor
from google.api_core.exceptions import InvalidArgument
from google.cloud.monitoring_v3 import MetricServiceClient, TimeSeries
from google.cloud.monitoring_v3.services.metric_service.transports import (
    MetricServiceGrpcTransport,
)

from emulator.services.fake_monitoring import FakeMonitoring
from tests.support.monitoring_series import terraform_descriptors

START = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
ROWS = "custom.googleapis.com/yieldspark/rows"


class Clock:
    """A service's clock that the test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Writer:
    """Google's client on the fake."""

    def __init__(self, fake: FakeMonitoring, client: MetricServiceClient) -> None:
        self.fake = fake
        self._client = client

    def __call__(self, *series: TimeSeries) -> None:
        self._client.create_time_series(name="projects/p", time_series=list(series), retry=None)


def entry(seconds: float = 0.0, kind: str = "read", **changes: Any) -> TimeSeries:
    """Return a valid series of one point `seconds` after START, with changes."""
    end = START + timedelta(seconds=seconds)
    values: dict[str, Any] = {
        "metric": {"type": ROWS, "labels": {"job": "calculate_metrics", "kind": kind}},
        "resource": {"type": "global", "labels": {"project_id": "p"}},
        "metric_kind": MetricDescriptor.MetricKind.GAUGE,
        "points": [{"interval": {"end_time": end}, "value": {"int64_value": 7}}],
    }
    return TimeSeries(**values | changes)


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def served(clock: Clock) -> Iterator[Writer]:
    fake = FakeMonitoring(terraform_descriptors(), now=clock)
    with fake.listening() as address:
        channel = grpc.insecure_channel(address)
        client = MetricServiceClient(transport=MetricServiceGrpcTransport(channel=channel))
        yield Writer(fake, client)
        client.transport.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def write(served: Writer, clock: Clock) -> Writer:
    served.fake.points.clear()
    clock.now = START
    return served


def test_valid_points_are_stored(write: Writer) -> None:
    write(entry(0.0), entry(0.0, "inserted"))
    write(entry(5.0))
    assert write.fake.series(ROWS) == {
        ("calculate_metrics", "read"): [(START, 7.0), (START + timedelta(seconds=5), 7.0)],
        ("calculate_metrics", "inserted"): [(START, 7.0)],
    }


def _two_points() -> TimeSeries:
    point = {"interval": {"end_time": START}, "value": {"int64_value": 7}}
    return entry(points=[point, point])


def _interval() -> TimeSeries:
    interval = {"start_time": START - timedelta(minutes=1), "end_time": START}
    return entry(points=[{"interval": interval, "value": {"int64_value": 7}}])


def _double() -> TimeSeries:
    return entry(points=[{"interval": {"end_time": START}, "value": {"double_value": 7.0}}])


def _metric(type_: str, **labels: str) -> TimeSeries:
    return entry(metric={"type": type_, "labels": labels})


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([_two_points()], "must have one point, and this one has 2"),
        ([entry(), entry()], "Only one point can be written per TimeSeries"),
        ([entry(kind=str(number)) for number in range(201)], "and this one has 201"),
        ([entry(metric_kind=MetricDescriptor.MetricKind.CUMULATIVE)], "kind is not"),
        ([_interval()], "a GAUGE has no interval"),
        ([_double()], "value type is not"),
        ([_metric(ROWS, job="calculate_metrics")], "the labels are ['job']"),
        ([_metric("custom.googleapis.com/yieldspark/unknown")], "no descriptor"),
        ([_metric("compute.googleapis.com/instance/cpu")], "no type of a user-defined metric"),
        ([entry(resource={"type": "gce_instance"})], "must be `global`"),
        ([entry(-26 * 3600)], "more than 25 hours ago"),
        ([entry(3600)], "in the future"),
    ],
)
def test_a_call_beyond_a_limit_is_refused(
    series: list[TimeSeries], message: str, write: Writer
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        write(*series)
    assert message in str(refused.value)
    assert write.fake.points == {}


@pytest.mark.parametrize(
    ("seconds", "message"),
    [(0.0, "in order"), (-60.0, "in order"), (4.9, "more frequently")],
)
def test_times_of_a_series_increase_by_five_seconds(
    seconds: float, message: str, write: Writer
) -> None:
    write(entry(0.0))
    with pytest.raises(InvalidArgument, match=message):
        write(entry(seconds), entry(seconds, "inserted"))
    # the valid series of the call is written
    assert ("calculate_metrics", "inserted") in write.fake.series(ROWS)
