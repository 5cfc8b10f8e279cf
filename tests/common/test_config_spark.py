"""Settings: sources, validation and error messages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import config_spark
from common.errors import ConfigurationError
from common.registry_address import is_in_postgresql
from common.settings.text_forms import FORMS
from config_spark import Settings, load_settings


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_reads_dotenv_with_byte_order_mark_after_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "DB_HOST=from-file\nDB_PORT=6000\nUNKNOWN=ignored\n", encoding="utf-8-sig"
    )
    monkeypatch.setenv("DB_PORT", "7000")
    settings = load_settings()
    assert (settings.db_host, settings.db_port) == ("from-file", 7000)


def test_wrong_type_names_variable_value_and_allowed_values(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DB_PORT=many\nENVIRONMENT=prod\nMAX_FILL_DAYS=-1\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    message = str(caught.value)
    assert "DB_PORT='many' is wrong: Input should be a valid integer" in message
    assert "ENVIRONMENT='prod' is wrong: Input should be 'local' or 'production'" in message
    assert "MAX_FILL_DAYS='-1' is wrong: Input should be greater than or equal to 0" in message


@pytest.mark.parametrize("name", ["DB_PASSWORD", "DB_NAME", "DEFILLAMA_YIELDS_URL", "DB_PORT"])
def test_value_in_another_encoding_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, os.fsdecode(b"caf\xe9"))
    with pytest.raises(ConfigurationError, match=f"{name}=.* is wrong: it has bytes") as caught:
        load_settings()
    str(caught.value).encode()
    assert name != "DB_PASSWORD" or "caf" not in str(caught.value)


def test_every_pattern_has_a_text_for_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(_patterns(Settings.model_json_schema())) == set(FORMS)
    monkeypatch.setenv("MONITORING_ENDPOINT", "null")
    with pytest.raises(ConfigurationError, match="MONITORING_ENDPOINT='null' is wrong: it must be"):
        load_settings()


def _patterns(schema: Any) -> Iterator[str]:
    """Yield the patterns of a JSON schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _patterns(part)


@pytest.mark.parametrize("name", ["YIELDSPARK_HOME", "JARS_DIR"])
def test_folder_may_have_a_name_in_another_encoding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    monkeypatch.setenv(name, str(folder))
    assert getattr(load_settings(), name.lower()) == folder


def test_production_requires_db_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_ENVIRONMENT", "production")
    monkeypatch.setenv("DB_PASSWORD", "very-secret")
    with pytest.raises(ConfigurationError, match="DB_HOST is not set") as caught:
        load_settings()
    assert "very-secret" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_settings_are_frozen_and_hide_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "very-secret")
    settings = load_settings()
    assert "very-secret" not in repr(settings) + settings.model_dump_json()
    with pytest.raises(ValidationError):
        settings.db_port = 1  # type: ignore[misc]


def test_override_takes_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "synapseml")
    assert load_settings(engine="lightgbm").engine == "lightgbm"


def test_rejects_dotenv_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"DB_USER=\xff\n")
    with pytest.raises(ConfigurationError, match=r"\.env can't be read.*UTF-8"):
        load_settings()


@pytest.mark.parametrize(
    "name", ["defillama_yields_url", "defillama_coins_url", "google_api_endpoint"]
)
@pytest.mark.parametrize("url", ["https://me:very-secret@example.com", "ftp://me:very-secret@a"])
def test_rejects_url_with_credentials_without_showing_them(name: str, url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(_env_file=None, **{name: url})
    assert f"{name.upper()}=(hidden) is wrong" in str(refused.value)
    assert "very-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("DB_USER=a\nMAX_FILL_DAYS 5\n", 2),
        ("= x\n", 1),
        ("MAX_FILL_DAYS='5\nDB_USER=a\n", 1),
        ("DB_HOST\n", 1),
        ("REPORT_DIR=a\0b\n", 1),
    ],
)
def test_names_dotenv_lines_that_cannot_be_parsed(content: str, line: int, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(content)
    with pytest.raises(ConfigurationError, match=rf"\.env is wrong in line {line}: write NAME="):
        load_settings()


def test_accepts_other_dotenv_lines_and_a_virtual_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# remark\nexport DB_USER='a b' # who\nOTHER\n\nDB_NAME=\n")
    assert load_settings().db_user == "a b"
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    assert load_settings().db_user == "yieldspark"


def test_rejects_dotenv_that_is_no_file(tmp_path: Path) -> None:
    """A pipe without a writer, or an endless device, would block every command."""
    (tmp_path / ".env").symlink_to("/dev/null")
    assert load_settings().db_user == "yieldspark"
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match=r"\.env is a pipe or a device: make it a file"):
        load_settings()
    (tmp_path / ".env").unlink()
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(ConfigurationError, match=r"\.env is a pipe or a device: make it a file"):
        load_settings()


