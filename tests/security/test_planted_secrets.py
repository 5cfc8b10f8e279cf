"""No secret that the product is given leaves it: every variable and file that can hold one has a
secret, the commands run and fail, and every place where text stays is searched.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import traceback
import types
import typing
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pyarrow as pa
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from common.errors import YieldSparkError, full_message, summarize_error
from common.plain_text import without_credentials
from config_spark import Settings, load_settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine, probe_session
from database.connections.parameters import connection_parameters
from database.db_utils_spark import execute_sql
from database.embedded.server import ServerAddress
from emulator.local.local_cloud import open_folder
from emulator.services.batch_process import batch_account
from emulator.services.fake_secret_manager import FakeSecretManager
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from spark.event_logs import event_log_folder, event_logs
from tests.conftest import JARS
from tests.support import report_store
from tests.support.certificates import DAY, Authority, tomorrow
from tests.support.dashboard_pages import show_page
from tests.support.dataproc_cases import WorkflowsHere, cloud_variables
from tests.support.forecast_panels import END, SHORT, panel_rows
from tests.support.killed_process import killed
from tests.support.metrics_store import execute, without_jvm
from tests.support.planted_secrets import (
    FILES,
    NO_SECRET,
    SECRETS,
    SETTINGS_WITHOUT_SECRET,
    VALUES,
    found_in,
    parts,
    variables,
)
from tests.support.processes import PROJECT, CommandLine, CommandLineHere
from tests.support.releases import BUCKET, objects
from tests.support.secret_places import (
    Received,
    found_in_files,
    found_in_requests,
    found_in_tables,
    recording_server,
    watched,
)
from tests.support.tls_server import served_with_tls
from tests.support.undone_runs import last_run_id

PASSWORD = SECRETS["DB_PASSWORD"].clear
NAMES_OF_SECRETS = re.compile(
    r"(?<=['\" ])(?!_)[A-Z0-9_]*"
    r"(?:PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|API_KEY|ACCESS_KEY|PROXY|WEBHOOK|DSN|PASSFILE"
    r"|SSLKEY|SERVICEFILE)[A-Z0-9_]*(?=['\"=])"
)
"""Quoted names of environment variables that sound like a secret."""

PRODUCT = (
    *("cli", "common", "container", "data_processing", "database", "forecasting", "local_runtime"),
    *("local_environment", "monitoring", "reporting", "spark", "workflows", "emulator"),
)


def _can_hold_text(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Literal:
        return False
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is types.UnionType or parts:
        return any(_can_hold_text(part) for part in parts)
    return isinstance(annotation, type) and issubclass(annotation, str | SecretStr | Path)


def test_every_setting_of_text_is_planted_or_listed_as_one_without_secret() -> None:
    of_text = {
        name for name, field in Settings.model_fields.items() if _can_hold_text(field.annotation)
    }
    planted = {name.lower() for name in {**VALUES, **FILES}} & set(Settings.model_fields)
    assert of_text == planted | SETTINGS_WITHOUT_SECRET
    assert not planted & SETTINGS_WITHOUT_SECRET
    secret = {
        name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)
    }
    assert secret <= planted


def test_every_variable_of_the_code_that_sounds_like_a_secret_is_planted() -> None:
    found: set[str] = set()
    for folder in PRODUCT:
        for path in (PROJECT / folder).rglob("*.py"):
            found |= set(NAMES_OF_SECRETS.findall(path.read_text(encoding="utf-8")))
    known = {name.upper() for name in {**VALUES, **FILES, **NO_SECRET}}
    assert found - known == set()
    assert len(found & known) > 8


def test_the_search_finds_a_secret_in_every_encoding() -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", PASSWORD)
    encoded: list[bytes] = [
        PASSWORD.encode(),
        repr(PASSWORD).encode(),
        json.dumps({"a": PASSWORD}).encode(),
        quote(PASSWORD).encode(),
        PASSWORD.encode().hex().encode(),
        PASSWORD.encode("utf-16-le"),
        *(base64.b64encode(b"x" * shift + PASSWORD.encode()) for shift in range(3)),
        archive.getvalue(),
    ]
    for content in encoded:
        assert [found.partition(" ")[0] for found in found_in(content, where="here")] == [
            "DB_PASSWORD"
        ], content
    # a short text may stay as it is
    packed_text: bytes = pa.compress(PASSWORD.encode(), "zstd", asbytes=True)
    assert any(" (unpacked)" in found for found in found_in(packed_text, where="here"))
    assert list(found_in(b"nothing", where="here")) == []


NOTATIONS = (
    "postgresql://owner:{url}@db.example/defi",
    "postgresql://owner:a/{bare}@db.example/defi",
    "postgresql://owner:it's{bare}@db.example/defi",
    "https://{bare}@db.example/defi",
    "owner:{bare}@db.example",
    "host=db.example password={bare}",
    "host=db.example password='a {bare}'",
    "jdbc:postgresql://db.example/defi?user=me&password={bare}",
    "postgresql+psycopg2://db.example/defi?sslpassword={bare}",
    "Bearer {bare}",
)
"""Ways to write a login, which a user may put into any variable."""


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_login_in_a_wrong_variable_is_not_shown(notation: str, tmp_path: Path) -> None:
    mark = SECRETS["DB_PASSWORD"].mark
    value = notation.format(url=quote(PASSWORD, safe=""), bare=mark)
    names = [
        name
        for name, field in Settings.model_fields.items()
        if not name.startswith("db_password") and "Path" not in str(field.annotation)
    ]
    refused = 0
    for name in names:
        try:
            load_settings(_env_file=None, **{name: value})
        except YieldSparkError as error:
            refused += 1
            shown = "".join(traceback.format_exception(error))
            for text in (str(error), shown, full_message(error), summarize_error(error)):
                assert mark not in text, f"{name}: {text}"
    assert refused > 40


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_login_in_the_text_of_an_error_is_hidden(notation: str) -> None:
    mark = SECRETS["DB_PASSWORD"].mark
    value = notation.format(url=quote(PASSWORD, safe=""), bare=mark)
    if value.startswith("owner:"):
        pytest.skip("without a scheme it is a name like any other")
    for text in (f"no answer from {value}, try again", f"{value!r} failed", json.dumps([value])):
        assert mark not in without_credentials(text)
    assert without_credentials(f"at {value} now").endswith(" now")


@pytest.fixture
def planted(database: Settings, engine: Engine, tmp_path: Path) -> Iterator[Settings]:
    """Settings with the planted password, of a role that has it."""
    role = f"planted_{os.urandom(4).hex()}"
    with engine.begin() as connection:
        create = f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD %s"
        connection.exec_driver_sql(create, (PASSWORD,))
    try:
        yield database.model_copy(update={"db_user": role, "db_password": SecretStr(PASSWORD)})
    finally:
        execute(engine, f"DROP ROLE {role}")


HISTORY = "pool_id,timestamp,apy,tvlUsd\n" + "".join(
    f"pool-{row.pool_id},{row.date}T12:00:00Z,{row.actual_apy},{row.actual_tvl}\n"
    for row in panel_rows(6, 100).dropna(subset=["actual_apy"]).itertuples()
)
SMALL = {
    "EXECUTOR": "inprocess",
    "ENGINE": "lightgbm",
    "TRAIN_DAYS": "30",
    "VALIDATION_DAYS": "20",
    "MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"]),
    "MONITORING_EMITTER": "log",
    "NO_PROXY": "127.0.0.1",
}

COMMANDS = (
    ("db", "migrate"),
    ("db", "grant", "reader", "pg_monitor", "--dry-run"),
    ("load", "history.csv"),
    ("load", "history.csv", "--json"),
    ("calculate_metrics", "--dry-run"),
    ("calculate_metrics",),
    ("forecast_pools", "--json"),
    ("backtest", "--days", "5", "--refit", "5"),
    ("evaluate", "--json"),
    ("report",),
    ("validate", "--as-of", END.isoformat()),
    ("status",),
    ("status", "--json"),
    ("runs", "list"),
    ("quarantine", "list"),
    ("models", "list"),
    ("doctor",),
)


@dataclass
class Searched:
    """Runs commands with every secret planted, and collects what is found.

    Attributes:
        run: runs a command.
        more: variables of every command.
        found: a sentence for each secret found.
    """

    run: CommandLineHere
    more: dict[str, str]
    found: list[str] = field(default_factory=list)
    commands: int = 0

    def __call__(self, *arguments: str, code: int | None = 0, **environment: str) -> str:
        """Return both outputs of the command; `code` None accepts any exit code."""
        finished = self.run(*arguments, **self.more | environment)
        output = f"{finished.stdout}\n{finished.stderr}"
        assert code is None or finished.returncode == code, output
        self.commands += 1
        self.found += found_in(output.encode(), where=f"the output of {' '.join(arguments)}")
        return output

    def search(self, engine: Engine) -> None:
        """Search the files of the command's folder, and the tables."""
        planted = frozenset({self.run.folder / ".env", self.run.folder / "planted"})
        self.found += found_in_files(self.run.folder, but=planted)
        self.found += found_in_tables(engine)


