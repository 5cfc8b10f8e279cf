"""Settings of the model registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from common import registry_address
from common.settings.numbers import Share
from common.settings.paths import AbsolutePath


class ModelSettings(BaseSettings):
    """Model versions: the registry, and the conditions of a promotion."""

    validation_days: Annotated[int, Field(ge=20, le=180)] = Field(
        45,
        description=(
            "number of days that a new model version is validated on, all after its training data;"
            " they also start the forecast history of the first run; days"
        ),
    )
    max_segment_regression: Share = Field(
        0.05,
        description=(
            "share by which the error of a new version may exceed the champion's in a large"
            " segment of pools; more prevents the promotion"
        ),
    )
    mlflow_tracking_uri: str | None = Field(
        None,
        description=(
            "model registry: a database next to DB_NAME,"
            " postgresql+psycopg2://(value of DB_HOST)/mlflow, with the login of DB_USER; or an"
            " MLflow server with MLflow's own credential variables; unset: a SQLite file in"
            " YIELDSPARK_HOME"
        ),
    )
    mlflow_artifacts_uri: str | None = Field(
        None,
        description=(
            "location of the model files, such as gs://bucket/models; required with a registry in"
            " PostgreSQL; unset: next to the SQLite file, or the server's own"
        ),
    )
    model_parameters_file: AbsolutePath | None = Field(
        None, description="LightGBM parameters written by `tune`; unset: the built-in parameters"
    )

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _registry_address(cls, uri: str | None) -> str | None:
        if uri:
            registry_address.check_form(uri)
        return uri