def test_rejects_dotenv_that_is_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match=r"\.env can't be read: No such file"):
        load_settings()


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:very-secret@mlflow.example",
        "http://very-secret@host:5000/path",
        "postgresql://u:very-secret@db/mlflow",
        "postgresql+psycopg2://db/mlflow?user=u&password=very-secret",
    ],
)
def test_rejects_registry_uri_with_credentials_without_showing_them(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(
        ConfigurationError,
        match=r"MLFLOW_TRACKING_URI=\(hidden\) is wrong: .*MLFLOW_TRACKING_PASSWORD",
    ) as caught:
        load_settings()
    assert "very-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "uri", ["https://mlflow.example:5000", "sqlite:////home/someone@work/mlflow.db", ""]
)
def test_accepts_registry_uri_without_credentials(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert load_settings().mlflow_tracking_uri == (uri or None)


HOST = "db.example"
REGISTRY = {
    "DB_HOST": HOST,
    "MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{HOST}/mlflow",
    "MLFLOW_ARTIFACTS_URI": "gs://bucket/models",
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"MLFLOW_TRACKING_URI": "postgresql+psycopg2://DB.example:6432/models"},
        {"DB_HOST": "/sockets", "MLFLOW_TRACKING_URI": "postgresql+psycopg2:///mlflow"},
        {"DB_HOST": "::1", "MLFLOW_TRACKING_URI": "postgresql+psycopg2://[::1]/mlflow"},
    ],
)
def test_accepts_registry_on_the_database_server(
    change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (REGISTRY | change).items():
        monkeypatch.setenv(name, value)
    assert is_in_postgresql(load_settings().mlflow_tracking_uri)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MLFLOW_TRACKING_URI": f"postgresql://{HOST}/mlflow"}, "postgresql:// asks for a driver"),
        ({"MLFLOW_TRACKING_URI": f"postgres://{HOST}/mlflow"}, "postgres:// asks for a driver"),
        (
            {"MLFLOW_TRACKING_URI": f"postgresql+psycopg://{HOST}/mlflow"},
            r"postgresql\+psycopg:// asks for a driver",
        ),
        ({"DB_HOST": ""}, "at DB_HOST, which is not set"),
        ({"DB_HOST": "other.example"}, "names the host 'db.example', and DB_HOST is 'other"),
        ({"MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{HOST}"}, "the name of one database"),
        (
            {"MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{HOST}/mlflow?sslmode=disable"},
            "and nothing more",
        ),
        ({"DB_NAME": "mlflow"}, "names 'mlflow', which is DB_NAME"),
        (
            {"DB_NAME": "a+b", "MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{HOST}/a%2Bb"},
            r"names 'a\+b', which is DB_NAME",
        ),
    ],
)
def test_rejects_other_registries_in_postgresql_with_the_right_form(
    change: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (REGISTRY | change).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ConfigurationError, match=rf"MLFLOW_TRACKING_URI.*{message}.*write postgresql\+psycopg2://"
    ):
        load_settings()


def test_asks_for_the_artifacts_of_a_registry_in_postgresql(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (REGISTRY | {"MLFLOW_ARTIFACTS_URI": ""}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="set it to gs://BUCKET/models") as caught:
        load_settings()
    assert "write postgresql" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "form"),
    [
        ("DB_HOST", "postgres://db:5432/defi", "a host name, an address"),
        ("DB_HOST", "db:5432", "a host name, .*the port is DB_PORT"),
        ("DB_SCHEMA", "public,other", "one name of lower-case"),
        ("METRICS_TABLE", "Metrics", "one name of at most 63 lower-case"),
        ("SPARK_DRIVER_MEMORY", "2 GB", "a whole number with m or g, such as 2g"),
        ("DB_PASSWORD_SECRET", "secret", "projects/P/secrets/S/versions/V"),
        ("DEFILLAMA_YIELDS_URL", "yields.example", "a web address, such as"),
        ("GOOGLE_API_ENDPOINT", "http://host/path", "a web address without a path"),
    ],
)
def test_says_what_to_write_instead_of_a_pattern(
    name: str, value: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}=.* is wrong: it must be {form}"):
        load_settings()


@pytest.mark.parametrize("name", ["DB_HOST", "DB_PORT", "DEFILLAMA_YIELDS_URL", "MAX_FILL_DAYS"])
def test_url_in_the_wrong_variable_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "postgresql://me:very/secret@h:5432/db")
    with pytest.raises(ConfigurationError, match=rf"{name}=\(hidden\) is wrong") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/" + "x" * 5_000, "a name in a path has at most 255 bytes"),
        ("~nobody-here/x", "the account after ~ has no home folder"),
    ],
    ids=["long", "no account"],
)
@pytest.mark.parametrize("name", ["YIELDSPARK_HOME", "JARS_DIR"])
def test_rejects_path_that_no_file_can_have(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert message in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.usefixtures("processes")
def test_account_without_home_folder_must_set_yieldspark_home(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(config_spark.__file__).parent)!r})
from config_spark import load_settings
load_settings(_env_file=None)
os.environ.pop("HOME"), os.environ.pop("XDG_DATA_HOME", None)
os.setuid(54_321)  # after the imports: Python itself may lie in root's folder
load_settings(_env_file=None)
"""
    if os.geteuid():
        pytest.skip("only root can take an account that does not exist")
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (
        "ConfigurationError: this account has no home folder: set YIELDSPARK_HOME"
        in finished.stderr
    )
