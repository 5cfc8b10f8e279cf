"""The benchmark of the dashboard: its tables, and its lines. No figure of speed is asserted."""

from __future__ import annotations

from sqlalchemy import Engine

from benchmarks.dashboard import CLICKS, PAGES, Timing, result_text
from benchmarks.dashboard_data import AS_OF, fill_tables
from reporting.figures.accuracy import newest_by_day
from reporting.figures.data_quality import data_quality
from reporting.figures.forecast_search import ForecastFilter, forecast_day, forecast_summary


def test_the_generated_tables_are_those_of_the_pages(engine: Engine) -> None:
    rows = fill_tables(engine, pools=7, days=20, say=lambda _: None)
    assert rows["metrics"] == rows["raw"] == 7 * 20
    assert rows["evaluation"] == 7 * 20 * 2
    day = forecast_day(engine)
    assert day is not None
    assert day.as_of == AS_OF
    assert forecast_summary(engine, ForecastFilter()).forecasts == 7
    assert data_quality(engine).pool_days == 7 * 20
    assert {*newest_by_day(engine, days=20)} == {"apy", "tvl"}


def test_a_line_names_the_seconds_and_the_goal() -> None:
    timings = [
        Timing("Tomorrow", "first", 4.25, 0.5, 5.0),
        Timing("Pool", "search", 2.5, 0.25, 2.0),
        Timing("Runs", "first", 9.0, 0.25, None),
    ]
    hit, missed, without, memory = result_text(timings, (200.0, 1300.0)).splitlines()
    assert hit.split() == [
        "Tomorrow",
        "first",
        "4.25",
        "s",
        "0.50",
        "s",
        "processor",
        "goal",
        "5",
        "s:",
        "hit",
    ]
    assert missed.endswith("goal 2 s: missed")
    assert without.endswith("processor")
    assert memory == "memory of the server: 200 MB at the end, 1,300 MB at its peak"


def test_every_page_has_clicks() -> None:
    assert tuple(CLICKS) == PAGES
