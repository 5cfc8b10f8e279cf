"""Tests the doctor's checks against this machine, a real server and wrong folders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from cli.doctor import database as database_checks
from cli.doctor import machine
from cli.doctor.check import DoctorResult
from cli.doctor.checks import run_checks
from common.errors import DatabaseRefused
from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import execute_sql
from database.embedded.server import EmbeddedServer, ServerAddress
from database.schema.migrate import migrate
from local_runtime import jars as local_jars


@pytest.fixture(scope="module")
def server_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    server = EmbeddedServer(tmp_path_factory.mktemp("doctor") / "home")
    yield server.start()
    server.reset()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        yieldspark_home=tmp_path / "home",
        report_dir=tmp_path / "reports",
        jars_dir=None,
        db_host=None,
        environment="local",
    )


def findings(settings: Settings) -> dict[str, DoctorResult]:
    return {finding.name: finding for finding in run_checks(settings)}


def with_server(settings: Settings, server_address: ServerAddress, **changes: object) -> Settings:
    login = {
        "db_host": server_address.host,
        "db_port": server_address.port,
        "db_user": server_address.user,
        "db_name": server_address.database,
        "db_password": server_address.password,
    }
    return settings.model_copy(update=login | changes)


def test_every_check_reports_once_and_a_failure_names_its_fix(settings: Settings) -> None:
    results = run_checks(settings)
    assert [finding.name for finding in results] == [
        "python",
        "java",
        "jars",
        "class archive",
        "libgomp",
        "disk",
        "memory",
        "database",
        "tables",
        "clock",
        "folders",
        "unread rows",
    ]
    for finding in results:
        assert finding.found
        assert bool(finding.fix) is (finding.result != "ok"), finding


def test_looking_makes_and_starts_nothing(settings: Settings) -> None:
    assert "not running" in findings(settings)["database"].found
    assert not settings.yieldspark_home.exists()


def test_missing_jars_are_a_warning_and_a_changed_jar_a_failure(settings: Settings) -> None:
    missing = findings(settings)["jars"]
    assert missing.result == "warn"
    assert "READ_TRANSPORT=adbc" in missing.found
    assert "--engine lightgbm" in missing.found
    name = next(iter(local_jars.read_checksums()))
    folder = settings.yieldspark_home / "jars"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"not this")
    changed_jar = findings(settings)["jars"]
    assert changed_jar.result == "fail"
    assert name in changed_jar.found


def test_a_reachable_database_is_named_and_its_clock_compared(
    settings: Settings, server_address: ServerAddress
) -> None:
    results = findings(with_server(settings, server_address))
    assert results["database"].result == "ok"
    assert (
        f"PostgreSQL 18.4 at 127.0.0.1:{server_address.port}/yieldspark (DB_HOST)"
        in results["database"].found
    )
    assert results["clock"].result == "ok"
    assert "the database's within 60 s" in results["clock"].found


def test_a_database_that_takes_no_writes_is_a_warning(
    settings: Settings, server_address: ServerAddress
) -> None:
    served = with_server(settings, server_address)
    role = f"ALTER ROLE {server_address.user}"
    execute_sql(served, f"{role} SET default_transaction_read_only = on")
    try:
        finding = findings(served)["database"]
    finally:
        execute_sql(
            served,
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; SET TRANSACTION READ WRITE;"
            f" {role} RESET default_transaction_read_only",
        )
    assert finding.result == "warn"
    assert "is read-only: no job can write" in finding.found
    assert "default_transaction_read_only" in finding.fix
    assert findings(served)["database"].result == "ok"


def test_a_standby_is_a_warning(settings: Settings, own_server: EmbeddedServer) -> None:
    """A file in the data folder of a stopped server makes it a standby."""
    own_server.start()
    own_server.stop()
    (Path(own_server.status()["data_folder"]) / "standby.signal").touch()
    served = with_server(settings, own_server.start())
    finding = findings(served)["database"]
    assert (finding.result, finding.fix) == ("warn", "set DB_HOST to the primary server")
    with pytest.raises(DatabaseRefused, match=r"is read-only.*Set DB_HOST to the primary server"):
        migrate(make_engine(served))


def test_a_clock_apart_from_the_databases_is_a_warning(
    settings: Settings, server_address: ServerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_checks, "CLOCK_TOLERANCE_SECONDS", -1.0)
    clock = findings(with_server(settings, server_address))["clock"]
    assert clock.result == "warn"
    assert "NTP" in clock.fix


def test_a_clock_before_the_product_is_a_failure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_checks, "SANE_YEARS", range(1970, 1971))
    assert findings(settings)["clock"].result == "fail"


def test_a_wrong_password_fails_without_showing_it(
    settings: Settings, server_address: ServerAddress
) -> None:
    database = findings(with_server(settings, server_address, db_password=SecretStr("hunter2")))[
        "database"
    ]
    assert database.result == "fail"
    assert "DB_PASSWORD" in database.fix
    assert "hunter2" not in repr(database)


def test_an_unreachable_database_fails_and_the_clock_is_still_checked(settings: Settings) -> None:
    results = findings(settings.model_copy(update={"db_host": "127.0.0.1", "db_port": 9}))
    assert results["database"].result == "fail"
    assert "Connection refused" in results["database"].found
    assert results["clock"].result == "ok"


def test_the_running_embedded_server_is_reported(
    settings: Settings, own_server: EmbeddedServer
) -> None:
    assert settings.yieldspark_home == own_server.home
    port = own_server.start().port
    assert f"127.0.0.1:{port}/yieldspark (embedded)" in findings(settings)["database"].found


def test_no_java_fails_with_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("local_runtime.java.WHEEL", "no_wheel_for_this_platform")
    java = findings(settings)["java"]
    assert (java.result, java.fix) == ("fail", "install Java 17 and set JAVA_HOME")


@pytest.mark.parametrize(
    ("enough", "least", "state"), [(1e9, 0.0, "warn"), (1e9, 1e8, "fail"), (0.0, 0.0, "ok")]
)
def test_disk_check_uses_the_free_space_of_the_data_folder(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, enough: float, least: float, state: str
) -> None:
    monkeypatch.setattr(machine, "ENOUGH_DISK_GIB", enough)
    monkeypatch.setattr(machine, "LEAST_DISK_GIB", least)
    disk = findings(settings)["disk"]
    assert disk.result == state
    assert str(settings.yieldspark_home.parent) in disk.found


def test_little_memory_is_a_warning(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.1 < machine.memory_gib() < 100_000
    monkeypatch.setattr(machine, "ENOUGH_MEMORY_GIB", 100_000.0)
    assert findings(settings)["memory"].result == "warn"


def test_a_folder_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("")
    folders = findings(settings.model_copy(update={"report_dir": file / "reports"}))["folders"]
    assert folders.result == "fail"
    assert f"REPORT_DIR={file / 'reports'}" in folders.found


@pytest.mark.usefixtures("processes")
def test_a_read_only_disk_is_noticed_even_as_root(settings: Settings, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", closed], capture_output=True
        ).returncode
        == 0
    )
    if not mounted:
        closed.chmod(0o555)
    try:
        if not mounted and os.geteuid() == 0:
            pytest.skip("root without the right to mount can write everywhere")
        assert (
            findings(settings.model_copy(update={"report_dir": closed}))["folders"].result == "fail"
        )
    finally:
        if mounted:
            subprocess.run(["umount", closed], check=True)
