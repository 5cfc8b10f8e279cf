"""Reads the database password from Google's Secret Manager if DB_PASSWORD_SECRET is set.

Happens once, when a job starts. Only the name of the secret may be logged.
"""

from __future__ import annotations

from pydantic import SecretStr

from common.errors import CloudRefused
from config_spark import Settings

HOST = "secretmanager.googleapis.com"
ACCESS_SECONDS = 60.0
"""Time limit, including the client's retries."""


def with_password(settings: Settings) -> Settings:
    """Return the settings with the password that DB_PASSWORD_SECRET names. DB_PASSWORD takes
    precedence.

    Raises:
        CloudRefused: the secret does not exist, is not accessible, or is not UTF-8.
        CloudUnavailable: Secret Manager does not answer.
        EnvironmentNotReady: there are no credentials.
    """
    if settings.db_password or not settings.db_password_secret:
        return settings
    return settings.model_copy(
        update={"db_password": _fetch_password(settings, settings.db_password_secret)}
    )


def _fetch_password(settings: Settings, name: str) -> SecretStr:
    # imported here: it takes a second, and only a job with a secret needs it
    from google.cloud.secretmanager import SecretManagerServiceClient

    from common.google.clients import client_options, credentials, translate_google_errors

    with translate_google_errors(f"DB_PASSWORD_SECRET={name}"):
        client = SecretManagerServiceClient(
            credentials=credentials(settings),
            transport="rest",
            client_options=client_options(settings, HOST),
        )
        payload = client.access_secret_version(name=name, timeout=ACCESS_SECONDS).payload
    try:
        # a file or `echo` adds a line end
        return SecretStr(payload.data.decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise CloudRefused(
            f"DB_PASSWORD_SECRET={name} holds no UTF-8 text; add a version with the password alone"
        ) from None