@pytest.fixture
def searched(planted: Settings, tmp_path: Path) -> Searched:
    (tmp_path / ".env").write_text(SECRETS[".env"].value + "\n", encoding="utf-8")
    (tmp_path / "history.csv").write_text(HISTORY, encoding="utf-8")
    environment = variables(tmp_path / "planted")
    # refused with DB_HOST, which another test is about
    without = {"PGPASSFILE", "PGSERVICEFILE", "PGSSLKEY"}
    return Searched(
        CommandLineHere(planted, tmp_path),
        SMALL
        | {name: value for name, value in environment.items() if name not in without}
        | {"REPORT_DIR": str(tmp_path / "reports")},
    )


@pytest.mark.usefixtures("processes")
def test_commands_leave_no_secret_anywhere(
    searched: Searched, planted: Settings, engine: Engine
) -> None:
    """Over 10 s: a forecast and a backtest fit models, and the registry is created."""
    with watched(engine) as seen:
        for arguments in COMMANDS:
            searched(*arguments)
        run_id = last_run_id(engine)
        searched("runs", "show", run_id)
        searched("runs", "diff", run_id, "--json")
        assert "forecast_pools" in searched("undo", run_id, code=2)
        searched("undo", run_id, "--cascade", "--dry-run")
        searched("undo", run_id, "--cascade", "--json")
        searched("undo", run_id, code=2)
    searched.search(engine)
    searched.found += seen.found()
    assert searched.found == []
    assert len(seen.sessions) > 5
    assert (searched.run.folder / "reports" / "yieldspark-report.html").exists()


