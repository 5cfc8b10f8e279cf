"""The report and the page of a backtest: one file without network access, a row for each forecast,
and no markup from the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Engine, insert, text

from common.errors import ConfigurationError
from database.schema.own_tables import promotion, run_ledger
from forecasting.publishing.forecast_history import scored_rows
from reporting.figures.forecasts import PoolDay, PoolSeries, forecast_table, pool_series
from reporting.report import formatting
from reporting.report.backtest_page import write_backtest
from reporting.report.pool_plot import apy_plot
from reporting.report.report import REPORT_NAME, write_report
from tests.support.report_store import (
    AS_OF,
    UNSAFE,
    add_horizon,
    decision,
    drift,
    fill,
    ledger_row,
)

VOID = {"meta", "input", "br", "link", "img", "hr", "path", "use", "circle"}
REFERENCES = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


class Page(HTMLParser):
    """The page as a browser parses it: attributes, tags, text and rows of the forecast table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.scripts = self.forecast_rows = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.scripts += tag == "script"
        self.forecast_rows += tag == "tr" and any(name == "data-words" for name, _ in attrs)
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _backtest(engine: Engine, folder: Path) -> Path:
    return write_backtest(
        engine, scored_rows(engine, "lightgbm", horizon=1, last=AS_OF, days=30), folder
    )


def _report_page(
    engine: Engine, folder: Path, write: Callable[[Engine, Path], Path] = write_report
) -> tuple[str, Page]:
    page = write(engine, folder).read_text("utf-8")
    return page, Page(page)


def _add_model_health(
    engine: Engine, *, reason: str = "0.90 of persistence", feature: str = "apy_std_30"
) -> None:
    checks = drift(features=[{"feature": feature, "psi": 0.41, "ks": 0.3}])
    with engine.begin() as connection:
        connection.execute(
            insert(promotion),
            [decision(), decision("refused", serving_version=None, reason=reason)],
        )
        connection.execute(
            insert(run_ledger), ledger_row("r8", "forecast_pools", "succeeded", checks=checks)
        )


BOTH_PAGES = pytest.mark.parametrize("write", [write_report, _backtest])


def test_the_report_has_a_row_for_each_forecast_and_a_plot_for_the_largest(
    engine: Engine, tmp_path: Path
) -> None:
    fill(engine, pool_count=9)
    _, page = _report_page(engine, tmp_path)
    assert page.forecast_rows == 9
    assert page.tags.count("figure") == 6 + 2 * 3, (
        "six pools; for either target ratio, coverage and groups"
    )
    for fragment in (
        "Forecasts for Mon 6 Oct 2025",
        "8 by the model, 1 by a fallback",
        "Persistence",
        "7-day median",
        "forecast_pools",
        "lightgbm",
        "80 %",
        "stale",
    ):
        assert fragment in page.text


def test_further_horizons_follow_those_of_the_next_day(engine: Engine, tmp_path: Path) -> None:
    fill(engine, pool_count=9)
    _, alone = _report_page(engine, tmp_path)
    add_horizon(engine, 7)
    _, both = _report_page(engine, tmp_path)
    assert "Forecasts for Mon 6 Oct 2025" in both.text
    assert "Forecasts for Sun 12 Oct 2025, 7 days ahead" in both.text
    assert "Accuracy 7 days ahead" in both.text
    assert (alone.forecast_rows, both.forecast_rows) == (9, 18)
    assert "ahead" not in alone.text
    # no plot, tile or score of the next day has rows of the other horizon
    assert both.values("d") == alone.values("d")
    ids = both.values("id")
    assert len(ids) == len(set(ids))


def test_a_backtest_of_two_horizons_has_the_accuracy_of_both(
    engine: Engine, tmp_path: Path
) -> None:
    fill(engine)
    _, alone = _report_page(engine, tmp_path, _backtest)
    add_horizon(engine, 7)
    with engine.connect() as connection:
        rows = pd.read_sql("SELECT * FROM yieldspark.forecast_evaluation", connection)
    page = Page(write_backtest(engine, rows, tmp_path).read_text("utf-8"))
    assert "Accuracy 7 days ahead" in page.text
    assert page.values("d") == alone.values("d")


@BOTH_PAGES
def test_the_page_refers_to_no_network(
    engine: Engine, tmp_path: Path, write: Callable[[Engine, Path], Path]
) -> None:
    fill(engine)
    _add_model_health(engine)
    source, page = _report_page(engine, tmp_path, write)
    references = list(chain.from_iterable(map(page.values, REFERENCES)))
    assert references, "the skip link and the pictures' own parts are references"
    assert all(value.startswith("#") for value in references)
    assert all(value.startswith("#") for value in re.findall(r"url\(['\"]?([^)]*)", source))
    assert "://" not in source
    assert "@import" not in source
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert "default-src 'none'" in policy


