"""What the dashboard's server reads before a visitor asks for it, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import streamlit as st
from sqlalchemy import Engine, event
from streamlit.testing.v1 import AppTest

from config_spark import Settings
from reporting.dashboard import connection, preparation, scoring, visits
from reporting.dashboard.connection import data_version
from reporting.dashboard.preparation import prepare_figures
from reporting.dashboard.server import SCRIPT
from reporting.dashboard.views.tomorrow import prepare_page
from tests.support.report_store import fill

SECONDS = 60.0


@pytest.fixture(autouse=True)
def _nothing_prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(visits, "_last_end", None)
    monkeypatch.setattr(preparation, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(preparation, "CHECK_SECONDS", 0.02)
    st.cache_data.clear()
    scoring._kept.clear()
    yield
    scoring._kept.clear()


@contextmanager
def _statements() -> Iterator[list[str]]:
    """Collect the statements of the dashboard's engine while the block runs."""
    engine, statements = connection.connected().engine, list[str]()

    def collect(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", collect)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", collect)


def _wait_for(condition: threading.Event) -> None:
    assert condition.wait(SECONDS), f"not within {SECONDS:.0f} s"


def _wait_for_some(condition: threading.Event) -> None:
    # more than one look for a new run
    for _ in range(20):
        condition.clear()
        _wait_for(condition)


def test_the_first_page_is_read_before_a_visitor_asks(database: Settings, engine: Engine) -> None:
    fill(engine)
    connection.use(database)
    with _statements() as read:
        prepare_page(data_version())
    assert any("FROM listed" in statement for statement in read)
    with _statements() as read:
        page = AppTest.from_file(str(SCRIPT), default_timeout=SECONDS).run()
    assert not page.exception
    assert page.title[0].value.startswith("Forecasts for")
    assert not [statement for statement in read if "yieldspark.forecasts" in statement]
    assert visits.quiet_seconds() > 0.0, "the page was counted"


def test_the_time_without_a_page_begins_with_the_end_of_the_last_one() -> None:
    assert visits.quiet_seconds() == 0.0, "nobody has opened a page"
    with visits.counted():
        with visits.counted():
            pass
        assert visits.quiet_seconds() == 0.0, "another page is being made"
    time.sleep(0.01)
    assert visits.quiet_seconds() > 0.0
    with pytest.raises(ValueError, match="a page failed"), visits.counted():
        raise ValueError("a page failed")
    time.sleep(0.01)
    assert visits.quiet_seconds() > 0.0, "a page that failed has ended too"


@pytest.mark.usefixtures("processes")
def test_the_scores_begin_when_no_page_is_made(
    database: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine)
    connection.use(database)
    asked, started = threading.Event(), threading.Event()
    quiet_seconds, scoring_of = visits.quiet_seconds, scoring.scoring_of

    def counting() -> float:
        asked.set()
        return quiet_seconds()

    def starting(version: connection.DataVersion) -> scoring.Scoring:
        started.set()
        return scoring_of(version)

    monkeypatch.setattr(visits, "quiet_seconds", counting)
    monkeypatch.setattr(preparation, "scoring_of", starting)
    stop = threading.Event()
    thread = threading.Thread(target=prepare_figures, args=(stop, 0.001))
    try:
        with _statements() as read:
            thread.start()
            _wait_for_some(asked)
        assert any("FROM listed" in statement for statement in read), "the first page is prepared"
        assert not started.is_set(), "nobody has opened a page"
        with visits.counted():
            _wait_for_some(asked)
            assert not started.is_set(), "a page is being made"
        _wait_for(started)
        _wait_for(scoring_of(data_version()).ended)
    finally:
        stop.set()
        thread.join(SECONDS)
    assert not thread.is_alive()
