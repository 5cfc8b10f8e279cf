"""The dashboard's pages: numbers against SQL written here, filters, paging, and hostile names."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import asdict
from io import BytesIO

import pandas as pd
import pytest
from sqlalchemy import Engine, insert, text

from config_spark import Settings
from database.schema.own_tables import promotion, run_ledger
from reporting.dashboard import charts, server
from reporting.dashboard.page_parts import escaped, to_second
from reporting.dashboard.views import data, runs, tomorrow
from reporting.dashboard.views.model_parts import numbers_table
from reporting.figures.data_gaps import GapKey, pools_with_gaps
from reporting.figures.data_quality import RawEnd, raw_end
from reporting.figures.forecast_search import (
    ORDERS,
    ForecastFilter,
    forecast_page,
    forecast_summary,
    page_key,
)
from tests.support.dashboard_pages import (
    HOSTILE_NAMES,
    PAGES,
    metrics,
    name_hostile,
    run_sql,
    show_page,
    shown_commands,
    shown_text,
    table_with,
)
from tests.support.page_contrast import LEAST_OF_MARKS, LEAST_OF_TEXT, contrast, rgb
from tests.support.report_store import AS_OF, SCORED_DAYS, decision, fill, ledger_row


def _add_pools(engine: Engine, count: int) -> None:
    """Add pools q1, q2, .. with equal and unknown values among their forecasts."""
    with engine.begin() as session:
        for statement in (
            """
INSERT INTO pools (pool_id, name, symbol, protocol, chain, tvl)
SELECT 'q' || n, 'pool ' || n, CASE n % 3 WHEN 0 THEN 'USDC-DAI' ELSE 'WETH-' || n % 7 END,
    'protocol' || n % 4, 'chain' || n % 3, n
FROM generate_series(1, :count) AS n
""",
            """
INSERT INTO pool_daily_metrics (pool_id, date, actual_apy, actual_tvl)
SELECT 'q' || n, :as_of, CASE WHEN n % 11 > 0 THEN n % 6 END,
    CASE WHEN n % 5 > 0 THEN 1000 * (n % 9) END
FROM generate_series(1, :count) AS n
""",
            """
INSERT INTO yieldspark.forecasts (pool_id, target_date, horizon_days, as_of, apy, apy_low, apy_high,
    tvl, interval_level, engine, model_version, apy_fallback_reason, run_id)
SELECT 'q' || n, CAST(:as_of AS date) + 1, 1, :as_of, CASE WHEN n % 13 > 0 THEN n % 8 END, n % 4,
    CASE WHEN n % 7 > 0 THEN 10 + n % 5 END, 5, 0.8, 'lightgbm', 'm',
    CASE WHEN n % 2 = 0 THEN 'gate' END, 'forecast_pools_1'
FROM generate_series(1, :count) AS n
""",
        ):
            session.execute(text(statement), {"count": count, "as_of": AS_OF})


def test_tomorrow_shows_the_forecasts_of_the_database(database: Settings, engine: Engine) -> None:
    fill(engine)
    page = show_page(database, "tomorrow")
    ((count, by_model, tvl, median, width),) = run_sql(
        engine,
        """
SELECT count(*), count(*) FILTER (WHERE f.apy_fallback_reason IS NULL), sum(m.actual_tvl),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY f.apy),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY f.apy_high - f.apy_low)
FROM yieldspark.forecasts f
JOIN pool_daily_metrics m ON m.pool_id = f.pool_id AND m.date = f.as_of
""",
    )
    assert metrics(page) == {
        "Pools with a forecast": str(count),
        "Their TVL": f"${float(tvl) / 1e9:.2f}B",
        "Median APY forecast": f"{float(median):.2f} %",
        "Median interval, points": f"{float(width):.2f}",
    }
    assert f"{by_model} by the model" in shown_text(page)
    assert page.title[0].value == "Forecasts for Mon 6 Oct 2025"
    table = table_with(page, "apy_low")
    assert list(table["label"]) == [f"USDC-T{number}" for number in range(7, -1, -1)]
    expected = run_sql(
        engine,
        """
