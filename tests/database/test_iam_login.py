"""`DB_IAM_AUTH`: an access token of the metadata server is the password of each login.

A real server whose password is the token, TLS in front of it, and a metadata server over HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from google.auth.compute_engine import _metadata
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import CloudRefused, ConfigurationError, DatabaseRefused
from config_spark import Settings, load_settings
from database.connections import iam_login
from database.connections.engine import make_engine, probe_session
from database.connections.parameters import connection_parameters
from database.db_utils_spark import execute_sql
from emulator.services.fake_metadata import FakeMetadata, MetadataToken
from emulator.services.http_server import serving
from emulator.services.http_service import ApiError
from tests.database.test_connection import answer_by_adbc, by_every_driver
from tests.support.certificates import Authority
from tests.support.metrics_store import execute, rows_of
from tests.support.processes import CommandLine, environment_of
from tests.support.startup_proxy import startup_proxy

ACCOUNT = "yieldspark-batch@acme.iam.gserviceaccount.com"
USER = "yieldspark-batch@acme.iam"


@dataclass
class Issued:
    """The token of the moment, as the server's password, and how often it was asked for."""

    database: Engine
    tokens: list[str] = field(default_factory=list)
    seconds: int = 3600
    requests: int = 0

    def renew(self) -> None:
        """Issue another token: it is the password from now on."""
        self.tokens.append(f"ya29.{secrets.token_urlsafe(600)}")
        execute(self.database, f"ALTER ROLE \"{USER}\" PASSWORD '{self.tokens[-1]}'")

    def current(self) -> MetadataToken:
        self.requests += 1
        return MetadataToken(self.tokens[-1], self.seconds)


@pytest.fixture
def issued(engine: Engine) -> Iterator[Issued]:
    execute(engine, f'CREATE ROLE "{USER}" LOGIN SUPERUSER')
    issued = Issued(engine)
    issued.renew()
    yield issued
    execute(engine, f'DROP ROLE "{USER}"')


@pytest.fixture
def metadata(
    issued: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """Serve the metadata; returns the variables that direct Google's library to it."""
    with serving([FakeMetadata(ACCOUNT, issued.current)]) as url:
        address = urlsplit(url).netloc
        variables = {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address}
        # no account of the developer
        variables["CLOUDSDK_CONFIG"] = str(tmp_path)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        # the library reads this variable when it is imported
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", address)
        iam_login._credentials.cache_clear()
        yield variables
    iam_login._credentials.cache_clear()


@pytest.fixture
def settings(database: Settings, metadata: dict[str, str], tmp_path: Path) -> Iterator[Settings]:
    authority = Authority.new("ours")
    context = authority.server_context("localhost", tmp_path)
    with startup_proxy((str(database.db_host), database.db_port), tls=context) as port:
        yield load_settings(
            _env_file=None,
            db_host="localhost",
            db_port=port,
            db_name=database.db_name,
            db_user=ACCOUNT,
            db_iam_auth=True,
            db_sslmode="verify-full",
            db_sslrootcert=authority.write(tmp_path),
            yieldspark_home=database.yieldspark_home,
        )


def test_every_driver_logs_in_with_a_token(
    spark: SparkSession, settings: Settings, issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    assert by_every_driver(spark, settings, "current_user::text") == [USER] * 3
    # valid for an hour: one request for all logins
    assert issued.requests == 1
    session = probe_session(settings)
    shown = repr((settings, session, connection_parameters(settings), session.for_tasks))
    assert issued.tokens[0] not in shown + settings.model_dump_json() + caplog.text
    assert issued.tokens[0] not in str(make_engine(settings).url)


def test_a_login_after_the_end_of_a_token_gets_another(settings: Settings, issued: Issued) -> None:
    """The same engine, and the same description for tasks, which begin later."""
    issued.seconds = 200
    engine, session = make_engine(settings), probe_session(settings)
    for _ in range(2):
        issued.renew()
        assert rows_of(engine, "SELECT current_user::text AS name") == [{"name": USER}]
        assert answer_by_adbc(session, "SELECT current_user::text") == USER


def test_a_refused_login_names_the_next_step(settings: Settings, issued: Issued) -> None:
    issued.tokens.append("ya29.of-another-account")
    with pytest.raises(DatabaseRefused, match=r"IAM login .*cloudsql\.instanceUser") as caught:
        execute_sql(settings, "SELECT 1")
    assert "ya29" not in str(caught.value)


def test_a_metadata_server_that_fails_is_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, issued: Issued
) -> None:
    def broken() -> MetadataToken:
        raise ApiError(404, "no token for this account")

    monkeypatch.setattr(issued, "current", broken)
    with serving([FakeMetadata(ACCOUNT, broken)]) as url:
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", urlsplit(url).netloc)
        with pytest.raises(CloudRefused, match=r"DB_IAM_AUTH: .*no token for this account"):
            execute_sql(settings, "SELECT 1")


WRONG = [
    ({"db_host": None}, "the embedded server has no IAM login: set DB_HOST"),
    ({"db_sslmode": "prefer"}, "DB_SSLMODE=prefer does not require TLS: set DB_HOST"),
    ({"db_host": "/var/run"}, "DB_HOST=/var/run with"),
    ({"db_password": "geheim"}, "DB_IAM_AUTH=true and DB_PASSWORD are two logins"),
    (
        {"db_password_secret": "projects/p/secrets/s/versions/1"},
        "DB_IAM_AUTH=true and DB_PASSWORD_SECRET are two logins",
    ),
    ({"db_user": "yieldspark"}, "DB_USER=yieldspark do not fit: set DB_USER to the address"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_settings_that_do_not_fit_are_refused(changed: dict[str, object], message: str) -> None:
    fitting = {"db_host": "10.0.0.5", "db_sslmode": "require", "db_user": ACCOUNT}
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_settings(_env_file=None, **fitting | {"db_iam_auth": True} | changed)
    assert "geheim" not in str(caught.value)
    assert connection_parameters(load_settings(_env_file=None, **fitting)).user == ACCOUNT


def test_a_run_of_the_metrics_logs_in_by_iam(
    run: CommandLine,
    settings: Settings,
    issued: Issued,
    metadata: dict[str, str],
    engine: Engine,
) -> None:
    """The whole process, with rows by COPY in processes of its own."""
    execute(
        engine,
        "INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)"
        " SELECT 'pool-1', '2025-10-01'::timestamptz + make_interval(days => day),"
        ' \'{"apy": 4, "tvlUsd": 1000000}\' FROM generate_series(1, 9) AS day',
    )
    run.environment = (
        environment_of(settings, "db_sslrootcert", "db_iam_auth")
        | metadata
        | {"EXECUTOR": "inprocess"}
    )
    finished = run("calculate_metrics", "--json")
    assert finished.returncode == 0, finished.stderr
    assert issued.tokens[0] not in finished.stdout + finished.stderr
    assert rows_of(engine, "SELECT count(*) AS rows FROM pool_daily_metrics")[0]["rows"] >= 9