@BOTH_PAGES
def test_every_reference_inside_the_page_has_its_target_once(
    engine: Engine, tmp_path: Path, write: Callable[[Engine, Path], Path]
) -> None:
    fill(engine)
    source, page = _report_page(engine, tmp_path, write)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    used = {value.removeprefix("#") for value in page.values("href")} | set(
        re.findall(r"url\(#([^)]*)\)", source)
    )
    used |= set(chain.from_iterable(map(str.split, page.values("aria-labelledby"))))
    used |= set(page.values("for"))
    assert used <= set(ids)


@BOTH_PAGES
def test_a_name_in_the_data_never_becomes_markup(
    engine: Engine, tmp_path: Path, write: Callable[[Engine, Path], Path]
) -> None:
    fill(
        engine,
        names={7: UNSAFE, 3: "</svg><img src=x onerror=alert(1)>", 0: "' onmouseover='alert(1)"},
    )
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE pools SET protocol = :name, chain = :name"), {"name": UNSAFE}
        )
        connection.execute(
            insert(run_ledger),
            ledger_row("r9", "calculate_metrics", "failed", error=UNSAFE, mode=UNSAFE),
        )
        connection.execute(
            text(
                "UPDATE yieldspark.forecasts SET explanation[0]['feature'] = to_jsonb(CAST(:name AS"
                " text)) WHERE apy_fallback_reason IS NULL"
            ),
            {"name": UNSAFE},
        )
        connection.execute(
            text("UPDATE yieldspark.forecast_evaluation SET run_id = :name"), {"name": UNSAFE}
        )
    _add_model_health(engine, reason=UNSAFE, feature=UNSAFE)
    _, page = _report_page(engine, tmp_path, write)
    assert page.scripts == 1
    assert "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert UNSAFE in page.text
    if write is write_report:
        assert page.forecast_rows == 8
        assert any(UNSAFE in label for label in page.values("aria-label"))
        assert page.text.count(UNSAFE.replace("_", " ")) >= 3 + 7, (
            "a reason, a feature that drifted, seven explanations"
        )


def test_a_plot_contains_no_text_of_the_data(engine: Engine) -> None:
    fill(engine, pool_count=2, names={1: UNSAFE})
    for series in pool_series(engine, forecast_table(engine)):
        svg, _ = apy_plot(series)
        assert svg.startswith("<svg viewBox=")
        assert svg.rstrip().endswith("</svg>")
        assert "alert" not in svg
        assert "xmlns" not in svg
        assert "#" not in svg, "all colours are variables of the page"
        assert "var(--accent)" in svg


def test_extreme_days_do_not_flatten_the_plot_and_are_counted(engine: Engine) -> None:
    fill(engine, pool_count=1)
    series = pool_series(engine, forecast_table(engine))[0]
    assert apy_plot(series)[1] == 0
    days = list(series.days)
    days[5] = replace(days[5], actual=355_083.0)
    days[6] = replace(days[6], actual=90_000.0)
    svg, clipped = apy_plot(replace(series, days=tuple(days)))
    assert clipped == 2
    assert "355" not in "".join(re.findall(r"<text[^>]*>([^<]*)", svg))


@pytest.mark.parametrize(
    "days",
    [
        (),
        (PoolDay(AS_OF, actual=0.0, forecast=None, low=None, high=None),),
    ],
)
def test_a_pool_with_hardly_a_day_has_a_plot(engine: Engine, days: tuple[PoolDay, ...]) -> None:
    fill(engine, pool_count=1)
    forecast = replace(forecast_table(engine)[0], apy=0.0, apy_low=None, apy_high=None)
    assert apy_plot(PoolSeries(forecast, 0.0, days))[1] == 0


def test_the_same_pool_gives_the_same_picture(engine: Engine) -> None:
    fill(engine, pool_count=1)
    series = pool_series(engine, forecast_table(engine))[0]
    assert apy_plot(series) == apy_plot(series)


def test_the_report_of_an_empty_database_names_the_commands_to_run(
    engine: Engine, tmp_path: Path
) -> None:
    _, page = _report_page(engine, tmp_path)
    assert "No forecasts yet" in page.text
    for command in ("load", "calculate_metrics", "forecast_pools", "report"):
        assert f"python run_spark_local.py {command}" in page.text
    assert page.forecast_rows == 0


def test_metrics_without_forecasts_ask_for_forecasts_only(engine: Engine, tmp_path: Path) -> None:
    fill(engine, pool_count=2)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE yieldspark.forecasts, yieldspark.forecast_evaluation"))
    _, page = _report_page(engine, tmp_path)
    assert "metrics of 2 pools" in page.text
    assert "run_spark_local.py load" not in page.text