SELECT f.apy, f.apy_low, f.apy_high, f.apy - m.actual_apy, m.actual_tvl
FROM yieldspark.forecasts f
JOIN pool_daily_metrics m ON m.pool_id = f.pool_id AND m.date = f.as_of
ORDER BY m.actual_tvl DESC
""",
    )
    shown = table[["apy", "apy_low", "apy_high", "apy_change", "tvl_today"]].to_numpy(float)
    assert shown == pytest.approx(pd.DataFrame(expected).to_numpy(float))
    assert "−0.12 distance from the 7-day mean" in table["why"].iloc[0]
    assert table["why"].iloc[-1].startswith("stale: not observed on the as-of day")


def test_the_filters_of_tomorrow_select_rows(database: Settings, engine: Engine) -> None:
    fill(engine)
    page = show_page(database, "tomorrow")
    page.text_input(key="search").set_value("usdc-t3").run()
    assert metrics(page)["Pools with a forecast"] == "1"
    page.text_input(key="search").set_value("%").run()
    assert not page.metric or metrics(page)["Pools with a forecast"] == "0"
    assert "No forecast passes these filters" in shown_text(page)
    page.text_input(key="search").set_value("").run()
    page.selectbox(key="made_by").select("fallback").run()
    assert list(table_with(page, "apy_low")["label"]) == ["USDC-T0"]
    page.selectbox(key="made_by").select("model").run()
    page.selectbox(key="least_tvl").select("over $10M").run()
    ((expected,),) = run_sql(
        engine,
        """
SELECT count(*)
FROM yieldspark.forecasts f
JOIN pool_daily_metrics m ON m.pool_id = f.pool_id AND m.date = f.as_of
WHERE m.actual_tvl >= 10000000 AND f.apy_fallback_reason IS NULL
""",
    )
    assert metrics(page)["Pools with a forecast"] == str(expected)
    page.selectbox(key="order").select("apy").run()
    apys = list(table_with(page, "apy_low")["apy"])
    assert apys == sorted(apys, reverse=True)


@pytest.mark.parametrize("order", ORDERS)
def test_pages_have_every_row_once_and_in_order(engine: Engine, order: str) -> None:
    fill(engine, pool_count=2)
    _add_pools(engine, 40)
    whole = forecast_page(engine, ForecastFilter(), order)
    pools: list[str] = []
    after = None
    # 42 rows are five pages: a key that finds its own row again would never end
    for _ in range(5):
        part = forecast_page(engine, ForecastFilter(), order, after=after, limit=9)
        pools += list(part["pool_id"])
        after = page_key(part, order)
    assert forecast_page(engine, ForecastFilter(), order, after=after, limit=9).empty
    assert pools == list(whole["pool_id"])
    assert sorted(whole["pool_id"]) == sorted({*whole["pool_id"]})
    assert len(whole) == 42
    _, value, is_descending = ORDERS[order]
    known = list(whole[value].dropna())
    assert known == sorted(known, reverse=is_descending)
    assert whole[value].iloc[len(known) :].isna().all()


def test_filters_agree_with_sql(engine: Engine) -> None:
    _add_pools(engine, 40)
    cases = {
        "p.symbol = 'USDC-DAI'": ForecastFilter(stablecoins=True),
        "p.symbol <> 'USDC-DAI'": ForecastFilter(stablecoins=False),
        "p.chain IN ('chain0', 'chain2')": ForecastFilter(chains=("chain0", "chain2")),
        "p.protocol = 'protocol3'": ForecastFilter(protocols=("protocol3",)),
        "f.apy_fallback_reason = 'gate'": ForecastFilter(reasons=("gate",)),
        "f.apy_fallback_reason IS NULL": ForecastFilter(made_by="model"),
        "m.actual_tvl >= 4000": ForecastFilter(min_tvl_usd=4000.0),
        "p.name LIKE '%pool 1%'": ForecastFilter(search="POOL 1"),
        "f.pool_id = 'q7'": ForecastFilter(pool_id="q7"),
    }
    for condition, selection in cases.items():
        ((expected,),) = run_sql(
            engine,
            f"""