def test_failures_leave_no_secret_anywhere(
    searched: Searched, planted: Settings, engine: Engine
) -> None:
    """Each failure whose message is near a secret: logins, addresses, files of keys, servers."""
    searched("db", "migrate")
    folder = searched.run.folder
    files = variables(folder / "planted")
    wrong_login = searched("status", code=1, DB_USER="postgres_none")
    assert "refused the login" in wrong_login
    assert "no connection" in searched("status", code=1, DB_PORT="1")
    tls = {"DB_SSLMODE": "verify-full", "DB_SSLROOTCERT": files["PGSSLKEY"]}
    searched("status", code=1, **tls)
    searched("load", "history.csv", code=1, **tls)
    for name in ("PGPASSFILE", "PGSERVICEFILE", "PGSSLKEY"):
        assert name in searched("status", code=2, **{name: files[name]})
    other = {"PGPASSWORD": SECRETS["MLFLOW_TRACKING_PASSWORD"].value}
    assert "PGPASSWORD (set DB_PASSWORD" in searched("status", code=2, **other)
    for name in ("DB_HOST", "DB_NAME", "MLFLOW_TRACKING_URI", "DEFILLAMA_YIELDS_URL", "DB_PORT"):
        address = f"postgresql://owner:{quote(PASSWORD, safe='')}@127.0.0.1:1/defi"
        searched("status", "--json", code=None, **{name: address})
    searched("load", f"postgresql://owner:{quote(PASSWORD, safe='')}@db/defi", code=2)
    damaged = folder / ".env"
    damaged.write_text(f"DB_PASSWORD='{SECRETS['DB_PASSWORD'].mark}\n", encoding="utf-8")
    assert "wrong in line 1" in searched("status", code=2)
    damaged.write_text("", encoding="utf-8")
    with recording_server(407) as server:
        at_server = {"NO_PROXY": "", **_proxies(f"127.0.0.1:{server.port}")}
        ingest = ("ingest", "--pools", "pools.txt")
        (folder / "pools.txt").write_text("pool-1\n", encoding="utf-8")
        addresses = {"DEFILLAMA_YIELDS_URL": "http://yields.test"}
        searched(*ingest, code=1, **at_server | addresses)
        searched(*ingest, code=2, **at_server | _proxies("127.0.0.1:none") | addresses)
        assert server.requests, "the proxy is asked"
    searched.found += found_in_requests(server.requests)
    with recording_server(401) as server:
        registry = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{server.port}"}
        searched("models", "list", code=1, **registry)
        assert server.requests, "the registry is asked"
    searched.found += found_in_requests(server.requests)
    searched.search(engine)
    assert searched.found == []


