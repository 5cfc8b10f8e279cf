"""How Google's official clients are reached: with the machine's own credentials, or without any at
the address that stands in for Google.

In: settings. Out: arguments for a client's constructor. Errors of the services leave as errors of
`common.errors`.
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

VARIABLES = "take the variables that `python -m workflows local up` prints"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class TokenRefused(GoogleAuthError):
    """What stands in for Google asks for a token that is not there."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class TokenOfFile(Credentials):
    """The access token that a file has when a request is made: a local cloud that is started again
    has a new one. It stands in the Authorization header and nowhere else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path = path

    def refresh(self, request: object) -> None:
        """Read the file. Raises: TokenRefused."""
        try:
            self.token = self._path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise TokenRefused(
                f"GOOGLE_API_TOKEN_FILE={self._path}: {error}; {VARIABLES}"
            ) from None


class NoToken(AnonymousCredentials):
    """For a service at GOOGLE_API_ENDPOINT that asks for none."""

    def refresh(self, request: object) -> None:
        """Called where the service asks for one after all. Raises: TokenRefused."""
        raise TokenRefused(
            "GOOGLE_API_TOKEN_FILE is not set, and GOOGLE_API_ENDPOINT asks for a token;"
            f" {VARIABLES}"
        )


def credentials(settings: CloudSettings) -> Credentials:
    """Application default credentials; for the local cloud the token of GOOGLE_API_TOKEN_FILE, and
    none without it. Raises: EnvironmentNotReady.
    """
    if settings.google_api_endpoint:
        return _credentials_of_file(settings.google_api_token_file)
    try:
        found, _ = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError as error:
        raise EnvironmentNotReady(
            f"no Google Cloud credentials: {error}; run `gcloud auth application-default login`"
        ) from error
    return found


def _credentials_of_file(path: Path | None) -> Credentials:
    if path is None:
        return NoToken()  # type: ignore[no-untyped-call]
    found = TokenOfFile(path)
    try:
        found.refresh(None)
    except TokenRefused as error:
        raise EnvironmentNotReady(str(error)) from None
    return found


def client_options(settings: CloudSettings, regional_host: str) -> ClientOptions:
    """Args: regional_host is the service's own address, such as
    europe-west1-dataproc.googleapis.com; the setting GOOGLE_API_ENDPOINT wins over it.
    """
    return ClientOptions(api_endpoint=settings.google_api_endpoint or regional_host)


def required(settings: CloudSettings, *names: str) -> None:
    """Raises: ConfigurationError naming each of these settings that is not set."""
    missing = [name.upper() for name in names if not getattr(settings, name)]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} not set, and Google Cloud needs it; set it in the environment or"
            " in .env"
        )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what Google's clients raise inside into the error tree of the product. Args: what is the
    object that the work is about.

    Raises: CloudUnavailable (transient: 429, 5xx, no connection), CloudRefused (the rest).
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
            f"{what}: Google Cloud does not answer: {error}. Try again in some minutes"
        ) from error
    except exceptions.GoogleAPICallError as error:
        raise CloudRefused(f"{what}: Google Cloud refused: {error.message}") from error
    except TokenRefused as error:
        raise CloudRefused(f"{what}: {error}") from error
    except GoogleAuthError as error:
        raise CloudRefused(
            f"{what}: no valid credentials: {error}; run `gcloud auth application-default login`"
        ) from error