SELECT count(*)
FROM yieldspark.forecasts f
JOIN pools p ON p.pool_id = f.pool_id
JOIN pool_daily_metrics m ON m.pool_id = f.pool_id AND m.date = f.as_of
WHERE {condition}
""",
        )
        assert expected > 0
        assert forecast_summary(engine, selection).forecasts == expected, condition


def test_a_page_of_forecasts_follows_by_a_button(database: Settings, engine: Engine) -> None:
    _add_pools(engine, 60)
    page = show_page(database, "tomorrow")
    first = list(table_with(page, "apy_low")["link"])
    page.button(key="pager_forecasts_next").click().run()
    second = list(table_with(page, "apy_low")["link"])
    assert (len(first), len(second)) == (50, 10)
    assert not {*first} & {*second}
    assert "Page 2 of 2" in shown_text(page)
    page.text_input(key="search").set_value("chain1").run()
    assert "Page 2" not in shown_text(page), "another filter starts at the first page"


def test_downloads_have_all_rows_and_no_formulas(engine: Engine) -> None:
    fill(engine)
    run_sql(engine, "UPDATE pools SET symbol = '=1+1' WHERE pool_id = 'p7' RETURNING 1")
    rows = tomorrow.with_reasons(forecast_page(engine, ForecastFilter(), "apy"))
    rows = rows[list(tomorrow.DOWNLOADED)]
    read = pd.read_csv(BytesIO(tomorrow.csv_of(rows)))
    assert len(read) == 8
    assert "'=1+1" in set(read["symbol"])
    stored = BytesIO()
    rows.to_parquet(stored)
    assert "=1+1" in set(pd.read_parquet(stored)["symbol"]), "Parquet is not read as formulas"


def test_a_link_opens_a_pool(database: Settings, engine: Engine) -> None:
    fill(engine)
    with engine.begin() as session:
        session.execute(
            text(
                "INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)"
                " VALUES ('p3', '2025-10-05 23:59:59+00', '{\"apy\": 7.25}'),"
                " ('p3', '2025-10-06 00:00:00+00', '{\"apy\": 8}')"
            )
        )
        session.execute(
            text(
                "INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id,"
                " timestamp, reason, raw_json_data) VALUES"
                " ('r', 'raw_defillama_pool_history', '5', 'p3', now(), 'apy_beyond_limit', '{}')"
            )
        )
    page = show_page(database, "pool", pool="p3")
    assert page.title[0].value == "USDC\\-T3"
    ((today, forecast),) = run_sql(
        engine,
        """
SELECT m.actual_apy, f.apy
FROM yieldspark.forecasts f
JOIN pool_daily_metrics m ON m.pool_id = f.pool_id AND m.date = f.as_of
WHERE f.pool_id = 'p3'
""",
    )
    ((days, error, persistence, inside),) = run_sql(
        engine,
        """
SELECT count(*), avg(abs(actual - forecast)), avg(abs(actual - persistence)),
    avg(CASE WHEN actual >= low AND actual <= high THEN 1.0 ELSE 0.0 END)
FROM yieldspark.forecast_evaluation
WHERE pool_id = 'p3' AND target = 'apy'
""",
    )
    shown = metrics(page)
    assert shown["APY today"] == f"{float(today):.2f} %"
    assert shown["APY forecast"] == f"{float(forecast):.2f} %"
    assert shown["Scored target days"] == str(days) == str(SCORED_DAYS)
    assert float(shown["Mean absolute error"]) == pytest.approx(error, abs=0.005)
    ratio = float(shown["MAE ratio"])
    assert ratio == pytest.approx(error / persistence, abs=0.0005)
    coverage = float(shown["Inside the interval"].removesuffix(" %"))
    assert coverage == pytest.approx(100 * float(inside), abs=0.06)
    history = table_with(page, "mean_30d", "stddev_30d")
    assert len(history) == 90
    assert list(table_with(page, "raw_json_data")["raw_json_data"]) == ['{"apy": 7.25}']
    assert list(table_with(page, "quarantined_at")["reason"]) == ["apy_beyond_limit"]
    page.segmented_control(key="target").set_value("TVL").run()
    assert not page.exception
    assert "History of TVL" in shown_text(page)


def test_an_unknown_pool_is_named(database: Settings, engine: Engine) -> None:
    fill(engine, pool_count=2)
    page = show_page(database, "pool", pool="<b>none</b>")
    assert "no pool \\<b\\>none\\<\\/b\\>" in shown_text(page)


def test_quality_agrees_with_sql(database: Settings, engine: Engine) -> None:
    fill(engine)
    with engine.begin() as session:
        session.execute(insert(promotion), [decision()])
    page = show_page(database, "quality")
    ((rows, mae, persistence, inside, below),) = run_sql(
        engine,
        """
