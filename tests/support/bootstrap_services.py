"""Fakes of Service Usage, Cloud Storage and Secret Manager for the calls of
`terraform/bootstrap.sh`, which uses the real gcloud. A resource exists after its creation;
others are 404. Paths: gcloud's requests (SDK 528),
https://cloud.google.com/secret-manager/docs/reference/rest.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

NOT_FOUND = (404, {"error": {"code": 404, "message": "Not found", "status": "NOT_FOUND"}})
APIS = ("STORAGE", "SECRETMANAGER", "SERVICEUSAGE", "CLOUDRESOURCEMANAGER")


class BootstrapServices:
    """State of the project: JSON by path, enabled APIs, values of the secret."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.apis: list[str] = []
        self.secrets: list[str] = []

    def answer(self, method: str, address: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and JSON."""
        path, query = urlsplit(address).path, parse_qs(urlsplit(address).query)
        if path.endswith("/services:batchEnable"):
            self.apis += body["serviceIds"]
            return 200, {"name": "operations/noop.DONE_OPERATION", "done": True}
        if method == "POST" and path.endswith("/b"):
            bucket = {**body, "kind": "storage#bucket", "id": body["name"], "metageneration": "1"}
            return 200, self.documents.setdefault(f"{path}/{body['name']}", bucket)
        if method == "POST" and path.endswith("/secrets"):
            name = f"{path.removeprefix('/v1/')}/{query['secretId'][0]}"
            return 200, self.documents.setdefault(f"/v1/{name}", {**body, "name": name})
        if method == "POST" and path.endswith(":addVersion"):
            return self._add_version(path.removesuffix(":addVersion"), body["payload"])
        if path not in self.documents:
            return NOT_FOUND
        if method == "PATCH":
            self.documents[path].update(body)
        return 200, self.documents[path]

    def _add_version(self, path: str, payload: dict[str, str]) -> tuple[int, Any]:
        if path not in self.documents:
            return NOT_FOUND
        self.secrets.append(base64.b64decode(payload["data"]).decode())
        version = {
            "name": f"{path.removeprefix('/v1/')}/versions/{len(self.secrets)}",
            "state": "ENABLED",
            "clientSpecifiedPayloadChecksum": "dataCrc32c" in payload,
        }
        self.documents[f"{path}/versions/latest"] = version
        return 200, version


@contextmanager
def served(services: BootstrapServices, folder: Path) -> Iterator[dict[str, str]]:
    """Serve while the block runs.

    Args:
        services: The fakes.
        folder: Receives gcloud's configuration.

    Yields:
        Variables that direct gcloud to these services only.
    """

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = services.answer(
                self.command, self.path, json.loads(content) if content else {}
            )
            answer = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = handle_any

        def log_message(self, *_: object) -> None:
            """The requests are no output of the test."""

    token = folder / "token"
    token.write_text("fake", encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        overrides = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}": address for api in APIS}
        yield {
            **overrides,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{address}storage/v1/",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(token),
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
        }
        server.shutdown()
