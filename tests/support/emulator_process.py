"""Runs the PyPI package workflows-emulator as a second interpreter, in its own environment, which
is cached in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from emulator.terraform.google_provider import cache_folder
from emulator.workflow_engine import VirtualClock, WorkflowFailed
from tests.support.workflow_services import Log

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "workflows_emulator_requirements.txt"
DRIVER = HERE / "emulator_driver.py"


def emulator_python() -> Path:
    """Return the Python of the cached environment; create it if it is missing. Skips if its
    packages cannot be installed.
    """
    inputs = f"{sys.base_prefix} {sys.version}".encode() + REQUIREMENTS.read_bytes()
    folder = cache_folder() / "workflows-emulator" / hashlib.sha256(inputs).hexdigest()[:16]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            _install(Path(partial) / "environment")
            # another process may have created it meanwhile
            with suppress(OSError):
                (Path(partial) / "environment").rename(folder)
    return folder / "bin" / "python"


def _install(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--disable-pip-version-check",
        "-r",
        str(REQUIREMENTS),
    ]
    process = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), *install],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        pytest.skip(
            "the workflows emulator can't be installed here:"
            f" {process.stderr.strip().splitlines()[-1]}"
        )


class Emulator:
    """Executes workflows in the emulator's environment, one at a time."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()

    def __call__(
        self,
        source: str,
        argument: Any,
        environment: Mapping[str, str],
        url: str,
        clock: VirtualClock,
        log: Log,
    ) -> Any:
        """Execute a workflow, as an `Executor`; the clock is the one at the url.

        Raises:
            WorkflowFailed: An error was not caught.
            AssertionError: The emulator fails.
        """
        order = {
            "source": source,
            "argument": argument,
            "environment": dict(environment),
            "url": url,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            response = json.loads(self._process.stdout.readline())
        for entry in response["log"]:
            log(entry)
        assert "crash" not in response, response["crash"]
        if "error" in response:
            raise WorkflowFailed(response["error"], [])
        return response["result"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
