"""The values of `hostile_values.py` as names of pools, files and services, from the input to every
output: nothing runs, no row is lost, and no output is changed by what a value says.

The dashboard's pages are in test_dashboard.py and test_dashboard_browser.py.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import logging
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import Engine

from benchmarks.dashboard_browser import browser, chromium
from cli import terminal
from cli.output import BatchOutput
from cli.terminal import PlainConsole, print_json, print_pairs, print_table, say
from common.errors import ConfigurationError, InputError, summarize_error
from common.logging_setup import JsonFormatter, LineFormatter
from config_spark import Settings
from reporting.dashboard.views import tomorrow
from reporting.figures.forecast_search import ForecastFilter, forecast_page
from reporting.report.report import write_report
from tests.reporting.test_report import REFERENCES, Page
from tests.support import report_store
from tests.support.defillama_pulls import days_ago, point, pool_entry
from tests.support.defillama_server import DefiLlamaServer, running
from tests.support.forecast_panels import SHORT
from tests.support.hostile_values import HOSTILE_VALUES, MARK, UNSTORABLE, unsafe_signs
from tests.support.metrics_store import execute, job_rows, rows_of
from tests.support.processes import CommandLineHere, logging_restored
from workflows.spec.batch_validation import check_batch_id, check_request_id

DAYS = 12
FIRST = dt.date(2024, 5, 1)
LAST = FIRST + dt.timedelta(days=DAYS - 1)
FILE = "=1+1 \x1b[2J\u202e<img src=x onerror=alert(1)>'; DROP TABLE pools; --\n%s{0}[b]x.csv"
"""Name of a loaded file."""
VARIABLES = {
    "EXECUTOR": "inprocess",
    "ENGINE": "lightgbm",
    "MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"]),
    "MONITORING_EMITTER": "log",
}
IDS = tuple(dict.fromkeys(value.strip() for value in HOSTILE_VALUES))
"""Ids of pools that a load makes of the values: a blank around an id is no part of it."""


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def write_files(folder: Path) -> tuple[str, str]:
    """Write a history and descriptions of a pool for each value; returns the names of the files."""
    history: list[list[object]] = []
    for number, value in enumerate(IDS):
        for day in range(DAYS):
            noon = f"{FIRST + dt.timedelta(days=day)}T12:00:00Z"
            history.append([value, noon, 5 + number + day / 10, 1e6 + number])
    # an implausible row: its pool's name is in the quarantine
    history += [[value, f"{LAST}T13:00:00Z", "NaN", -1] for value in IDS[:5]]
    _write(folder / FILE, [["pool_id", "timestamp", "apy", "tvlUsd"], *history])
    shifted = [HOSTILE_VALUES[(number + 1) % len(HOSTILE_VALUES)] for number in range(len(IDS))]
    described = [[value, *[other] * 4] for value, other in zip(IDS, shifted, strict=True)]
    header = ["pool_id", "name", "symbol", "chain", "protocol"]
    pools = f"pools{FILE}"
    _write(folder / pools, [header, *described])
    return FILE, pools


COMMANDS = (
    ("calculate_metrics", "--dry-run"),
    ("calculate_metrics",),
    ("forecast_pools",),
    ("status",),
    ("runs", "list"),
    ("quarantine", "list"),
    ("quarantine", "show", "1"),
    ("evaluate",),
    ("validate", "--as-of", LAST.isoformat()),
    ("doctor",),
    ("report",),
)
FORGED = re.compile(r"^\W*(2026-01-01|INFO forged|ERROR forged|\{\"event)", re.MULTILINE)
"""Lines that LOG_LINES and FILE would begin."""


def test_every_command_shows_names_and_obeys_none(
    run_here: CommandLineHere, engine: Engine, tmp_path: Path
) -> None:
    """Over 10 s: the whole way of a row, from files to the report."""
    files = write_files(tmp_path)
    shown = ""
    for arguments in (("load", *files), *COMMANDS):
        finished = run_here(*arguments, **VARIABLES)
        output = finished.stdout + finished.stderr
        assert finished.returncode == 0, output
        assert unsafe_signs(output) == [], arguments
        assert not FORGED.search(output), output
        shown += output
    assert shown.count(MARK) > 20, "the names are in the outputs"
    ids = set(IDS)
    for table in (
        *("raw_defillama_pool_history", "pool_daily_metrics", "yieldspark.forecasts"),
        "yieldspark.pool_coverage",
    ):
        found = rows_of(engine, f"SELECT DISTINCT pool_id FROM {table}")
        assert {row["pool_id"] for row in found} == ids, table
    listed = run_here.json("quarantine", "list", code=0, **VARIABLES)["rows"]
    assert {row["pool_id"] for row in listed} == set(IDS[:5])
    log = (tmp_path / "home" / "logs" / "yieldspark.log").read_text(encoding="utf-8")
    assert unsafe_signs(log) == []
    assert not FORGED.search(log)
    _require_safe_report(tmp_path / "reports" / "yieldspark-report.html")
    forecasts = forecast_page(engine, ForecastFilter(), "apy")
    downloaded = tomorrow.with_reasons(forecasts)[list(tomorrow.DOWNLOADED)]
    cells = list(csv.reader(io.StringIO(tomorrow.csv_of(downloaded).decode(), newline="")))
    assert len(cells) == 1 + len(ids)
    texts = [cell for cell in chain.from_iterable(cells) if MARK in cell]
    assert len(texts) > 2 * len(ids)
    assert [cell for cell in texts if cell[0] in "=+-@＝＋－＠\t\r\n"] == []


def _require_safe_report(path: Path) -> None:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.text.count(MARK) > len(IDS)
    assert page.scripts == 1
    assert not {"img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    links = chain.from_iterable(map(page.values, REFERENCES))
    assert [link for link in links if not link.startswith("#")] == []


@pytest.mark.usefixtures("processes")
def test_the_report_runs_nothing_in_chromium(engine: Engine, tmp_path: Path) -> None:
    if chromium() is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    names = dict(enumerate(HOSTILE_VALUES))
    report_store.fill(engine, pool_count=12, names=names)
    for number, value in enumerate(HOSTILE_VALUES[12:24]):
        execute(
            engine,
            "UPDATE pools SET chain = :value, protocol = :value WHERE pool_id = :pool",
            value=value,
            pool=f"p{number}",
        )
    path = write_report(engine, tmp_path)
    reported: list[str] = []
    with browser() as chrome:
        page = chrome.new_page()
        page.on("dialog", lambda dialog: reported.append(dialog.message))
        page.on("console", lambda message: reported.append(message.text))
        page.on("pageerror", lambda error: reported.append(str(error)))
        page.on("request", lambda request: reported.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_timeout(300)
        assert MARK in page.locator("body").inner_text()
        assert page.locator("img, iframe, [onerror], [onfocus], [onmouseover]").count() == 0
    assert reported == [path.as_uri()]


def test_spark_computes_the_same_rows(
    database: Settings, engine: Engine, run_on_spark: CommandLineHere, tmp_path: Path
) -> None:
    """By both transports; an id is a value in them, in SQL and in COPY."""
    run_on_spark.json("load", *write_files(tmp_path))
    rows = []
    for variables in (
        {"EXECUTOR": "inprocess"},
        {"EXECUTOR": "spark", "READ_TRANSPORT": "jdbc", "WRITE_TRANSPORT": "jdbc"},
        {"EXECUTOR": "spark", "READ_TRANSPORT": "adbc", "WRITE_TRANSPORT": "adbc"},
    ):
        execute(engine, "TRUNCATE pool_daily_metrics")
        result = run_on_spark.json("calculate_metrics", "--full-refresh", code=0, **variables)
        assert result["rows"]["inserted"] == len(IDS) * DAYS
        rows.append(job_rows(engine))
    assert rows[0] == rows[1] == rows[2]


def _addresses(llama: DefiLlamaServer) -> dict[str, str]:
    return {"DEFILLAMA_YIELDS_URL": llama.url, "DEFILLAMA_COINS_URL": llama.url}


def test_a_service_describes_pools_by_them(
    run_here: CommandLineHere, engine: Engine, tmp_path: Path
) -> None:
    """Ids reach the service quoted, and descriptions the table as they are."""
    with running() as llama:
        for value in IDS:
            names = dict.fromkeys(("chain", "project", "symbol", "poolMeta"), value)
            llama.pools.append(pool_entry(value, underlyingTokens=[value], **names))
            llama.charts[value] = [point(days_ago(1)), point(days_ago(2), note=value)]
        finished = run_here("ingest", "--min-tvl", "0", **_addresses(llama))
        assert finished.returncode == 0, finished.stderr
        assert set(llama.requested_charts()) == set(IDS)
    output = finished.stdout + finished.stderr
    assert unsafe_signs(output) == []
    assert not FORGED.search(output)
    stored = rows_of(
        engine,
        "SELECT p.*, (SELECT count(*) FROM raw_defillama_pool_history AS h WHERE h.pool_id ="
        " p.pool_id) AS rows FROM pools AS p",
    )
    assert {row["pool_id"]: row["rows"] for row in stored} == dict.fromkeys(IDS, 2)
    assert all(row["chain"] == row["symbol"] == row["pool_id"] for row in stored)


def test_a_value_that_no_table_can_store_stops_no_other(
    run_here: CommandLineHere, engine: Engine
) -> None:
    with running() as llama:
        for number, value in enumerate(UNSTORABLE):
            llama.pools.append(pool_entry(f"pool-{number}", symbol=value, poolMeta=value))
            llama.charts[f"pool-{number}"] = [point(days_ago(1), note=value, **{value: 1})]
        llama.pools.append(pool_entry(UNSTORABLE[0]))
        finished = run_here("ingest", "--min-tvl", "0", **_addresses(llama))
    assert "Traceback" not in finished.stderr
    symbols = rows_of(engine, "SELECT symbol FROM pools WHERE pool_id LIKE 'pool-%'")
    assert {row["symbol"] for row in symbols} == {f"{MARK}\ufffd", f"\ufffd{MARK}"}
    notes = "SELECT raw_json_data ->> 'note' AS note FROM raw_defillama_pool_history"
    assert len(rows_of(engine, notes)) == len(UNSTORABLE)


def _printed(value: str) -> str:
    """Return what every form of output makes of a value."""
    stream = io.StringIO()
    record = logging.LogRecord("x", logging.ERROR, "", 0, "pool %s", (value,), None)
    record.error = value
    row = {"job": value, "status": value, "checks": [{"name": value, "found": value}], value: value}
    with redirect_stdout(stream), redirect_stderr(stream):
        print_table([value], [[value]])
        print_pairs(row)
        print_json(row)
        say(value)
        BatchOutput().print_run(row)
    lines = [LineFormatter().format(record), JsonFormatter().format(record)]
    lines += [summarize_error(InputError(value)), summarize_error(RuntimeError(value))]
    return stream.getvalue() + "\n".join(lines)


@pytest.mark.parametrize("value", [*HOSTILE_VALUES, *UNSTORABLE])
def test_every_form_of_output_prints_a_value_as_text(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("out", "err"):
        monkeypatch.setattr(terminal, name, PlainConsole(width=4000))
    with logging_restored():
        printed = _printed(value)
    assert printed.count(MARK) >= 10
    assert unsafe_signs(printed, but="\n\t") == []
    assert not FORGED.search(printed)


@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_ids_of_batches_take_none_of_them(value: str) -> None:
    for check in (check_batch_id, check_request_id):
        with pytest.raises(ConfigurationError) as refused:
            check(value)
        assert unsafe_signs(summarize_error(refused.value)) == []
