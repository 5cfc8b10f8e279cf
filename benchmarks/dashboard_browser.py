"""The dashboard as a process of its own, and Chromium that opens its pages; for the benchmark, the
pictures of the documentation and the tests.

Chromium is the system's (`apt-get install chromium`): Playwright downloads none.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.processes import PROJECT

START_SECONDS = 120.0
WAIT_MS = 120_000
ARGUMENTS = ("--no-sandbox", "--disable-background-networking", "--disable-gpu")

# Streamlit has drawn the page of the address, runs no script, and no part is outdated
IDLE = """() => {
    const app = document.querySelector('[data-testid="stApp"]');
    return app && app.getAttribute('data-test-script-state') === 'notRunning'
        && app.getAttribute('data-test-connection-state') === 'CONNECTED'
        && document.querySelector('h1')
        && !document.querySelector('[data-stale="true"], [data-testid="stSkeleton"]');
}"""


@dataclass(frozen=True)
class DashboardProcess:
    """A running dashboard."""

    url: str
    process: subprocess.Popen[str]

    def memory_mb(self) -> tuple[float, float]:
        """Return the resident memory of the server, now and at its peak; MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        values = dict(line.split(":", 1) for line in status.splitlines())
        now, peak = (int(values[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak

    def cpu_seconds(self) -> float:
        """Return the processor time of the server's process; seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")
        user, system = fields[2].split()[11:13]
        return (int(user) + int(system)) / 100


@dataclass
class Findings:
    """What a page reported: errors of its console, and requests that failed or left the server."""

    errors: list[str] = field(default_factory=list)


def chromium() -> str | None:
    """Return the path of Chromium, or None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def dashboard_process(
    environment: Mapping[str, str], *options: str, folder: Path = PROJECT
) -> Iterator[DashboardProcess]:
    """Run the command `dashboard` on a free port while the block runs.

    Args:
        environment: variables of the process, with the database's.
        options: further options of the command.
        folder: working folder.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(PROJECT / "run_spark_local.py"), "dashboard"]
    process = subprocess.Popen(
        [*command, "--port", str(port), *options],
        cwd=folder,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(process, url)
        yield DashboardProcess(url, process)
    finally:
        process.terminate()
        process.communicate()


def _wait_until_it_answers(process: subprocess.Popen[str], url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            assert process.stdout is not None
            raise RuntimeError(f"the dashboard ended: {process.stdout.read()}")
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"the dashboard did not answer within {START_SECONDS:.0f} s")


@contextmanager
def browser() -> Iterator[Browser]:
    """Run Chromium while the block runs; failing to start it is an error."""
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        try:
            yield chrome
        finally:
            chrome.close()


@contextmanager
def opened(
    chrome: Browser,
    url: str,
    *,
    width: int = 1280,
    height: int = 900,
    theme: Literal["light", "dark"] = "light",
) -> Iterator[tuple[Page, Findings]]:
    """Open an address, and wait until the page is complete.

    Yields:
        The page, and what it has reported so far.
    """
    context = chrome.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, accept_downloads=True
    )
    page, findings = context.new_page(), Findings()
    page.on(
        "console",
        lambda message: findings.errors.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: findings.errors.append(str(error)))
    page.on("requestfailed", lambda request: findings.errors.append(f"failed: {request.url}"))
    page.on(
        "response",
        lambda response: (
            findings.errors.append(f"{response.status}: {response.url}")
            if response.status >= 400
            else None
        ),
    )
    own = url.split("/", 3)[2]
    page.on(
        "request",
        lambda request: (
            None
            if own in request.url or request.url.startswith(("data:", "blob:"))
            else findings.errors.append(f"another host: {request.url}")
        ),
    )
    page.set_default_timeout(WAIT_MS)
    try:
        page.goto(url)
        wait_until_idle(page)
        yield page, findings
    finally:
        context.close()


def wait_until_idle(page: Page) -> None:
    """Wait until Streamlit has drawn the page."""
    page.wait_for_function(IDLE, timeout=WAIT_MS)


def whole_page(page: Page, width: int, *, most: int = 7000) -> None:
    """Make the window as high as the page, so that a screenshot has all of it.

    Args:
        most: pixels.
    """
    for _ in range(2):
        page.wait_for_timeout(400)
        height = page.evaluate(
            "document.querySelector('[data-testid=\"stMainBlockContainer\"]').scrollHeight"
        )
        page.set_viewport_size({"width": width, "height": min(int(height) + 40, most)})
        wait_until_idle(page)
    page.wait_for_timeout(900)
