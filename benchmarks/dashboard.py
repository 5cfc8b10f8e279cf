"""Measures the dashboard at many pools: seconds of each page and click in Chromium, and the memory
of the server.

The tables are generated in an embedded PostgreSQL of its own. A page's seconds run from the click,
or from the address, until Streamlit has drawn it. `first` is the first visit after the start of the
server, with empty caches; `again` another visit with the same filters. The processor seconds are
those of the server's process, without PostgreSQL and the browser.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from playwright.sync_api import Page

from benchmarks.dashboard_browser import (
    DashboardProcess,
    browser,
    chromium,
    dashboard_process,
    opened,
    wait_until_idle,
)
from benchmarks.dashboard_data import fill_tables
from benchmarks.databases import environment, temporary_server
from benchmarks.metrics_table import machine_facts
from database.connections.engine import make_engine

FIRST_PAGE_SECONDS, CLICK_SECONDS = 5.0, 2.0
PAGES = ("Tomorrow", "Pool", "Quality", "Runs", "Data")
CLICK_TIMEOUT_MS = 120_000
SCORES = "scores are there"
"""Time from the page, which shows their progress, until they are computed."""


@dataclass(frozen=True)
class Timing:
    """One visit or click.

    Attributes:
        seconds: wall time until the page is complete.
        cpu_seconds: processor time of the server's process.
        goal: seconds; None for visits without one.
    """

    page: str
    action: str
    seconds: float
    cpu_seconds: float
    goal: float | None

    @property
    def is_met(self) -> bool:
        """Whether the time is within the goal."""
        return self.goal is None or self.seconds <= self.goal


def _open(name: str) -> Callable[[Page], None]:
    return lambda page: page.get_by_role("link", name=name, exact=True).first.click()


def _choose(key: str, option: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        field = page.locator(f".st-key-{key} input")
        field.fill(option)
        field.press("Enter")

    return act


def _type(key: str, search: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        field = page.locator(f".st-key-{key} input")
        field.fill(search)
        field.press("Enter")

    return act


def _press(name: str) -> Callable[[Page], None]:
    return lambda page: page.get_by_role("button", name=name, exact=True).first.click()


def _pick(name: str) -> Callable[[Page], None]:
    return lambda page: page.get_by_text(name, exact=True).first.click()


def _wait_for(key: str) -> Callable[[Page], None]:
    return lambda page: page.locator(f".st-key-{key}").wait_for()


CLICKS: dict[str, list[tuple[str, Callable[[Page], None]]]] = {
    "Tomorrow": [
        ("search", _type("search", "chain-7")),
        ("clear the search", _type("search", "")),
        ("order by APY", _choose("order", "APY forecast")),
        ("next page", _press("Next page")),
        ("TVL over $10M", _choose("least_tvl", "over $10M")),
    ],
    "Pool": [("search", _type("pool_search", "pool 12")), ("365 days", _pick("365 days"))],
    "Quality": [
        (SCORES, _wait_for("segments")),
        ("by chain", _choose("segments", "Chain")),
        ("TVL", _pick("TVL")),
    ],
    "Runs": [
        ("one job", _choose("run_job", "forecast_pools")),
        ("next page", _press("Next page")),
    ],
    "Data": [
        ("next page", _press("Next page")),
        ("120 days", _pick("120 days")),
        ("search", _type("gap_search", "chain-7")),
    ],
}


def measure(dashboard: DashboardProcess) -> Iterator[Timing]:
    """Visit every page, click, and visit it again.

    Yields:
        Timings, in this order.
    """
    with browser() as chrome, ExitStack() as windows:
        started, cpu = time.monotonic(), dashboard.cpu_seconds()
        page, _ = windows.enter_context(opened(chrome, dashboard.url))
        yield _timing(dashboard, "Tomorrow", "first", started, cpu, FIRST_PAGE_SECONDS)
        page.set_default_timeout(CLICK_TIMEOUT_MS)
        for name in PAGES:
            actions: list[tuple[str, Callable[[Page], None], float | None]] = [
                (action, act, None if action == SCORES else CLICK_SECONDS)
                for action, act in CLICKS[name]
            ]
            if name != "Tomorrow":
                actions.insert(0, ("first", _open(name), None))
            for action, act, goal in actions:
                started, cpu = time.monotonic(), dashboard.cpu_seconds()
                act(page)
                # the server has to receive the click before the page is outdated
                page.wait_for_timeout(120)
                wait_until_idle(page)
                yield _timing(dashboard, name, action, started, cpu, goal)
        for name in PAGES:
            started, cpu = time.monotonic(), dashboard.cpu_seconds()
            _open(name)(page)
            page.wait_for_timeout(120)
            wait_until_idle(page)
            yield _timing(dashboard, name, "again", started, cpu, CLICK_SECONDS)


def _timing(
    dashboard: DashboardProcess,
    page: str,
    action: str,
    started: float,
    cpu: float,
    goal: float | None,
) -> Timing:
    return Timing(page, action, time.monotonic() - started, dashboard.cpu_seconds() - cpu, goal)


def result_text(timings: Sequence[Timing], memory_mb: tuple[float, float]) -> str:
    """Return a line for each visit and click, and the server's memory."""
    lines = []
    for timing in timings:
        goal = "" if timing.goal is None else f"goal {timing.goal:.0f} s: "
        verdict = "" if timing.goal is None else ("hit" if timing.is_met else "missed")
        lines.append(
            f"{timing.page:10} {timing.action:18} {timing.seconds:6.2f} s"
            f" {timing.cpu_seconds:6.2f} s processor   {goal}{verdict}".rstrip()
        )
    now, peak = memory_mb
    lines.append(f"memory of the server: {now:,.0f} MB at the end, {peak:,.0f} MB at its peak")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--json", action="store_true", help="JSON output")
    options = parser.parse_args(argv)
    if chromium() is None:
        sys.exit("chromium is not on PATH: apt-get install chromium")
    facts = machine_facts()
    with temporary_server() as settings:
        rows = fill_tables(make_engine(settings), pools=options.pools, days=options.days, say=_say)
        with dashboard_process(environment(settings)) as dashboard:
            timings = []
            for timing in measure(dashboard):
                timings.append(timing)
                _say(f"{timing.page}, {timing.action}: {timing.seconds:.2f} s")
            memory = dashboard.memory_mb()
    if options.json:
        document = {"timings": [asdict(timing) for timing in timings], "memory_mb": memory}
        print(json.dumps(facts | {"rows": rows} | document, indent=2))
        return
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    print(f"rows: {', '.join(f'{name} {count:,}' for name, count in rows.items())}")
    print(result_text(timings, memory))


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
