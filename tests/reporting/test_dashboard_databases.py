"""The dashboard on databases that are empty, unreadable or of another version, and its rights."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
import streamlit as st
from pydantic import SecretStr
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DBAPIError
from streamlit.testing.v1 import AppTest

from config_spark import Settings
from database.schema.migrate import NEWEST_REVISION
from database.schema.own_tables import run_ledger
from reporting.dashboard import connection
from reporting.dashboard.server import SCRIPT, is_loopback
from tests.support.dashboard_pages import (
    PAGES,
    run_sql,
    show_page,
    shown_commands,
)
from tests.support.report_store import fill, ledger_row


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tomorrow", "forecast_pools"),
        ("pool", "calculate_metrics"),
        ("quality", "forecast_pools"),
        ("runs", "calculate_metrics"),
        ("data", "load FILE..."),
    ],
)
def test_a_page_of_an_empty_database_says_what_to_run(
    database: Settings, name: str, command: str
) -> None:
    assert f"python run_spark_local.py {command}" in shown_commands(show_page(database, name))


def _whole(settings: Settings) -> AppTest:
    connection.use(settings)
    st.cache_data.clear()
    return AppTest.from_file(str(SCRIPT), default_timeout=60).run()


def test_the_script_shows_the_first_page(database: Settings, engine: Engine) -> None:
    fill(engine)
    page = _whole(database)
    assert not page.exception
    assert page.title[0].value.startswith("Forecasts for")


def test_an_unreachable_database_is_a_sentence(database: Settings) -> None:
    page = _whole(database.model_copy(update={"db_host": "127.0.0.1", "db_port": 9}))
    assert not page.exception
    assert page.title[0].value == "The database can't be read"
    (message,) = page.error
    assert "127\\.0\\.0\\.1" in message.value
    assert "DB\\_HOST" in message.value
    assert "Traceback" not in message.value


@pytest.mark.parametrize(
    ("revision", "words"),
    [("9999", "run the newer version"), ("0013", "db migrate"), ("0009", "an unreleased version")],
)
def test_a_database_of_another_version_is_a_sentence(
    database: Settings, engine: Engine, revision: str, words: str
) -> None:
    moved = "UPDATE yieldspark.alembic_version SET version_num = :revision RETURNING 1"
    run_sql(engine, moved, revision=revision)
    try:
        (message,) = _whole(database).error
        assert words in message.value.replace("\\", "")
    finally:
        run_sql(engine, moved, revision=NEWEST_REVISION)


def test_a_database_without_tables_names_the_command(database: Settings, engine: Engine) -> None:
    run_sql(engine, "DROP SCHEMA yieldspark CASCADE; SELECT 1")
    (message,) = _whole(database).error
    assert "db migrate" in message.value


READER = """
CREATE ROLE dashboard_reader LOGIN PASSWORD 'only-for-this-test';
GRANT USAGE ON SCHEMA public, yieldspark TO dashboard_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public, yieldspark TO dashboard_reader;
"""


def test_a_role_that_may_only_read_is_enough(database: Settings, engine: Engine) -> None:
    fill(engine)
    reader = database.model_copy(
        update={"db_user": "dashboard_reader", "db_password": SecretStr("only-for-this-test")}
    )
    try:
        run_sql(engine, f"{READER} SELECT 1")
        assert not _whole(reader).error
        for name in PAGES:
            assert show_page(reader, name).title
        run_sql(engine, "REVOKE SELECT ON yieldspark.run_ledger FROM dashboard_reader; SELECT 1")
        (message,) = _whole(reader).error
        assert "GRANT SELECT ON ALL TABLES IN SCHEMA yieldspark" in message.value
        assert "INSERT" not in message.value, "a reader needs no right to write"
    finally:
        connection.use(database)
        run_sql(engine, "DROP OWNED BY dashboard_reader; DROP ROLE dashboard_reader; SELECT 1")


def test_the_pages_cannot_write(database: Settings, engine: Engine) -> None:
    fill(engine, pool_count=1)
    connection.use(database)
    with pytest.raises(DBAPIError, match="read-only"), connection.connected().engine.begin() as one:
        one.execute(text("DELETE FROM yieldspark.forecasts"))


def test_figures_are_read_again_after_a_run(database: Settings, engine: Engine) -> None:
    fill(engine)
    connection.use(database)
    before = connection.data_version()
    with engine.begin() as session:
        session.execute(
            insert(run_ledger),
            ledger_row("r2", "forecast_pools", "succeeded", finished_at=dt.datetime.now(dt.UTC)),
        )
    assert connection.data_version() == replace(before, run_id="r2")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.7", False),
        ("dashboard.example.com", False),
    ],
)
def test_loopback_is_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