def test_forecasts_without_values_or_labels_are_shown_as_unknown(
    engine: Engine, tmp_path: Path
) -> None:
    fill(engine, pool_count=2)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM pools"))
        connection.execute(text("DELETE FROM pool_daily_metrics"))
        connection.execute(text("DELETE FROM yieldspark.forecast_evaluation"))
        connection.execute(
            text(
                "UPDATE yieldspark.forecasts SET apy = NULL, apy_low = NULL, apy_high = NULL WHERE"
                " pool_id = 'p1'"
            )
        )
    _, page = _report_page(engine, tmp_path)
    assert page.forecast_rows == 2
    assert page.tags.count("figure") == 1
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_a_models_forecast_has_contributions_and_a_fallback_has_none(
    engine: Engine, tmp_path: Path
) -> None:
    fill(engine, pool_count=3)
    _, page = _report_page(engine, tmp_path)
    assert page.text.count("−0.12 distance from the 7-day mean") == 2
    assert page.text.count("+0.050 share that rose of the pool's group") == 2


def test_drift_and_decisions_are_shown_if_there_are_any(engine: Engine, tmp_path: Path) -> None:
    fill(engine, pool_count=2)
    assert "Model health" not in _report_page(engine, tmp_path)[1].text
    _add_model_health(engine)
    text = _report_page(engine, tmp_path)[1].text
    for fragment in (
        "1 feature drifted",
        "1 of 8 APY forecasts are fallbacks",
        "spread over 30 days",
        "0.41",
        "refused",
        "0.90 of persistence",
        "me@here",
    ):
        assert fragment in text
    assert "8 in staging" not in text


def test_a_backtests_page_has_the_numbers_of_its_rows(engine: Engine, tmp_path: Path) -> None:
    fill(engine, pool_count=5)
    _, page = _report_page(engine, tmp_path, _backtest)
    for fragment in (
        "Backtest of 30 days to Sun 5 Oct 2025",
        "a day ahead",
        "150 forecasts of 5 pools",
        "7-day median",
        "Largest errors",
        "over $10M",
    ):
        assert fragment in page.text
    assert page.tags.count("figure") == 6
    assert page.forecast_rows == 0


def test_a_backtest_without_actual_values_says_so(engine: Engine, tmp_path: Path) -> None:
    _, page = _report_page(engine, tmp_path, _backtest)
    assert "No day could be scored" in page.text
    assert page.tags.count("figure") == 0


def test_old_data_have_a_notice(engine: Engine, tmp_path: Path) -> None:
    fill(engine, pool_count=1)
    _, page = _report_page(engine, tmp_path)
    assert "before the last complete UTC day" in page.text


@BOTH_PAGES
def test_elements_are_closed_in_order(
    engine: Engine, tmp_path: Path, write: Callable[[Engine, Path], Path]
) -> None:
    class Nesting(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in VOID:
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            if tag not in VOID:
                assert self.open.pop() == tag

    fill(engine)
    _add_model_health(engine)
    parser = Nesting()
    parser.feed(_report_page(engine, tmp_path, write)[0])
    assert parser.open == []


def test_a_report_is_replaced_whole_in_a_folder_it_makes(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "reports"
    first = write_report(engine, folder)
    assert first == folder / REPORT_NAME
    fill(engine, pool_count=2)
    assert write_report(engine, folder) == first
    assert "USDC-T1" in first.read_text("utf-8")
    assert [path.name for path in folder.iterdir()] == [REPORT_NAME]


def test_a_folder_that_is_a_file_is_refused_with_the_setting(
    engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "reports"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match="REPORT_DIR"):
        write_report(engine, file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "0.00 %"),
        (0.0423, "0.042 %"),
        (0.00001, "0.00 %"),
        (4.2149, "4.21 %"),
        (187.34, "187.3 %"),
        (12345.6, "12,346 %"),
        (3.5e6, "3.50M %"),
        (-0.5, "−0.50 %"),
    ],
)
def test_apy_as_text(value: float | None, expected: str) -> None:
    assert formatting.percent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "$0"),
        (0.42, "$0.42"),
        (532.4, "$532"),
        (999.9, "$1.00K"),
        (1250.0, "$1.25K"),
        (999_999.0, "$1.00M"),
        (12_500_000.0, "$12.5M"),
        (3.41e9, "$3.41B"),
        (2e12, "$2.00T"),
        (-1500.0, "−$1.50K"),
    ],
)
def test_tvl_as_text(value: float | None, expected: str) -> None:
    assert formatting.usd(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "–"),
        (60.0, "1 minute"),
        (3 * 3600.0, "3 hours"),
        (12 * 86_400.0, "12 days"),
        (3.2 * 365.25 * 86_400, "3.2 years"),
    ],
)
def test_age_as_text(seconds: float | None, expected: str) -> None:
    assert formatting.age(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.9999, "> 99.9 %"),
        (0.0001, "< 0.1 %"),
        (0.8125, "81.2 %"),
    ],
)
def test_share_as_text(value: float | None, expected: str) -> None:
    assert formatting.share(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "–"), (0.25, "+0.25"), (-0.25, "−0.25"), (0.00001, "0.00")]
)
def test_change_as_text(value: float | None, expected: str) -> None:
    assert formatting.signed_points(value) == expected
