"""The product behind a real PgBouncer, if it is installed (`apt install pgbouncer`)."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import DatabaseRefused
from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import execute_sql
from database.ledger.runs import open_run
from tests.support.fault_runs import until
from tests.support.owner_schema import role_with
from tests.support.startup_proxy import listens

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
RIGHTS = """
GRANT ALL ON SCHEMA public, yieldspark TO yieldspark;
GRANT ALL ON ALL TABLES IN SCHEMA public, yieldspark TO yieldspark;
"""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no pgbouncer on this machine")


@contextmanager
def pgbouncer(settings: Settings, *lines: str) -> Iterator[Settings]:
    """Yield the settings of a pooler for the database, with these lines of configuration."""
    assert PROGRAM is not None
    assert settings.db_password is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "pgbouncer.ini"
        password = settings.db_password.get_secret_value()
        server = f"host={settings.db_host} port={settings.db_port} user={settings.db_user}"
        file.write_text(
            f"[databases]\n{settings.db_name} = {server} password={password}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            + "\n".join(lines)
        )
        account = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = subprocess.Popen([PROGRAM, "-q", *account, str(file)], stderr=subprocess.DEVNULL)
        try:
            until(lambda: listens(port), "pgbouncer listens")
            yield settings.model_copy(update={"db_port": port})
        finally:
            process.kill()
            process.wait()


def test_pooler_is_rejected_until_the_role_sets_the_parameters(database: Settings) -> None:
    with role_with(database, RIGHTS) as settings:
        with pgbouncer(settings) as pooled:
            with pytest.raises(DatabaseRefused, match="accepts no session parameters"):
                execute_sql(pooled, "SELECT 1")
        ignoring = "ignore_startup_parameters = options, extra_float_digits"
        with pgbouncer(settings, ignoring) as pooled:
            with pytest.raises(DatabaseRefused, match="a pooler drops") as refused:
                execute_sql(pooled, "SELECT 1")
            for name, value in re.findall(r"([\w.]+)=[^=]*? \(not (.*?)\)", str(refused.value)):
                execute_sql(database, f"ALTER ROLE {settings.db_user} SET {name} = '{value}'")
        with (
            pgbouncer(settings, ignoring) as pooled,
            open_run(make_engine(pooled), job="upsert", mode="test") as run,
        ):
            assert run.run_id
        with pgbouncer(settings, ignoring, "pool_mode = transaction") as pooled:
            with pytest.raises(DatabaseRefused, match="in transaction mode"):
                with open_run(make_engine(pooled), job="upsert", mode="test"):
                    pytest.fail("the job's lock would keep nobody out")
