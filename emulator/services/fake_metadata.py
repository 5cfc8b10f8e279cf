"""Fake of the metadata server of a machine on Google Cloud: its account, and the account's access
tokens. As the server does, it answers a request with its header only, and hands out the same token
until that is nearly over.

Sources: https://cloud.google.com/compute/docs/metadata/querying-metadata,
https://cloud.google.com/compute/docs/access/authenticate-workloads
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emulator.services.http_service import Answer, ApiError, Request, Service

FLAVOR = {"metadata-flavor": "Google"}
ACCOUNTS = "/computeMetadata/v1/instance/service-accounts/"


@dataclass(frozen=True)
class MetadataToken:
    """An access token and the seconds for which it is valid."""

    token: str
    seconds: int


class FakeMetadata(Service):
    """The server.

    Args:
        account: Address of the machine's service account.
        current: Returns the token of the moment; it may raise ApiError.
    """

    def __init__(self, account: str, current: Callable[[], MetadataToken]) -> None:
        super().__init__()
        self._account = account
        self._current = current
        self.route("GET", "/", self._root)
        self.route("GET", "/computeMetadata/v1/project/project-id", self._project)
        self.route("GET", f"{ACCOUNTS}(?P<name>[^/]+)/", self._described)
        self.route("GET", f"{ACCOUNTS}(?P<name>[^/]+)/token", self._token)

    def _root(self, request: Request) -> Answer:
        _require_flavor(request)
        return Answer(b"computeMetadata/\n", headers=FLAVOR)

    def _project(self, request: Request) -> Answer:
        _require_flavor(request)
        project = self._account.partition("@")[2].partition(".")[0]
        return Answer(project.encode(), headers=FLAVOR | {"content-type": "application/text"})

    def _described(self, request: Request, name: str) -> Answer:
        self._require_account(request, name)
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        described = {"aliases": ["default"], "email": self._account, "scopes": scopes}
        return Answer(described, headers=FLAVOR)

    def _token(self, request: Request, name: str) -> Answer:
        self._require_account(request, name)
        current = self._current()
        token = {
            "access_token": current.token,
            "expires_in": current.seconds,
            "token_type": "Bearer",
        }
        return Answer(token, headers=FLAVOR)

    def _require_account(self, request: Request, name: str) -> None:
        _require_flavor(request)
        if name not in ("default", self._account):
            raise ApiError(404, f"service account {name} not found")


def _require_flavor(request: Request) -> None:
    if request.headers.get("metadata-flavor") != "Google":
        raise ApiError(403, "Missing Metadata-Flavor:Google header.")
