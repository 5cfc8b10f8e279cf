"""Credentials and options for Google's official client libraries, for Google Cloud or its emulator.

Errors of the services are translated to errors of `common.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google.auth
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

from common.errors import CloudRefused, CloudUnavailable, ConfigurationError, EnvironmentNotReady
from common.settings.cloud import CloudSettings

TOKEN_ADVICE = "take the variables that `python -m workflows local up` prints"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class TokenError(GoogleAuthError):
    """The emulator asks for a token and none is configured."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class FileTokenCredentials(Credentials):
    """Access token from a file, read again for each refresh: a restarted
    emulator has a new token.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path = path

    def refresh(self, request: object) -> None:
        """Read the file.

        Raises:
            TokenError: the file cannot be read.
        """
        try:
            self.token = self._path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise TokenError(
                f"GOOGLE_API_TOKEN_FILE={self._path}: {error}; {TOKEN_ADVICE}"
            ) from None


class NoTokenCredentials(AnonymousCredentials):
    """Credentials for an emulator that asks for no token."""

    def refresh(self, request: object) -> None:
        """Raise TokenError: the service asks for a token after all."""
        raise TokenError(
            "GOOGLE_API_TOKEN_FILE is not set, and GOOGLE_API_ENDPOINT asks for a token;"
            f" {TOKEN_ADVICE}"
        )


def credentials(settings: CloudSettings) -> Credentials:
    """Return credentials for Google Cloud, or for the emulator at GOOGLE_API_ENDPOINT.

    Returns:
        Application default credentials; with GOOGLE_API_ENDPOINT the token of
            GOOGLE_API_TOKEN_FILE, or none.

    Raises:
        EnvironmentNotReady: there are no credentials, or the token file cannot be read.
    """
    return credentials_of(settings.google_api_endpoint, settings.google_api_token_file)


def credentials_of(endpoint: str | None, token_file: Path | None) -> Credentials:
    """Return credentials; as `credentials`, by the values of its settings."""
    if endpoint:
        return _file_credentials(token_file)
    try:
        default_credentials, _ = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError as error:
        raise EnvironmentNotReady(
            f"no Google Cloud credentials: {error}; run `gcloud auth application-default login`"
        ) from error
    return default_credentials


def _file_credentials(path: Path | None) -> Credentials:
    if path is None:
        # anonymous: never this machine's Google account for an emulator
        return NoTokenCredentials()  # type: ignore[no-untyped-call]
    token = FileTokenCredentials(path)
    try:
        # a missing file is found here, not inside the first request
        token.refresh(None)
    except TokenError as error:
        raise EnvironmentNotReady(str(error)) from None
    return token


def client_options(settings: CloudSettings, regional_host: str) -> ClientOptions:
    """Return the options of a client.

    Args:
        settings: GOOGLE_API_ENDPOINT takes precedence over the host.
        regional_host: address of the service, such as europe-west1-dataproc.googleapis.com.
    """
    return ClientOptions(api_endpoint=settings.google_api_endpoint or regional_host)


def require_settings(settings: CloudSettings, *names: str) -> None:
    """Check that the named settings are set.

    Raises:
        ConfigurationError: names each setting that is not set.
    """
    missing = [name.upper() for name in names if not getattr(settings, name)]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} not set, and Google Cloud needs it; set it in the environment or"
            " in .env"
        )


@contextmanager
def translate_google_errors(subject: str) -> Iterator[None]:
    """Translate errors of Google's clients inside the block.

    Args:
        subject: the object that the request is about, for messages.

    Raises:
        CloudUnavailable: transient: status 429 or 5xx, or no connection.
        CloudRefused: any other error of the service.
    """
    try:
        yield
    except (
        exceptions.TooManyRequests,
        exceptions.ServerError,
        exceptions.RetryError,
        ConnectionError,
        OSError,
    ) as error:
        raise CloudUnavailable(
            f"{subject}: Google Cloud does not answer: {error}. Try again in some minutes"
        ) from error
    except exceptions.GoogleAPICallError as error:
        raise CloudRefused(f"{subject}: Google Cloud refused: {error.message}") from error
    except TokenError as error:
        raise CloudRefused(f"{subject}: {error}") from error
    except GoogleAuthError as error:
        # the other arguments are objects
        reason = " ".join(str(error.args[0] if error.args else error).split())
        raise CloudRefused(
            f"{subject}: no valid credentials: {reason}; run `gcloud auth application-default"
            " login`"
        ) from error
