"""fake-gcs-server, another fake of Cloud Storage, as a second opinion on ours.

Built from its Go module if Go and the module are available.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

MODULE = "github.com/fsouza/fake-gcs-server@v1.56.1"


@contextmanager
def fake_gcs_server(folder: Path) -> Iterator[str]:
    """Run the server on a free port during the block; yields its address. `folder` keeps its
    objects.

    Skips if it cannot be built.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        str(Path(_build().name) / "fake-gcs-server"),
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-external-url",
        url,
        "-filesystem-root",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not _answers(url):
                assert process.poll() is None
                time.sleep(0.05)
            yield url
        finally:
            process.kill()


@cache
def _build() -> TemporaryDirectory[str]:
    """Return the folder of the program, which is deleted with this process."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("Go is not installed here")
    folder = TemporaryDirectory(prefix="fake-gcs-server-")
    result = subprocess.run(
        [go, "install", MODULE],
        env=os.environ | {"GOBIN": folder.name},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        pytest.skip(f"Go can't build {MODULE}: {result.stderr[-300:]}")
    return folder


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/storage/v1/b").status_code == 200
    except httpx.TransportError:
        return False
