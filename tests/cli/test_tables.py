"""Tables of the commands fit 100 columns in a pipe: sentences are wrapped, long ids are cut."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from cli import terminal
from config_spark import Settings
from database.schema.own_tables import quarantine, run_ledger
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.promotion_policy import PROMOTED
from forecasting.registry import outbox
from forecasting.registry.decisions import record_decision
from forecasting.registry.mlflow_registry import Registry
from tests.support.model_archives import archive, day
from tests.support.processes import CommandLine
from tests.support.report_store import AS_OF, fill, ledger_row

POOL_ID = "747c1d2a-c668-4682-b9f9-296708a3dd90"
COMMIT = "3f786850e387550fdab836ed7e6dc881de23001b"
ERROR = (
    "the registry at postgresql+psycopg2://db.example.com/mlflow does not answer: connection"
    " refused. Check MLFLOW_TRACKING_URI, and run again"
)
ROWS_OF_A_YEAR = 36_231_930


@pytest.fixture
def used(database: Settings, run_here: CommandLine, engine: Engine) -> CommandLine:
    """A database with long ids and large numbers in every table that a command prints."""
    # a store of models takes two seconds to make: all tests share one
    run_here.environment["YIELDSPARK_HOME"] = str(database.yieldspark_home)
    fill(engine)
    failed: dict[str, Any] = {
        "rows": {"read": ROWS_OF_A_YEAR, "quarantined": 12, "inserted": ROWS_OF_A_YEAR},
        "error": ERROR,
        "seconds": 7_325.0,
    }
    rejected = {
        "run_id": "r",
        "source_table": "raw_defillama_pool_history",
        "source_id": "12345678901",
        "pool_id": POOL_ID,
        "reason": "apy_beyond_limit",
        "raw_json_data": {"apy": 1e9},
        "timestamp": dt.datetime(2025, 10, 1, tzinfo=dt.UTC),
    }
    with engine.begin() as connection:
        connection.execute(
            insert(run_ledger), ledger_row("metrics_1", "calculate_metrics", "failed", **failed)
        )
        connection.execute(insert(quarantine), rejected)
    champion, challenger = archive("1a2b3c4d"), archive("5e6f7a8b", known=60, code_version=COMMIT)
    Registry(database, engine="lightgbm", horizon=1).register(champion, CHAMPION)
    with engine.begin() as connection:
        outbox.enqueue(connection, challenger, CHALLENGER, "a run")
        record_decision(
            connection,
            engine="lightgbm",
            horizon=1,
            decision=PROMOTED,
            challenger=champion.card.version,
            champion=challenger.card.version,
            serving_version=champion.card.version,
            reason="the challenger loses less than champion by more than chance: " * 3,
            as_of=day(50),
        )
    return run_here


@pytest.mark.parametrize(
    "command",
    [
        "status",
        f"evaluate --end {AS_OF} --engine lightgbm",
        "quarantine list",
        "quarantine show 1",
        "models list --engine lightgbm",
        "models show champion --engine lightgbm",
        "calculate_metrics --full-refresh --dry-run",
        "doctor",
    ],
)
def test_output_fits_100_columns_and_breaks_no_id(used: CommandLine, command: str) -> None:
    printed = used(*command.split())
    assert printed.stdout, printed.stderr
    for line in printed.stdout.splitlines():
        assert len(line.rstrip()) <= 100, line
    words = re.findall(r"[^\s…]+", printed.stdout)
    for identifier in (POOL_ID, COMMIT):
        remainders = {identifier[start:] for start in range(1, len(identifier) - 4)}
        assert not remainders & set(words), "the end of an id begins a line"


def test_a_run_has_durations_and_counts_with_units(used: CommandLine) -> None:
    printed = used("status").stdout
    assert "122 min" not in printed
    assert "2 h 2 min" in printed
    assert f"{ROWS_OF_A_YEAR:,}" in re.sub(r"\s+", " ", printed)


def test_narrow_console_cuts_words_but_no_number_and_not_the_first_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "out", terminal.PlainConsole(width=80, highlight=False))
    sentence = "a sentence of several words that is wrapped"
    columns = ["pool", "version", "rows", "why"]
    terminal.print_table(columns, [[POOL_ID, POOL_ID, ROWS_OF_A_YEAR, sentence]])
    printed = capsys.readouterr().out
    first = printed.splitlines()[1]
    assert first.startswith(POOL_ID)
    assert re.search(rf"{POOL_ID[:6]}\S*…", first)
    assert f"{ROWS_OF_A_YEAR:,}" in first
    assert re.findall(r"[a-z]+", printed)[-1] == "wrapped"
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("seconds", 125.2, ("duration", "2 min 5 s")),
        ("estimated_seconds", 7_325.0, ("estimated_duration", "2 h 2 min")),
        ("raw_age_seconds", 36_201_600.0, ("raw_age", "419 days")),
        ("bytes", 145_000_000, ("size", "145 MB")),
        ("rows", ROWS_OF_A_YEAR, ("rows", "36,231,930")),
        ("raw_age_seconds", None, ("raw_age_seconds", "-")),
    ],
)
def test_a_field_with_a_unit_in_its_name_is_printed_with_the_unit(
    name: str, value: object, shown: tuple[str, str]
) -> None:
    assert terminal.format_field(name, value) == shown
