"""Access tokens for Cloud SQL's IAM database authentication (DB_IAM_AUTH): a token of this
machine's Google account is the password of a login.

On Google Cloud the metadata server hands out the tokens, elsewhere the application default
credentials. A token is valid for an hour, and a session outlives it: only a login needs it.
Source: https://cloud.google.com/sql/docs/postgres/iam-logins

Spark tasks import this module: Google's library is imported by the first login alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

DOMAIN = ".gserviceaccount.com"
"""End of a service account's address that its database user lacks."""

LEFT_SECONDS = 300.0
"""Shortest remaining validity of a token for a new login. The metadata server replaces its token
about five minutes before the end.
"""

_lock = threading.Lock()


@dataclass(frozen=True)
class AccessTokens:
    """Source of a login's password; Spark tasks receive it in place of a token.

    Attributes:
        endpoint: address of an emulator of Google's services; None: Google's own.
        token_file: file with the token of an emulator.
    """

    endpoint: str | None = None
    token_file: Path | None = None

    def token(self) -> str:
        """Return a token that is valid for some minutes more: never log it.

        Raises:
            EnvironmentNotReady: there are no credentials.
            CloudUnavailable: the metadata server does not answer.
            CloudRefused: the account gets no token.
        """
        from google.auth.transport.requests import Request

        from common.google.clients import translate_google_errors

        # sessions of several threads log in at once: the first one refreshes for all
        with _lock, translate_google_errors("DB_IAM_AUTH"):
            credentials = _credentials(self)
            if _seconds_left(credentials) < LEFT_SECONDS:
                credentials.refresh(Request())  # type: ignore[no-untyped-call]
            return str(credentials.token)


def database_user(account: str) -> str:
    """Return the database user of an account: a service account's address without its domain."""
    return account.removesuffix(DOMAIN)


@cache
def _credentials(source: AccessTokens) -> Credentials:
    from common.google.clients import credentials_of

    return credentials_of(source.endpoint, source.token_file)


def _seconds_left(credentials: Credentials) -> float:
    """Return how long the token is valid; 0 for a file, which is read again."""
    if not credentials.token or credentials.expiry is None:
        return 0.0
    # the library's times are UTC without a zone
    left: float = (credentials.expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    return left
