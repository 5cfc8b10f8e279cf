"""The dashboard in real Chromium: pages, filter, link, download, other origins, hostile names.

Skips with the reason where Chromium is not installed; that it does not start is a failure.
"""

from __future__ import annotations

import csv
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine

from benchmarks.dashboard_browser import (
    DashboardProcess,
    browser,
    chromium,
    dashboard_process,
    opened,
    wait_until_idle,
)
from config_spark import Settings
from tests.support.dashboard_pages import HOSTILE_NAMES, PAGES, name_hostile
from tests.support.page_contrast import faint_texts
from tests.support.processes import CommandLine
from tests.support.report_store import fill

pytestmark = pytest.mark.usefixtures("processes")

WIDTHS = (1280, 390)
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HEADINGS = {
    "tomorrow": "Forecasts for",
    "pool": "USDC-T",
    "quality": "Quality of the forecasts",
    "runs": "Runs",
    "data": "Data",
}


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with browser() as started:
        yield started


@pytest.fixture
def dashboard(
    database: Settings, engine: Engine, run: CommandLine, tmp_path: Path
) -> Iterator[DashboardProcess]:
    """The command on a small database, in a folder without settings."""
    fill(engine)
    with dashboard_process(run.environment, folder=tmp_path) as started:
        yield started


def _address(dashboard: DashboardProcess, name: str) -> str:
    return f"{dashboard.url}/{'' if name == 'tomorrow' else name}"


def _fits(page: Page, width: int) -> bool:
    """Return whether the page needs no horizontal scrolling of its own."""
    reach: int = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollWidth")
    return reach <= width


def test_pages_open_filter_link_and_download(
    chrome: Browser, dashboard: DashboardProcess, tmp_path: Path
) -> None:
    """One server for all: it takes five seconds to start."""
    with opened(chrome, dashboard.url) as (page, findings):
        assert page.title() == "YieldSpark"
        heading = page.locator("h1").first
        assert heading.inner_text().startswith(HEADINGS["tomorrow"])
        page.locator(".st-key-search input").fill("t3")
        page.keyboard.press("Enter")
        page.get_by_text("1 by the model, 0 by a fallback").wait_for()
        wait_until_idle(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download CSV").click()
        stored = tmp_path / "forecasts.csv"
        download.value.save_as(stored)
        (row,) = csv.DictReader(stored.read_text(encoding="utf-8").splitlines())
        assert (row["pool_id"], row["symbol"]) == ("p3", "USDC-T3")
        assert page.get_by_role("button", name="Download as CSV").count() == 0, "has formulas"
        page.get_by_role("link", name="Quality", exact=True).first.click()
        # a process of the server computes the scores
        page.locator(".st-key-segments").wait_for()
        page.get_by_role("link", name="Runs", exact=True).first.click()
        page.get_by_role("heading", name="Run forecast_pools_1").wait_for()
        wait_until_idle(page)
        assert findings.errors == []
    with opened(chrome, f"{dashboard.url}/pool?pool=p5", width=390) as (page, findings):
        assert page.locator("h1").first.inner_text() == "USDC-T5"
        assert _fits(page, 390)
        assert page.locator("canvas, svg.marks").count() > 2, "charts and tables are drawn"
        assert findings.errors == []


@pytest.mark.long
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_is_complete_at_every_width(
    chrome: Browser, dashboard: DashboardProcess, width: int, theme: Literal["light", "dark"]
) -> None:
    for name in PAGES:
        with opened(chrome, _address(dashboard, name), width=width, theme=theme) as (page, found):
            assert page.locator("h1").first.inner_text().startswith(HEADINGS[name])
            if name == "quality":
                page.locator(".st-key-segments").wait_for()
            assert page.locator("[data-testid=stException]").count() == 0
            assert _fits(page, width)
            assert found.errors == [], name
            assert faint_texts(page) == [], name


# the focused element inside shadow roots: whether it shows the focus, and what it is
FOCUS = """() => {
    let focused = document.activeElement;
    while (focused.shadowRoot && focused.shadowRoot.activeElement) {
        focused = focused.shadowRoot.activeElement;
    }
    return focused === document.body ? null : focused.outerHTML;
}"""
# what a mouse can use: inputs, links, buttons and tables that are shown and enabled
USABLE = """() => [...document.querySelectorAll(
    'a[href], button, input, summary, [role="spinbutton"], [data-testid="data-grid-canvas"]')]
    .filter(e => !e.disabled && !e.closest('[aria-hidden="true"], [data-react-aria-prevent-focus]')
        && e.checkVisibility({visibilityProperty: true})
        && e.getBoundingClientRect().width > 1)
    .map(e => e.outerHTML)"""
BY_ARROWS = re.compile(r'aria-label="Open"|data-testid="stBaseButton-segmented')
MOST_TABS = 250


def _reached(page: Page) -> set[str]:
    """Press Tab until the focus leaves the page, and return what had it."""
    reached: set[str] = set()
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUS)
        if focused is None:
            return reached
        reached.add(_without_state(focused))
    raise AssertionError("Tab does not leave the page: the focus is caught in a control")


def _without_state(html: str) -> str:
    # the focus changes classes, styles and the cell of a table
    tag = html.split(">", 1)[0]
    attributes = re.findall(r'(?:aria-label|data-testid|href|placeholder|id)="[^"]*"', tag)
    return " ".join([tag.split()[0], *attributes])


