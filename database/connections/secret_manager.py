"""The database's password where DB_PASSWORD_SECRET names it in Google's Secret Manager: fetched
when the job starts, written nowhere.

In: settings. Out: settings with the password. The name may be logged, the value is a `SecretStr` as
soon as it is here.
"""

from __future__ import annotations

from pydantic import SecretStr

from common.errors import CloudRefused
from config_spark import Settings

HOST = "secretmanager.googleapis.com"
ACCESS_SECONDS = 60.0
"""For the answer and the client's own retries; a night must not hang on it."""


def with_password(settings: Settings) -> Settings:
    """The settings, with the password that DB_PASSWORD_SECRET names. DB_PASSWORD wins, and without
    either nothing is fetched.

    Raises: CloudRefused (no such secret, no right to it, not UTF-8), CloudUnavailable,
    EnvironmentNotReady without credentials.
    """
    if settings.db_password or not settings.db_password_secret:
        return settings
    return settings.model_copy(
        update={"db_password": _fetched(settings, settings.db_password_secret)}
    )


def _fetched(settings: Settings, name: str) -> SecretStr:
    # a second of imports that only a job with a secret has to wait for
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
        # what a file or `echo` leaves at the end is no part of a password
        return SecretStr(payload.data.decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise CloudRefused(
            f"DB_PASSWORD_SECRET={name} holds no UTF-8 text; add a version with the password alone"
        ) from None