@pytest.mark.usefixtures("processes", "server_programs")
def test_a_certificate_that_is_refused_leaves_no_secret_anywhere(
    searched: Searched, engine: Engine, tmp_path: Path
) -> None:
    """Of another authority, expired and of another host; a right one with a wrong password."""
    ours, another = Authority.new("ours"), Authority.new("another")
    with served_with_tls() as server:
        settings = server.settings
        tls = {
            "DB_HOST": "localhost",
            "DB_PORT": str(settings.db_port),
            "DB_NAME": settings.db_name,
            "DB_USER": settings.db_user,
            "DB_SSLMODE": "verify-full",
            "DB_SSLROOTCERT": str(ours.write(tmp_path)),
        }
        for files in (
            another.server_files("localhost", valid_until=tomorrow()),
            ours.server_files("localhost", valid_until=tomorrow() - 2 * DAY),
            ours.server_files("db.example", valid_until=tomorrow()),
        ):
            server.present(*files)
            assert "DB_SSLROOTCERT" in searched("status", code=1, **tls)
            searched("calculate_metrics", "--json", code=1, **tls)
            searched("doctor", code=1, **tls)
        server.present(*ours.server_files("localhost", valid_until=tomorrow()))
        assert "refused the login" in searched("status", code=1, **tls)
        searched.found += found_in(server.log.read_bytes(), where="the server's log")
    searched.search(engine)
    assert searched.found == []


def _proxies(place: str) -> dict[str, str]:
    return {
        name: SECRETS[name].value.replace("127.0.0.1:1", place)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
    }