@pytest.mark.long
def test_every_control_is_reached_by_keyboard(chrome: Browser, dashboard: DashboardProcess) -> None:
    for name in PAGES:
        with opened(chrome, _address(dashboard, name)) as (page, _):
            if name == "quality":
                page.locator(".st-key-segments").wait_for()
            page.wait_for_timeout(1500)
            usable = {_without_state(html) for html in page.evaluate(USABLE)}
            assert len(usable) > 8
            # arrows move inside radio buttons, and open the list of a field that has the focus
            others = {html for html in usable if BY_ARROWS.search(html)}
            assert usable - others - _reached(page) == set(), name


@pytest.mark.long
def test_the_pages_work_without_a_mouse(chrome: Browser, dashboard: DashboardProcess) -> None:
    with opened(chrome, dashboard.url) as (page, findings):
        page.wait_for_timeout(1500)
        # a filter
        page.get_by_role("combobox", name="Order by").focus()
        page.keyboard.type("pool, by symbol")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type("over $10M")
        page.keyboard.press("Enter")
        page.get_by_text("4 by the model, 0 by a fallback").wait_for()
        wait_until_idle(page)
        # a row of the table, and the link that it shows
        page.get_by_role("button", name="Fullscreen").first.focus()
        for key in ("Tab", "ArrowDown", "Shift+Space"):
            page.keyboard.press(key)
        link = page.get_by_role("link", name="Open the page of USDC-T5")
        link.wait_for()
        link.focus()
        page.keyboard.press("Enter")
        page.locator("h1", has_text="USDC-T5").wait_for()
        assert page.url.endswith("/pool?pool=p5")
        # a choice by arrows, and an expander
        page.get_by_role("radio", name="90 days").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        page.get_by_role("radio", name="365 days", checked=True).wait_for()
        wait_until_idle(page)
        page.get_by_text("Numbers", exact=True).first.locator("xpath=ancestor::summary").focus()
        page.keyboard.press("Enter")
        page.locator("details[open]").wait_for()
        assert findings.errors == []


@pytest.mark.long
def test_the_focus_is_seen(chrome: Browser, dashboard: DashboardProcess) -> None:
    for theme in THEMES:
        with opened(chrome, dashboard.url, theme=theme) as (page, _):
            for _ in range(3):
                page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.innerText") == "Pool"
            outline = page.evaluate(
                "(({outlineStyle: s, outlineWidth: w}) => s + ' ' + w)"
                "(getComputedStyle(document.activeElement))"
            )
            assert outline == "solid 2px"


@pytest.mark.long
def test_hostile_names_run_nothing(
    chrome: Browser, database: Settings, engine: Engine, dashboard: DashboardProcess
) -> None:
    name_hostile(engine)
    dialogs: list[str] = []
    for name in PAGES:
        with opened(chrome, _address(dashboard, name)) as (page, findings):
            page.on("dialog", lambda dialog: dialogs.append(dialog.message))
            page.wait_for_timeout(500)
            assert page.locator("img[onerror], [onmouseover]").count() == 0
            links = page.locator("a").evaluate_all("all => all.map(link => link.href)")
            assert not [link for link in links if "evil" in link or "javascript" in link]
            assert findings.errors == [], name
    assert dialogs == []
    for number in (1, 2, 3, 4):
        with opened(chrome, f"{dashboard.url}/pool?pool=p{number}") as (page, _):
            assert page.locator("h1").first.inner_text() == HOSTILE_NAMES[number]


def _answer(dashboard: DashboardProcess, lines: str) -> str:
    """Send the lines of a request and return the first line of the answer."""
    port = int(dashboard.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(lines.replace("PORT", str(port)).replace("\n", "\r\n").encode())
        return connection.recv(4096).split(b"\r\n")[0].decode()


WEBSOCKET = (
    "GET /_stcore/stream HTTP/1.1\nHost: {host}\nOrigin: {origin}\nUpgrade: websocket\n"
    "Connection: Upgrade\nSec-WebSocket-Version: 13\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"
)


def test_other_hosts_and_origins_are_refused(dashboard: DashboardProcess) -> None:
    own = "127.0.0.1:PORT"
    assert _answer(dashboard, f"GET / HTTP/1.1\nHost: {own}\n\n").endswith("200 OK")
    assert _answer(dashboard, "GET / HTTP/1.1\nHost: localhost:PORT\n\n").endswith("200 OK")
    for path in ("/", "/_stcore/health", "/_stcore/host-config", "/media/x"):
        rebound = f"GET {path} HTTP/1.1\nHost: evil.test:PORT\n\n"
        assert "403" in _answer(dashboard, rebound), path
    foreign = f"GET / HTTP/1.1\nHost: {own}\nOrigin: http://evil.test\n\n"
    assert "403" in _answer(dashboard, foreign)
    for host, origin, status in (
        (own, f"http://{own}", "101"),
        (own, "http://evil.test", "403"),
        (own, "null", "403"),
        ("evil.test:PORT", "http://evil.test:PORT", "403"),
    ):
        assert status in _answer(dashboard, WEBSOCKET.format(host=host, origin=origin))


def test_the_command_names_a_used_port_and_warns_of_other_addresses(
    run: CommandLine, database: Settings
) -> None:
    with socket.socket() as used:
        used.bind(("0.0.0.0", 0))
        used.listen()
        port = str(used.getsockname()[1])
        finished: subprocess.CompletedProcess[str] = run(
            "dashboard", "--port", port, "--host", "0.0.0.0"
        )
    assert finished.returncode == 2
    assert "anyone who reaches 0.0.0.0 can read the dashboard" in finished.stderr
    assert f"can't listen at 0.0.0.0, port {port}" in finished.stderr
    assert "--port" in finished.stderr
    assert "Traceback" not in finished.stderr
