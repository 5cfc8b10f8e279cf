"""The embedded server with damaged files: each is replaced with a warning, or named with the next
step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest
from pydantic import SecretStr

from common.errors import (
    DatabaseError,
    DatabaseRefused,
    DatabaseUnreachable,
    EnvironmentNotReady,
)
from database.embedded.folders import locate_folders
from database.embedded.server import EmbeddedServer
from database.embedded.state import read_cluster_folder, read_password, read_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    embedded = EmbeddedServer(tmp_path / "home")
    yield embedded
    embedded.reset()


@pytest.mark.parametrize("content", [b"", b"abc", b"0", b"-4", b"99999999", b"\xff\xfe\x00"])
def test_replaces_a_damaged_port(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "port"
    assert read_port(file) is None
    assert caplog.text == ""
    file.write_bytes(content)
    assert read_port(file) is None
    assert f"{file} holds" in caplog.text
    assert "takes another port" in caplog.text
    file.write_text("21000\n")
    assert read_port(file) == 21000


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"two words", "holds no password"),
        (b"\xff\xfe\x00", "holds no password"),
    ],
)
def test_names_a_damaged_password_file_without_its_content(
    content: bytes | None, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DatabaseRefused, match=rf"{file} {problem} while data are in .*db reset"):
        read_password(file, tmp_path / "data")
    file.write_text("secret-1\n")
    assert read_password(file, tmp_path / "data") == SecretStr("secret-1")


@pytest.mark.parametrize("content", ["", ".", "/", "/home", "/state/..", "/state/short", "\0"])
def test_rejects_folder_outside_the_system_folders(content: str, tmp_path: Path) -> None:
    """A reset would delete it, and root would give it to the server's account."""
    file = tmp_path / "cluster_folder"
    file.write_text(content)
    with pytest.raises(EnvironmentNotReady, match=rf"{file} is damaged: it holds .*delete it"):
        read_cluster_folder(file, (Path("/state"),))
    file.write_text("/state/0123456789abcdef\n")
    assert read_cluster_folder(file, (Path("/state"),)) == Path("/state/0123456789abcdef")


def test_damaged_cluster_folder_stops_start_and_reset(server: EmbeddedServer) -> None:
    state = server.home / "server"
    state.mkdir(parents=True)
    (state / "cluster_folder").write_text("")
    before = Path.cwd().stat()
    for work in (server.start, server.status, server.reset):
        with pytest.raises(EnvironmentNotReady, match=r"cluster_folder is damaged"):
            work()
    after = Path.cwd().stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
    (state / "cluster_folder").unlink()


def test_names_a_wrong_password_file_while_running_and_at_start(
    server: EmbeddedServer,
) -> None:
    address = server.start()
    password = server.home / "server" / "password"
    password.write_text("another")
    refused = pytest.raises(
        DatabaseRefused, match=rf"{password} holds another password while data are in .*db reset"
    )
    for work in (server.start, server.status):
        with refused:
            work()
    assert server.stop() is True
    with refused:
        server.start()
    password.write_text(address.password.get_secret_value() + "\n")
    assert server.start().password == address.password


def test_does_not_restart_a_server_without_free_connections(server: EmbeddedServer) -> None:
    address = server.start()
    login = {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "dbname": address.database,
        "password": address.password.get_secret_value(),
    }
    opened: list[psycopg2.extensions.connection] = []
    try:
        with suppress(psycopg2.OperationalError):
            while len(opened) < 200:
                opened.append(psycopg2.connect(**login))
        with pytest.raises(DatabaseError, match=r"has no connection left.*max_connections") as full:
            server.start()
        assert full.value.sqlstate == "53300"
    finally:
        for connection in opened:
            connection.close()


def _append(name: str, text: str) -> Callable[[Path], object]:
    def damage(data: Path) -> None:
        with (data / name).open("a") as stream:
            stream.write(text)

    return damage


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda data: (data / name).write_bytes(content)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda data: (data / name).unlink()


DAMAGED_FILES = ("postgresql.conf", "pg_hba.conf", "global/pg_control", "PG_VERSION")
DAMAGED_DATA = {
    "syntax": (
        _append("postgresql.conf", "\nfoo = = bar\n"),
        DatabaseUnreachable,
        r'postgresql\.conf" line \d+, near token "=".*Correct this',
    ),
    "no settings": (_remove("postgresql.conf"), DatabaseUnreachable, r"postgresql\.conf.*No such"),
    "no logins": (
        _write("pg_hba.conf", b""),
        DatabaseUnreachable,
        r"could not load .*pg_hba\.conf.*Correct this",
    ),
    "control file": (
        _write("global/pg_control", b"x"),
        DatabaseUnreachable,
        r"pg_control.*`db reset`",
    ),
    "no version": (_remove("PG_VERSION"), EnvironmentNotReady, r"PG_VERSION can't be read"),
    "version": (_write("PG_VERSION", b"x\n"), EnvironmentNotReady, r"PG_VERSION holds 'x'"),
}


def test_names_damaged_data_without_retries(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """All cases share one server; the damaged file is restored after each."""
    address = server.start()
    server.stop()
    data = locate_folders(server.home).data
    for damage, kind, message in DAMAGED_DATA.values():
        contents = {name: (data / name).read_bytes() for name in DAMAGED_FILES}
        owner = data.stat()
        damage(data)
        with pytest.raises(kind, match=message) as caught:
            server.start()
        assert "`db reset`" in str(caught.value)
        for name, content in contents.items():
            (data / name).write_bytes(content)
            os.chown(data / name, owner.st_uid, owner.st_gid)
    for content in (b"", b"garbage"):
        (data / "postmaster.pid").write_bytes(content)
        os.chown(data / "postmaster.pid", owner.st_uid, owner.st_gid)
        assert server.start() == address
        server.stop()
    (server.home / "server" / "port").write_text("abc")
    assert server.start().password == address.password
    assert "holds 'abc' and no port" in caplog.text


def test_names_a_folder_where_a_file_is_expected(server: EmbeddedServer) -> None:
    lock = server.home / "server" / "lock"
    lock.mkdir(parents=True)
    with pytest.raises(EnvironmentNotReady, match=rf"{lock}: Is a directory; move it away"):
        server.start()
    lock.rmdir()