SELECT count(*), avg(abs(actual - forecast)), avg(abs(actual - persistence)),
    avg(CASE WHEN actual >= low AND actual <= high THEN 1.0 ELSE 0.0 END),
    sum(CASE WHEN actual < low THEN 1 ELSE 0 END)
FROM yieldspark.forecast_evaluation
WHERE target = 'apy'
""",
    )
    table = table_with(page, "forecaster", "mae")
    of_all = table[table["pools"] == "all pools"].set_index("forecaster")
    assert of_all.loc["Model", "rows"] == rows
    assert of_all.loc["Model", "mae"] == pytest.approx(mae)
    assert of_all.loc["Persistence", "mae"] == pytest.approx(persistence)
    assert of_all.loc["Model", "ratio"] == pytest.approx(mae / persistence)
    reliability = table_with(page, "below", "inside", "above")
    assert reliability["rows"].sum() == rows
    counted = (reliability["inside"] * reliability["rows"]).sum() / rows
    assert counted == pytest.approx(100 * float(inside))
    under = (reliability["below"] * reliability["rows"]).sum() / 100
    assert under == pytest.approx(float(below))
    assert "20250821" in str(table_with(page, "challenger")["challenger"].iloc[0])
    page.selectbox(key="segments").select("chain").run()
    assert list(table_with(page, "mae_ratio", "pools")["segment"]) == ["Ethereum"]
    page.segmented_control(key="quality_target").set_value("TVL").run()
    assert not page.exception


def test_runs_show_the_ledger_and_one_run(database: Settings, engine: Engine) -> None:
    fill(engine)
    with engine.begin() as session:
        session.execute(
            insert(run_ledger),
            ledger_row(
                "metrics_7",
                "calculate_metrics",
                "failed",
                error="the check price_is_stale blocks",
                cost_usd=0.1234,
                checks=[{"name": "price_is_stale", "passed": False, "severity": "fail"}],
                stages={"plan": 0.5, "load": 12.0},
            ),
        )
    page = show_page(database, "runs", run="metrics_7")
    ledger = table_with(page, "run_id")
    assert {*ledger["run_id"]} == {"metrics_7", "forecast_pools_1"}
    assert "the check price" in shown_text(page)
    assert metrics(page)["Cost"] == "\\$0.1234"
    assert list(table_with(page, "check")["result"]) == ["✗ blocks"]
    page.selectbox(key="run_job").select("forecast_pools").run()
    assert list(table_with(page, "run_id")["run_id"]) == ["forecast_pools_1"]
    ((published,),) = run_sql(
        engine, "SELECT count(*) FROM yieldspark.forecasts WHERE run_id = 'forecast_pools_1'"
    )
    page = show_page(database, "runs", run="forecast_pools_1")
    changes = table_with(page, "change").set_index("change")["rows"]
    assert changes["forecasts published"] == published == 8
    assert changes["of them APY fallbacks"] == 1


def test_a_run_names_the_tables_that_it_changed_and_its_undo(
    database: Settings, engine: Engine
) -> None:
    fill(engine, pool_count=1)
    with engine.begin() as session:
        session.execute(
            insert(run_ledger), ledger_row("m1", "calculate_metrics", "succeeded", is_undoable=True)
        )
        session.execute(
            insert(run_ledger),
            ledger_row(
                "m2",
                "calculate_metrics",
                "succeeded",
                undone_at=dt.datetime(2025, 10, 7, 8, tzinfo=dt.UTC),
                undone_by="me@here",
            ),
        )
        session.execute(
            text(
                "INSERT INTO yieldspark.run_changes (run_id, table_name, kind, key_columns,"
                " columns, rows) VALUES ('m1', 'public.pool_daily_metrics', 'written', '{}', '{}',"
                " 40), ('m1', 'public.pool_daily_metrics', 'written', '{}', '{}', 2)"
            )
        )
    page = show_page(database, "runs", run="m1")
    changes = table_with(page, "change").set_index("change")["rows"]
    assert changes["public.pool_daily_metrics, rows written"] == 42
    assert "undo m1 --dry-run" in shown_commands(page)
    page = show_page(database, "runs", run="m2")
    assert "Undone on 2025-10-07 08:00 UTC by me\\@here" in shown_text(page)
    assert "undo m2" not in shown_commands(page)
    page = show_page(database, "runs", run="gone")
    assert "The run ledger has no run gone" in shown_text(page)


def test_a_running_run_shows_its_progress(database: Settings, engine: Engine) -> None:
    fill(engine, pool_count=1)
    start = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2)
    with engine.begin() as session:
        session.execute(
            insert(run_ledger),
            [
                ledger_row(
                    "done",
                    "calculate_metrics",
                    "succeeded",
                    stages={"session": 10.0, "load": 70.0, "merge": 20.0},
                    started_at=start - dt.timedelta(days=1),
                    finished_at=start,
                ),
                ledger_row(
                    "now",
                    "calculate_metrics",
                    "running",
                    stages={"session": 9.0},
                    started_at=start,
                    finished_at=None,
                    seconds=None,
                ),
            ],
        )
    page = show_page(database, "runs")
    assert page.header[0].value == "Run now"
    (bar,) = page.get("progress")
    assert "1 of 3 of the last run like it" in bar.proto.text
    # 10 s have ended, and 95 % of the 70 s of the stage that runs
    assert bar.proto.value == pytest.approx(76.5, abs=1.0)


@pytest.mark.parametrize(
    ("stages", "age", "expected"),
    [
        ({}, 5.0, (0.05, 95.0)),
        ({"a": 8.0}, 8.0, (0.1, 90.0)),
        ({"a": 8.0}, 1000.0, (0.1 + 0.9 * 0.95, 4.5)),
        ({"a": 8.0, "b": 80.0}, 88.0, (1.0, 0.0)),
    ],
)
def test_progress_counts_ended_stages_and_the_time_since(
    stages: dict[str, float], age: float, expected: tuple[float, float]
) -> None:
    assert runs.progress(stages, {"a": 10.0, "b": 90.0}, age) == pytest.approx(expected)
    assert runs.progress(stages, {}, age) == (0.0, 0.0)


def test_data_agrees_with_sql(database: Settings, engine: Engine) -> None:
    fill(engine)
    with engine.begin() as session:
        session.execute(
            text(
                "INSERT INTO yieldspark.value_staleness (pool_id, date, apy_staleness_days)"
                " SELECT 'p3', day, CASE WHEN day < '2025-10-03' THEN 1 END"
                " FROM generate_series(date '2025-10-01', '2025-10-04', '1 day') AS day"
            )
        )
        session.execute(
            text(
                "INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id,"
                " timestamp, reason, raw_json_data)"
                " SELECT 'r', 'raw_defillama_pool_history', n, 'p1', now(), 'apy_beyond_limit',"
                " '{}' FROM generate_series(1, 3) AS n"
            )
        )
    page = show_page(database, "data")
    shown = metrics(page)
    ((rows,),) = run_sql(engine, "SELECT count(*) FROM pool_daily_metrics")
    assert shown["Rows of metrics"] == f"{rows:,}"
    assert shown["In quarantine"] == "3"
    replay = "python run_spark_local.py quarantine replay --reason apy_beyond_limit"
    assert replay in shown_commands(page)
    by_day = table_with(page, "snapshots").set_index("date")
    ((carried, unknown),) = run_sql(
        engine,
        """
