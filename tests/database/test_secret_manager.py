"""The database password from Secret Manager: the real client and a server that
speaks its protocol.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.errors import CloudRefused, CloudUnavailable, ConfigurationError
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.connections.secret_manager import with_password
from database.embedded.resolve import resolve_database
from emulator.services.fake_secret_manager import FakeSecretManager
from emulator.services.http_server import serving

NAME = "projects/p/secrets/database-password/versions/3"


@pytest.fixture
def secrets() -> dict[str, bytes]:
    return {NAME: b"very-secret\n"}


@pytest.fixture
def settings(secrets: dict[str, bytes]) -> Iterator[Settings]:
    with serving([FakeSecretManager(secrets)]) as url:
        yield load_settings(
            _env_file=None,
            db_host="db.example.com",
            db_password_secret=NAME,
            google_api_endpoint=url,
        )


def test_fetches_the_password_and_never_shows_it(settings: Settings) -> None:
    ready = with_password(settings)
    assert ready.db_password is not None
    assert ready.db_password.get_secret_value() == "very-secret"
    assert "very-secret" not in repr(ready) + ready.model_dump_json()


def test_db_password_takes_precedence_without_a_request(settings: Settings) -> None:
    with_endpoint = settings.model_copy(update={"google_api_endpoint": "http://127.0.0.1:1"})
    assert (
        with_password(
            load_settings(**with_endpoint.model_dump() | {"db_password": "mine"})
        ).db_password
        is not None
    )
    assert (
        with_password(with_endpoint.model_copy(update={"db_password_secret": None})).db_password
        is None
    )


def test_names_an_unknown_secret(settings: Settings) -> None:
    other = NAME.replace("/3", "/4")
    with pytest.raises(
        CloudRefused, match=rf"DB_PASSWORD_SECRET={other}: Google Cloud refused: .*not found"
    ):
        with_password(settings.model_copy(update={"db_password_secret": other}))


def test_rejects_bytes_that_are_no_text_without_showing_them(
    settings: Settings, secrets: dict[str, bytes]
) -> None:
    secrets[NAME] = b"very\xffsecret"
    with pytest.raises(CloudRefused, match="no UTF-8 text") as caught:
        with_password(settings)
    assert "very" not in str(caught.value)


def test_unreachable_service_has_a_next_step(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("database.connections.secret_manager.ACCESS_SECONDS", 1.0)
    with pytest.raises(
        CloudUnavailable, match=f"DB_PASSWORD_SECRET={NAME}: Google Cloud does not answer"
    ):
        with_password(settings.model_copy(update={"google_api_endpoint": "http://127.0.0.1:1"}))


def test_rejects_malformed_secret_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="DB_PASSWORD_SECRET="):
        load_settings(_env_file=None, db_password_secret="database-password")


def test_job_logs_in_with_the_secret(database: Settings, secrets: dict[str, bytes]) -> None:
    assert database.db_password is not None
    secrets[NAME] = database.db_password.get_secret_value().encode()
    with serving([FakeSecretManager(secrets)]) as url:
        ready = resolve_database(
            database.model_copy(
                update={"db_password": None, "db_password_secret": NAME, "google_api_endpoint": url}
            )
        )
    with make_engine(ready).connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
