"""Fake of Cloud Monitoring's MetricService over gRPC, with the client's own types.

It enforces the service's limits of user-defined metrics: one point for each series and call, 200
series a call, increasing end times, 5 seconds between two points of a series, and the kind, the
value type and the labels of the descriptor. As the service does, it writes the valid series of a
call and refuses the others.

Sources: https://cloud.google.com/monitoring/quotas,
https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/create
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from google.api.metric_pb2 import MetricDescriptor
from google.cloud.monitoring_v3 import CreateTimeSeriesRequest, TimeSeries
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]

SERVICE = "google.monitoring.v3.MetricService"
SERIES_A_CALL = 200
SECONDS_BETWEEN_POINTS = 5.0
OLDEST = timedelta(hours=25)
NEWEST = timedelta(minutes=5)
"""Limits of a point's end time, around the service's clock."""

CUSTOM_TYPE = re.compile(r"custom\.googleapis\.com/[A-Za-z0-9][A-Za-z0-9_/]{1,99}")

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A time series: type of the metric and labels, sorted by name."""

StoredPoint = tuple[datetime, float]


def read_descriptors(path: Path) -> dict[str, dict[str, Any]]:
    """Return the descriptors of terraform/metric_descriptors.json by type, as the REST API has
    them.
    """
    descriptors = {}
    for entry in json.loads(path.read_text(encoding="utf-8")).values():
        descriptors[entry["type"]] = {
            "metricKind": entry["kind"],
            "valueType": entry["value_type"],
            "labels": [{"key": label} for label in entry["labels"]],
        }
    return descriptors


def _unix_now() -> datetime:
    return datetime.now(UTC)


def _let_pass(authorization: str) -> None:
    """Let every call pass."""


@dataclass
class FakeMonitoring:
    """The service.

    Attributes:
        descriptors: descriptors by type, in the REST API's form. A point of another type is
            refused; the service itself would make a descriptor.
        now: the service's clock, UTC.
        refusal: returns why a call is refused, from its `authorization`; None lets it pass.
        seconds_between_points: least time between two points of a series.
        delay_seconds: time before an answer, as of a slow service.
        points: the points of each series in the order of their end times.
        calls: number of series of each call.
    """

    descriptors: Mapping[str, Mapping[str, Any]]
    now: Callable[[], datetime] = _unix_now
    refusal: Callable[[str], str | None] = _let_pass
    seconds_between_points: float = SECONDS_BETWEEN_POINTS
    delay_seconds: float = 0.0
    points: dict[Key, list[StoredPoint]] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def series(self, type_: str) -> dict[tuple[str, ...], list[StoredPoint]]:
        """Return the points of a metric by the values of its labels, in their names' order."""
        series = {}
        for (name, labels), points in self.points.items():
            if name == type_:
                series[tuple(value for _, value in labels)] = points
        return series

    def newest(self) -> list[dict[str, Any]]:
        """Return the newest point of each series: type, labels, end time and value."""
        return [
            {
                "type": type_,
                "labels": dict(labels),
                "time": points[-1][0].isoformat(),
                "value": points[-1][1],
            }
            for (type_, labels), points in sorted(self.points.items())
        ]

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Serve while the block runs; yields HOST:PORT, without TLS."""
        server = grpc.server(ThreadPoolExecutor(max_workers=4))
        handlers = {
            "CreateTimeSeries": grpc.unary_unary_rpc_method_handler(
                self._create_time_series,
                request_deserializer=CreateTimeSeriesRequest.deserialize,
                response_serializer=Empty.SerializeToString,
            )
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            self._ended.set()
            server.stop(grace=None).wait()

    def _create_time_series(self, request: CreateTimeSeriesRequest, context: Any) -> Empty:
        if self.delay_seconds:
            self._ended.wait(self.delay_seconds)
        metadata = dict(context.invocation_metadata())
        if reason := self.refusal(str(metadata.get("authorization", ""))):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
        if not re.fullmatch(r"projects/[^/]+", request.name):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Name {request.name!r} is no project")
        with self._lock:
            errors = list(self._write(list(request.time_series)))
        if errors:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"One or more TimeSeries could not be written: {'; '.join(errors)}",
            )
        return Empty()

    def _write(self, series: list[TimeSeries]) -> Iterator[str]:
        """Write the valid series; yield why the others are refused."""
        self.calls.append(len(series))
        if not 0 < len(series) <= SERIES_A_CALL:
            yield f"a call has 1 to {SERIES_A_CALL} time series, and this one has {len(series)}"
            return
        repeated = Counter(map(_key, series))
        for entry in series:
            key = _key(entry)
            problem = (
                "Duplicate TimeSeries encountered. Only one point can be written per TimeSeries per"
                " request"
                if repeated[key] > 1
                else next(self._problems(entry, self.points.get(key, [])), None)
            )
            if problem:
                yield f"timeSeries[{entry.metric.type}]: {problem}"
            else:
                self.points.setdefault(key, []).append(_stored(entry))

    def _problems(self, entry: TimeSeries, stored: list[StoredPoint]) -> Iterator[str]:
        if not CUSTOM_TYPE.fullmatch(entry.metric.type):
            yield "no type of a user-defined metric"
            return
        descriptor = self.descriptors.get(entry.metric.type)
        if descriptor is None:
            yield "there is no descriptor of this type"
            return
        yield from _differences(entry, descriptor)
        if len(entry.points) != 1:
            yield f"a series must have one point, and this one has {len(entry.points)}"
            return
        end, _ = _stored(entry)
        start = entry.points[0].interval.start_time
        if start is not None and start != end:
            yield "a GAUGE has no interval: start and end time must be equal"
        if not self.now() - OLDEST <= end <= self.now() + NEWEST:
            yield f"the end time {end} is more than 25 hours ago, or in the future"
        if stored and end <= stored[-1][0]:
            yield "Points must be written in order"
        elif stored and (end - stored[-1][0]).total_seconds() < self.seconds_between_points:
            yield (
                "One or more points were written more frequently than the maximum sampling period"
                " configured for the metric"
            )


def _key(entry: TimeSeries) -> Key:
    return entry.metric.type, tuple(sorted(entry.metric.labels.items()))


def _stored(entry: TimeSeries) -> StoredPoint:
    point = entry.points[0]
    value = point.value
    number = value.int64_value if "int64_value" in value else value.double_value
    return point.interval.end_time, float(number)


def _differences(entry: TimeSeries, descriptor: Mapping[str, Any]) -> Iterable[str]:
    """Yield how a series differs from its descriptor."""
    names = {label["key"] for label in descriptor.get("labels", [])}
    if set(entry.metric.labels) != names:
        yield f"the labels are {sorted(entry.metric.labels)}, not {sorted(names)}"
    kind = MetricDescriptor.MetricKind.Name(entry.metric_kind)
    if kind not in ("METRIC_KIND_UNSPECIFIED", descriptor["metricKind"]):
        yield "the kind is not the descriptor's"
    has_integer = bool(entry.points) and "int64_value" in entry.points[0].value
    if has_integer != (descriptor["valueType"] == "INT64"):
        yield "the value type is not the descriptor's"
    if entry.resource.type != "global" or set(entry.resource.labels) != {"project_id"}:
        yield "the monitored resource must be `global` with its label project_id"