SELECT count(*) FILTER (WHERE apy_staleness_days > 0),
    count(*) FILTER (WHERE apy_staleness_days IS NULL)
FROM yieldspark.value_staleness
WHERE date = '2025-10-04'
""",
    )
    day = by_day.loc[dt.date(2025, 10, 4)]
    assert (day["carried"], day["unknown"]) == (carried, unknown)
    ((all_rows,),) = run_sql(
        engine, "SELECT count(*) FROM pool_daily_metrics WHERE date = '2025-10-04'"
    )
    assert day["observed"] == all_rows - carried - unknown
    counts = run_sql(engine, "SELECT date, count(*) FROM pool_daily_metrics GROUP BY 1")
    assert {day: by_day.loc[day, "rows"] for day, _ in counts if day in by_day.index} == {
        day: number for day, number in counts if day in by_day.index
    }
    gaps = pools_with_gaps(engine, days=60, limit=5)
    assert list(gaps["pool_id"]) == ["p3", "p0"]
    assert list(gaps["gap_days"]) == [4, 1]
    rest = pools_with_gaps(engine, days=60, limit=5, after=GapKey(4, "p3"))
    assert list(rest["pool_id"]) == ["p0"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a1b2c3d4-e5", "ffffffff-00"], ["USDC (3) · a1b2c3d4", "USDC (3) · ffffffff"]),
        (["pool-000001", "pool-000002"], ["USDC (3) · pool-000001", "USDC (3) · pool-000002"]),
        (["p", "p1"], ["USDC (3) · p", "USDC (3) · p1"]),
        ([], []),
    ],
)
def test_pools_of_one_name_have_different_labels(ids: list[str], expected: list[str]) -> None:
    pools = pd.DataFrame({"pool_id": ids, "label": "USDC", "gap_days": 3})
    assert data.gap_labels(pools) == dict(zip(ids, expected, strict=True))


def test_the_newest_snapshot_is_found_among_new_rows(engine: Engine) -> None:
    assert raw_end(engine) == RawEnd(None, None, None)
    insertion = (
        "INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)"
        " VALUES ('p', now() - CAST(:age AS interval), '{}') RETURNING id, timestamp"
    )
    ((first, newest),) = run_sql(engine, insertion, age="2 hours")
    end = raw_end(engine)
    assert (end.last_id, end.newest) == (first, newest)
    # rows that are older, or of a wrong clock, do not count
    run_sql(engine, insertion, age="5 hours")
    ((last, _),) = run_sql(engine, insertion, age="-3 days")
    later = raw_end(engine, end)
    assert (later.last_id, later.newest) == (last, newest)
    assert later.age_seconds == pytest.approx(7200, abs=60)
    ((_, now),) = run_sql(engine, insertion, age="1 hour")
    assert raw_end(engine, later).newest == now == raw_end(engine).newest
    # only rows behind the last id are read
    run_sql(engine, "DELETE FROM raw_defillama_pool_history RETURNING 1")
    assert raw_end(engine, later).newest == newest


def test_numbers_of_a_decision_are_rows() -> None:
    numbers = {"days": 30, "apy": {"loss": 0.95123, "by": {"calm": None}}, "*x*": "<b>"}
    shown = numbers_table(numbers)
    assert shown.to_numpy().tolist() == [
        ["days", "30"],
        ["apy · loss", "0.9512"],
        ["apy · by · calm", "None"],
        ["*x*", "<b>"],
    ]


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2025-10-05 23:59:59.335568+00", "2025-10-05 23:59:59"),
        ("2025-10-05 23:59:59+00", "2025-10-05 23:59:59"),
        ("0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00 BC"),
        ("infinity", "infinity"),
        (None, "–"),
    ],
)
def test_times_are_shown_to_the_second(time: str | None, shown: str) -> None:
    assert to_second(time) == shown


@pytest.mark.parametrize(
    ("colours", "theme"), [(charts.LIGHT, server.LIGHT), (charts.DARK, server.DARK)]
)
def test_marks_have_enough_contrast(colours: charts.Colours, theme: dict[str, str]) -> None:
    for name, colour in asdict(colours).items():
        found = contrast(rgb(colour), rgb(theme["backgroundColor"]))
        assert found >= LEAST_OF_MARKS, name
        if name in ("ink", "muted"):
            assert found >= LEAST_OF_TEXT, name


def test_lines_and_states_differ_without_their_colour() -> None:
    shapes = [shape for _, shape in charts.GAP_STATES.values()]
    assert len({*shapes}) == len(shapes)


@pytest.mark.parametrize("name", PAGES)
def test_hostile_names_are_shown_and_never_markup(
    database: Settings, engine: Engine, name: str
) -> None:
    fill(engine)
    name_hostile(engine)
    page = show_page(database, name)
    # a sign after a backslash is no markup
    markup = re.sub(r"\\.", "", shown_text(page))
    for sign in ("<script", "<img", "](javascript", "](http", "$\\frac"):
        assert sign not in markup, sign


def test_escaped_text_has_no_sign_of_markdown() -> None:
    for name in HOSTILE_NAMES:
        shown = escaped(name)
        assert "\n" not in shown
        assert "\u202e" not in shown
        for position, sign in enumerate(shown):
            if sign in "<[*`$:_|":
                assert shown[position - 1] == "\\", (shown, sign)
