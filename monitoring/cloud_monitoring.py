"""Writes points to Cloud Monitoring (`MetricService.CreateTimeSeries`, gRPC).

The job creates no descriptors: Terraform owns them, with the alerts that name them, so that a
release can not change the type of a series that an alert reads, and the job's account needs no
further right. Source of the limits: https://cloud.google.com/monitoring/quotas
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import grpc
from google.api.metric_pb2 import MetricDescriptor
from google.cloud.monitoring_v3 import MetricServiceClient, TimeSeries
from google.cloud.monitoring_v3.services.metric_service.transports import (
    MetricServiceGrpcTransport,
)

from common.errors import ConfigurationError
from common.google.clients import credentials, require_settings, translate_google_errors
from config_spark import Settings
from monitoring.series import Point

SERIES_A_CALL = 200
"""Most time series of one call."""


class CloudMonitoringEmitter:
    """Writes points to the project's Cloud Monitoring.

    Args:
        settings: the project, and MONITORING_ENDPOINT for an emulator.

    Raises:
        ConfigurationError: PROJECT_ID is not set, or GOOGLE_API_ENDPOINT replaces Google's services
            and MONITORING_ENDPOINT does not.
    """

    def __init__(self, settings: Settings) -> None:
        require_settings(settings, "project_id")
        if settings.google_api_endpoint and not settings.monitoring_endpoint:
            # never the real service while an emulator replaces the others
            raise ConfigurationError(
                "MONITORING_ENDPOINT is not set, and GOOGLE_API_ENDPOINT replaces Google's"
                " services: set it to the emulator's address, or MONITORING_EMITTER=null"
            )
        self._settings = settings

    def emit(self, points: Sequence[Point], at: datetime, seconds: float) -> None:
        """Write points, in calls of at most SERIES_A_CALL.

        Raises:
            EnvironmentNotReady: there are no credentials.
            CloudUnavailable: the service does not answer in time.
            CloudRefused: the service refused points; it has written the others of the call.
        """
        name = f"projects/{self._settings.project_id}"
        series = [_time_series(self._settings.project_id or "", point, at) for point in points]
        with self._client() as (client, metadata), translate_google_errors("Cloud Monitoring"):
            for start in range(0, len(series), SERIES_A_CALL):
                # without a retry: a point that was written would be refused the second time
                client.create_time_series(
                    name=name,
                    time_series=series[start : start + SERIES_A_CALL],
                    retry=None,
                    timeout=seconds,
                    metadata=metadata,
                )

    @contextmanager
    def _client(self) -> Iterator[tuple[MetricServiceClient, list[tuple[str, str]]]]:
        """Yield a client and the metadata of its calls; close the connection."""
        address = self._settings.monitoring_endpoint
        google = credentials(self._settings) if not address else None
        if not address:
            client = MetricServiceClient(credentials=google)
            metadata: list[tuple[str, str]] = []
        else:
            channel = grpc.insecure_channel(address)
            client = MetricServiceClient(transport=MetricServiceGrpcTransport(channel=channel))
            metadata = self._emulator_metadata()
        try:
            yield client, metadata
        finally:
            client.transport.close()  # type: ignore[no-untyped-call]

    def _emulator_metadata(self) -> list[tuple[str, str]]:
        """Return the token of an emulator; gRPC adds none to a connection without TLS."""
        if self._settings.google_api_token_file is None:
            return []
        token = credentials(self._settings).token
        return [("authorization", f"Bearer {token}")]


def _time_series(project: str, point: Point, at: datetime) -> TimeSeries:
    value = (
        {"int64_value": int(point.value)}
        if point.series.value_type == "INT64"
        else {"double_value": float(point.value)}
    )
    return TimeSeries(
        metric={"type": point.series.type, "labels": point.label_values},
        # one series for the project, whatever machine the job runs on
        resource={"type": "global", "labels": {"project_id": project}},
        metric_kind=MetricDescriptor.MetricKind.Value(point.series.kind),
        value_type=MetricDescriptor.ValueType.Value(point.series.value_type),
        points=[{"interval": {"end_time": at}, "value": value}],
    )
