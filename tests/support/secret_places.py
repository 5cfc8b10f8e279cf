"""The places where a run leaves text: files, tables, sessions of the server, command lines of
processes, and HTTP requests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
from sqlalchemy import Engine, text

from tests.support.metrics_store import rows_of
from tests.support.planted_secrets import found_in

SECONDS_BETWEEN = 0.02
LARGEST_BODY = 100_000
"""Bytes; a larger body is a part of an uploaded file, which its store has."""

TABLES = """
SELECT format('%I.%I', table_schema, table_name) AS name
FROM information_schema.tables
WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'
ORDER BY 1
"""

OWN_HEADERS: Mapping[str, frozenset[str]] = {
    "authorization": frozenset(
        {
            *("GOOGLE_API_TOKEN_FILE", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
            "MLFLOW_TRACKING_TOKEN",
        }
    ),
    "proxy-authorization": frozenset({"HTTP_PROXY", "http_proxy"}),
}
"""Headers of requests whose purpose is to send these secrets to their server."""


def found_in_files(folder: Path, *, but: frozenset[Path] = frozenset()) -> Iterator[str]:
    """Yield a sentence for each secret in the names and contents of a folder's files.

    Args:
        folder: searched with its subfolders.
        but: files and folders that hold secrets on purpose.
    """
    for path in sorted(folder.rglob("*")):
        if but & {path, *path.parents}:
            continue
        yield from found_in(str(path).encode(), where="the name of a file")
        with suppress(OSError):
            if path.is_symlink():
                yield from found_in(str(path.readlink()).encode(), where=f"the link {path}")
            elif path.is_file():
                yield from found_in(path.read_bytes(), where=str(path))
                if path.suffix == ".parquet":
                    rows = str(pq.read_table(path).to_pylist())
                    yield from found_in(rows.encode(), where=f"the rows of {path}")


def found_in_tables(engine: Engine) -> Iterator[str]:
    """Yield a sentence for each secret in any column of any table."""
    for table in rows_of(engine, TABLES):
        for row in rows_of(engine, f"SELECT t::text AS line FROM {table['name']} AS t"):
            yield from found_in(row["line"].encode(), where=f"table {table['name']}")


def found_in_requests(requests: list[Received]) -> Iterator[str]:
    """Yield a sentence for each secret in a request, but for headers that have to send it."""
    for request in requests:
        where = f"the request {request.line}"
        yield from found_in(request.line.encode(), where=where)
        if len(request.body) <= LARGEST_BODY:
            yield from found_in(request.body, where=where)
        for name, value in request.headers.items():
            own = OWN_HEADERS.get(name.lower(), frozenset())
            for finding in found_in(f"{name}: {value}".encode(), where=where):
                if finding.partition(" in ")[0] not in own:
                    yield finding


@dataclass
class Received:
    """A request as it was received."""

    line: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class RecordingServer:
    """Refuses every request with a status, and keeps them; also as a proxy."""

    status: int
    port: int = 0
    requests: list[Received] = field(default_factory=list)


@contextmanager
def recording_server(status: int) -> Iterator[RecordingServer]:
    """Run a server on 127.0.0.1 for the block."""
    record = RecordingServer(status)

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            record.requests.append(Received(self.requestline, dict(self.headers.items()), body))
            self.send_response(record.status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Watched:
    """What other accounts of the machine and sessions of the server could see."""

    command_lines: set[bytes] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)

    def found(self) -> Iterator[str]:
        """Yield a sentence for each secret."""
        for line in self.command_lines:
            yield from found_in(line, where="the command line of a process")
        for session in self.sessions:
            yield from found_in(session.encode(), where="a session of the server")


@contextmanager
def watched(engine: Engine) -> Iterator[Watched]:
    """Read the command lines of all processes, and the sessions of the engine's server, again and
    again while the block runs.
    """
    seen, ended = Watched(), threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS_BETWEEN):
            for folder in Path("/proc").iterdir():
                if folder.name.isdigit():
                    with suppress(OSError):
                        seen.command_lines.add((folder / "cmdline").read_bytes())

    def ask() -> None:
        with engine.connect() as connection:
            while not ended.wait(0.05):
                rows = connection.execute(text("SELECT a::text FROM pg_stat_activity AS a"))
                seen.sessions |= set(rows.scalars())
                connection.rollback()

    threads = [threading.Thread(target=work, daemon=True) for work in (watch, ask)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()