def test_a_password_of_secret_manager_and_a_release_leave_no_secret_anywhere(
    searched: Searched, engine: Engine, planted: Settings, tmp_path: Path
) -> None:
    """A release, its versions and a submit; the token of the services is in a file."""
    secret, token = SECRETS["DB_PASSWORD_SECRET"], SECRETS["GOOGLE_API_TOKEN_FILE"]
    name = "projects/acme/secrets/database-password/versions/1"
    manager = FakeSecretManager({name: secret.clear.encode()})
    # its objects are searched by name, without the jars
    storage = FakeStorage(tmp_path / "planted" / "storage", [BUCKET])
    with engine.begin() as connection:
        alter = f"ALTER ROLE {planted.db_user} PASSWORD %s"
        connection.exec_driver_sql(alter, (secret.clear,))
    with serving([manager, storage], token=token.value) as url:
        from_manager = {
            "DB_PASSWORD": "",
            "DB_PASSWORD_SECRET": name,
            "GOOGLE_API_ENDPOINT": url,
        }
        searched("db", "migrate", code=0, **from_manager)
        searched("status", code=0, **from_manager)
        missing = from_manager | {"DB_PASSWORD_SECRET": name.replace("/1", "/2")}
        searched("status", code=1, **missing)
        workflows = WorkflowsHere(tmp_path, cloud_variables(url))
        more = {
            name: value
            for name, value in searched.more.items()
            if not name.startswith("DB_") and name != "GOOGLE_APPLICATION_CREDENTIALS"
        } | {"DB_PASSWORD": PASSWORD, "JARS_DIR": str(JARS)}
        in_cloud = Searched(workflows, more)
        in_cloud("release", "--allow-dirty")
        in_cloud("versions", "--json")
        in_cloud("submit", "calculate_metrics", "--rows", "5", "--dry-run")
    assert manager.requests
    assert any(name.endswith("/yieldspark.zip") for name in objects(storage))
    sent = [
        Received(f"{request.method} {request.path}?{request.query}", request.headers, request.body)
        for request in (*manager.requests, *storage.requests)
    ]
    in_cloud.found += found_in_requests(sent)
    for object_name, content in objects(storage).items():
        if not object_name.endswith(".jar"):
            in_cloud.found += found_in(content, where=object_name)
    in_cloud.search(engine)
    assert searched.found + in_cloud.found == []


def test_pages_of_the_dashboard_show_no_secret(planted: Settings, engine: Engine) -> None:
    report_store.fill(engine)
    shown = [repr(show_page(planted, name)) for name in ("runs", "data")]
    assert all(len(page) > 500 for page in shown)
    unreachable = planted.model_copy(update={"db_port": 1})
    with pytest.raises(AssertionError) as failed:
        show_page(unreachable, "tomorrow")
    shown.append(repr(failed.value))
    assert list(found_in("".join(shown).encode(), where="a page")) == []


def test_settings_connections_and_errors_have_no_secret_in_their_repr(planted: Settings) -> None:
    parameters = connection_parameters(planted)
    session = probe_session(planted)
    things: list[object] = [
        *(planted, parameters, session, session.for_tasks, parameters.sqlalchemy_url()),
        *(make_engine(planted), planted.model_dump(), planted.model_dump_json()),
        *(parameters.jdbc_url(), parameters.where, parameters.options, vars(planted)),
        ServerAddress("127.0.0.1", 1, "role", "database", SecretStr(PASSWORD)),
    ]
    wrong = planted.model_copy(update={"db_user": "nobody_there"})
    for raise_one in (
        lambda: execute_sql(wrong, "SELECT 1"),
        lambda: execute_sql(planted, "SELECT no_column"),
        lambda: load_settings(_env_file=None, db_password=PASSWORD, db_port="none"),
    ):
        with pytest.raises(YieldSparkError) as raised:
            raise_one()
        shown = "".join(traceback.format_exception(raised.value))
        things += [raised.value, repr(raised.value), shown, raised.value.args]
    for thing in things:
        text = f"{thing!s} {thing!r}".encode()
        assert list(found_in(text, where=type(thing).__name__)) == []


ON_SPARK: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (("calculate_metrics", "--full-refresh"), {"READ_TRANSPORT": "jdbc"}),
    (("calculate_metrics", "--full-refresh"), {"READ_TRANSPORT": "adbc"}),
    (("calculate_metrics", "--full-refresh", "--json"), {"WRITE_TRANSPORT": "jdbc"}),
    (("forecast_pools", "--full-refresh", "--json"), {}),
    (("calculate_metrics", "--json"), {"DB_USER": "nobody_there"}),
)


