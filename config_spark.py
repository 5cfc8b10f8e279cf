"""Settings of every command and job: one frozen object, built once from the environment and `.env`.

The fields are in `common/settings/`, by section; this module has the rules that concern several
sections. Other modules do not read `os.environ`: their functions take a `Settings`, a section or a
value.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from common import libpq_variables, registry_address
from common.env_file import ENV_FILE, check_env_file
from common.errors import ConfigurationError
from common.plain_text import has_lone_surrogates, without_credentials
from common.settings.cloud import CloudSettings
from common.settings.database import DatabaseSettings
from common.settings.forecast import ForecastSettings
from common.settings.lineage import LineageSettings
from common.settings.local import LocalSettings
from common.settings.models import ModelSettings
from common.settings.monitoring import MonitoringSettings
from common.settings.quality import QualitySettings
from common.settings.sources import SourceSettings
from common.settings.spark import SparkSettings
from common.settings.text_forms import FORMS


class Settings(
    LocalSettings,
    DatabaseSettings,
    SourceSettings,
    SparkSettings,
    QualitySettings,
    ForecastSettings,
    ModelSettings,
    CloudSettings,
    MonitoringSettings,
    LineageSettings,
):
    """All sections. A variable has the name of its field in upper case.

    `.env` in the working folder is read too; the environment takes precedence.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_encoding(cls, value: object, info: ValidationInfo) -> object:
        # Python keeps bytes that are no UTF-8 as lone surrogates, which no driver can send
        if isinstance(value, str) and has_lone_surrogates(value):
            assert info.field_name is not None, "it is the validator of a field"
            # the name of a folder may have any bytes
            if not _holds_path(cls.model_fields[info.field_name].annotation):
                raise ValueError("it has bytes that are no UTF-8; set it in UTF-8")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_login(cls, value: object) -> object:
        # a password is no `str`
        if isinstance(value, str) and without_credentials(value) != value:
            raise ValueError("it holds credentials, and is shown in messages: leave them out")
        return value

    @model_validator(mode="after")
    def _check_registry_database(self) -> Settings:
        uri = self.mlflow_tracking_uri
        if uri and registry_address.is_in_postgresql(uri):
            registry_address.check_place(
                uri,
                db_host=self.db_host,
                db_name=self.db_name,
                artifacts_uri=self.mlflow_artifacts_uri,
            )
        return self

    @model_validator(mode="after")
    def _check_libpq_variables(self) -> Settings:
        if self.db_host:
            values = {
                name: getattr(self, name.lower()) for name in libpq_variables.SETTINGS.values()
            }
            if refusal := libpq_variables.refusal(os.environ, values):
                raise ValueError(refusal)
        return self

    @model_validator(mode="after")
    def _check_iam_login(self) -> Settings:
        if self.db_iam_auth and (refusal := _iam_refusal(self)):
            raise ValueError(refusal)
        return self

    @model_validator(mode="after")
    def _require_emulator_for_another_clock(self) -> Settings:
        if self.clock_shift_seconds and not self.google_api_endpoint:
            raise ValueError(
                f"CLOCK_SHIFT_SECONDS={self.clock_shift_seconds} moves the clock of a rehearsal on"
                " the emulator, and GOOGLE_API_ENDPOINT is not set; unset CLOCK_SHIFT_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _require_database_in_production(self) -> Settings:
        if self.environment == "production" and not self.db_host:
            raise ValueError(
                "DB_HOST is not set, and ENVIRONMENT=production never starts the embedded server;"
                " set DB_HOST, DB_USER, DB_PASSWORD and DB_NAME"
            )
        return self


TLS_MODES = ("require", "verify-ca", "verify-full")


def _iam_refusal(settings: Settings) -> str | None:
    """Return why settings with DB_IAM_AUTH are refused, or None."""
    if not settings.db_host:
        return (
            "DB_IAM_AUTH=true logs in to Cloud SQL, and the embedded server has no IAM login: set"
            " DB_HOST, or unset DB_IAM_AUTH"
        )
    if settings.db_host.startswith("/") or settings.db_sslmode not in TLS_MODES:
        return (
            f"DB_IAM_AUTH=true sends an access token, and DB_HOST={settings.db_host} with"
            f" DB_SSLMODE={settings.db_sslmode} does not require TLS: set DB_HOST to a host name"
            f" and DB_SSLMODE to {', '.join(TLS_MODES[:-1])} or {TLS_MODES[-1]}"
        )
    passwords = ("db_password", "db_password_secret")
    if configured := [name.upper() for name in passwords if getattr(settings, name)]:
        return (
            f"DB_IAM_AUTH=true and {' and '.join(configured)} are two logins: unset"
            f" {configured[0]}, or DB_IAM_AUTH"
        )
    if "@" not in settings.db_user:
        return (
            f"DB_IAM_AUTH=true and DB_USER={settings.db_user} do not fit: set DB_USER to the"
            " address of the Google account, such as yieldspark-batch@PROJECT.iam"
        )
    return None


def _holds_path(annotation: object) -> bool:
    return annotation is Path or any(_holds_path(part) for part in get_args(annotation))


SECTIONS = tuple(base for base in Settings.__bases__ if issubclass(base, BaseSettings))
"""The sections, in the order of docs/reference/settings.md."""


def load_settings(**overrides: Any) -> Settings:
    """Build the settings.

    Args:
        **overrides: values of fields, from command-line options. They take precedence over the
            environment.

    Returns:
        The validated settings.

    Raises:
        ConfigurationError: a variable is wrong. The message names each one, its value (unless it
            may hold a password) and the allowed values.
    """
    if "_env_file" not in overrides:
        check_env_file({name.upper() for name in Settings.model_fields})
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(_message(problem) for problem in error.errors())
        ) from None


def _message(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0]).upper()
    value = repr(problem["input"])
    # a login in the wrong variable may have any notation
    has_login = "@" in value or without_credentials(value) != value
    if "PASSWORD" in name or "URI" in name or has_login:
        value = "(hidden)"
    if problem["type"] == "string_pattern_mismatch":
        message = f"it must be {FORMS[problem['ctx']['pattern']]}"
    return f"{name}={value} is wrong: {message}"
