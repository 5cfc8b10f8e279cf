"""Settings of the time series that runs write."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from common.settings.text_forms import HOST_AND_PORT


class MonitoringSettings(BaseSettings):
    """Monitoring: the time series that a run writes when it ends."""

    monitoring_emitter: Literal["cloud_monitoring", "log", "null"] = Field(
        "null",
        description=(
            "what writes the time series of a run: Cloud Monitoring (`cloud_monitoring`), the log"
            " (`log`), or nothing (`null`)"
        ),
    )
    monitoring_endpoint: Annotated[str | None, Field(pattern=HOST_AND_PORT)] = Field(
        None,
        description=(
            "HOST:PORT of a Cloud Monitoring without TLS, such as the local emulator's; unset:"
            " Google's"
        ),
    )