@pytest.mark.long
@pytest.mark.usefixtures("jvm")
def test_spark_jobs_leave_no_secret_anywhere(
    searched: Searched, planted: Settings, engine: Engine, tmp_path: Path
) -> None:
    """As processes with JVMs of their own, whose event logs and command lines are read too; the
    last one cannot log in.
    """
    searched("db", "migrate")
    searched("load", "history.csv")
    processes = CommandLine(planted, tmp_path)
    more = searched.more | {
        "EXECUTOR": "spark",
        "SPARK_MASTER": "local[2]",
        "SHUFFLE_PARTITIONS": "2",
    }
    with watched(engine) as seen:
        for arguments, variables_of_run in ON_SPARK:
            finished = processes(*arguments, **more | variables_of_run)
            output = f"{finished.stdout}\n{finished.stderr}"
            assert finished.returncode == (1 if "DB_USER" in variables_of_run else 0), output
            searched.found += found_in(output.encode(), where=f"the output of {arguments}")
        script = [sys.executable, "-m", "data_processing.calculate_pool_metrics_spark"]
        in_production = (
            processes.environment
            | more
            | {
                "PYTHONPATH": str(PROJECT),
                "ENVIRONMENT": "production",
                "DB_USER": "nobody_there",
            }
        )
        done = subprocess.run(
            script, cwd=tmp_path, env=in_production, capture_output=True, check=False
        )
        assert b"refused the login" in done.stderr
        searched.found += found_in(done.stdout + done.stderr, where="the log in production")
    home = planted.model_copy(update={"yieldspark_home": tmp_path / "home"})
    logs = event_logs(event_log_folder(home))
    assert len(logs) == 4
    for log in logs:
        content = b"".join(parts(log.read_bytes()))
        assert b"SparkListenerApplicationStart" in content
        assert b"SparkListenerApplicationEnd" in content
    assert any(b"org.apache.spark.deploy.SparkSubmit" in line for line in seen.command_lines)
    searched.search(engine)
    searched.found += seen.found()
    assert searched.found == []


def full_refresh(settings: Settings) -> None:
    run_metrics(settings, Request(full_refresh=True))


@pytest.mark.long
@pytest.mark.usefixtures("jvm")
def test_the_local_cloud_and_a_killed_job_leave_no_secret_anywhere(
    searched: Searched, planted: Settings, engine: Engine, tmp_path: Path
) -> None:
    """`local run` with a batch that starts a JVM and a container, and a job that is killed in its
    commit.
    """
    processes = CommandLine(planted, tmp_path)
    environment = processes.environment | searched.more | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "workflows", "local", "run", "--json", "--engine", "lightgbm"]
    searched("db", "migrate")
    searched("load", "history.csv")
    with watched(engine) as seen:
        finished = subprocess.run(
            [*command, "--platform", "forecast_pools=cloud_run"],
            cwd=tmp_path,
            env=environment | {"EXECUTOR": "spark"},
            capture_output=True,
            check=False,
        )
        output = finished.stdout + finished.stderr
        assert json.loads(finished.stdout)["state"] == "SUCCEEDED", output.decode()
        # the history ends long before the days that the validation reads
        assert b"validation-failed.md" in finished.stderr, output.decode()
        searched.found += found_in(output, where="the output of local run")
        assert killed(full_refresh, without_jvm(planted), statements="COMMIT", nth=3)
        searched("status", "--json")
        searched("runs", "list")
        searched("calculate_metrics", "--json")
    searched.search(engine)
    batches = open_folder(tmp_path / "home" / "cloud", batch_account())
    searched.found += found_in_files(batches)
    searched.found += seen.found()
    assert searched.found == []
