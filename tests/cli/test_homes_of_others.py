"""Tests a home that belongs to another account of the machine: one sentence names the owner."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.doctor.check import OWN_HOME
from cli.doctor.checks import run_checks
from common.errors import describe_file_error
from config_spark import load_settings
from tests.support.processes import CommandLineHere

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")

OTHER = 54_321
"""An account without a name, as a container may have."""


@contextmanager
def other_account() -> Iterator[None]:
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(params=[0o755, 0o700], ids=["readable", "closed"])
def roots_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A home outside pytest's folders, which are closed to other accounts."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        home.mkdir(mode=request.param)
        yield home


@pytest.mark.parametrize("command", ["status", "calculate_metrics", "forecast_pools"])
def test_a_command_names_the_owner_of_the_home(
    run_here: CommandLineHere, roots_home: Path, command: str
) -> None:
    run_here.folder, run_here.environment["YIELDSPARK_HOME"] = roots_home.parent, str(roots_home)
    # loads the imports of the command, because Python itself may be in root's folder
    run_here(command, "--json", DB_PORT="1")
    shutil.rmtree(roots_home / "logs")
    with other_account():
        finished = run_here(command)
    assert finished.returncode == 2
    assert finished.stderr == (
        f"error: {roots_home}/logs can't be written: Permission denied; {roots_home} belongs to"
        f" root and you are user {OTHER}: make it writable, or set YIELDSPARK_HOME\n"
    )


@pytest.mark.usefixtures("jvm", "server_programs")
def test_the_doctor_names_the_owner_of_the_home_and_no_other_cause(roots_home: Path) -> None:
    settings = load_settings(_env_file=None, yieldspark_home=roots_home, db_host=None)
    with other_account():
        findings = {finding.name: finding for finding in run_checks(settings)}
    is_closed = roots_home.stat().st_mode & 0o077 == 0
    for name in ("class archive", "database", "tables") if is_closed else ():
        assert f"{roots_home} belongs to root" in findings[name].found
        assert findings[name].fix == OWN_HOME
    assert findings["folders"].result == "fail"


def test_a_file_of_ones_own_has_no_other_owner(tmp_path: Path) -> None:
    error = PermissionError(13, "Permission denied", str(tmp_path / "none"))
    assert describe_file_error(error) == "Permission denied; make it writable"
