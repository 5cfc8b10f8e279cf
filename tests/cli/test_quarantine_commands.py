"""Tests `quarantine list

show

replay

drop` as scripts see them, on a real PostgreSQL with rows that a metrics run has quarantined.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from data_processing.raw.observed_days import snapshot_identity
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_store import execute, put_rows, rows_of
from tests.support.processes import CommandLine

HISTORY, PRICES = "raw_defillama_pool_history", "raw_coinmarketcap_ohlcv"
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

BAD_ROWS: list[tuple[str, Any, str]] = [
    ("a", {"apy": 5_000_000, "tvlUsd": 10, "apyBase": 1}, "apy_beyond_limit"),
    ("a", {"apy": "?", "tvlUsd": 10}, "apy_not_a_number"),
    ("b", {"apy": 2, "tvlUsd": -5}, "tvl_negative"),
    ("b", [1, 2], "apy_and_tvl_missing"),
]


@pytest.fixture
def quarantine_ids(engine: Engine) -> dict[str, int]:
    """Four raw rows in quarantine, a price, and a line that `load` rejected.

    Returns their quarantine ids by reason.
    """
    raw = [
        RawRow(number, pool, NOON + timedelta(days=number), document)
        for number, (pool, document, _) in enumerate(BAD_ROWS, start=1)
    ]
    put_rows(engine, raw)
    put_rows(engine, [RawRow(9, "infinite", NOON, {"apy": 1, "tvlUsd": 1})])
    execute(engine, f"UPDATE {HISTORY} SET timestamp = 'infinity' WHERE id = 9")
    execute(
        engine, "SELECT setval(pg_get_serial_sequence('raw_defillama_pool_history', 'id'), 100)"
    )
    into = (
        "INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id, timestamp,"
        " reason, raw_json_data) "
    )
    for row, (_, _, reason) in zip(raw, BAD_ROWS, strict=True):
        execute(
            engine,
            f"{into} SELECT 'r1', '{HISTORY}', {snapshot_identity('h')}, pool_id, timestamp,"
            f" :reason, raw_json_data FROM {HISTORY} AS h WHERE id = :id",
            reason=reason,
            id=row.id,
        )
    execute(
        engine,
        f"{into} SELECT 'r1', '{HISTORY}', {snapshot_identity('h')}, pool_id, timestamp,"
        f" 'timestamp_in_future', raw_json_data FROM {HISTORY} AS h WHERE id = 9",
    )
    execute(
        engine,
        f"{into} VALUES ('r1', '{PRICES}', 'ETH|2024-05-01 00:00:00+00', NULL, '2024-05-01',"
        " 'price_not_positive', CAST(:price AS jsonb))",
        price='{"USD": {"close": 0}}',
    )
    execute(
        engine,
        f"{into} VALUES ('r2', '{HISTORY}', 'h.csv:7', NULL, NULL, 'pool_id_missing', CAST(:cells"
        " AS jsonb))",
        cells='{"apy": "1"}',
    )
    return {
        row["reason"]: row["id"]
        for row in rows_of(engine, "SELECT id, reason FROM yieldspark.quarantine")
    }


def resolutions(engine: Engine) -> dict[str, Any]:
    return {
        row["reason"]: row["resolution"]
        for row in rows_of(engine, "SELECT reason, resolution FROM yieldspark.quarantine")
        if row["resolution"]
    }


def raw_rows(engine: Engine) -> list[dict[str, Any]]:
    """Return raw rows besides the five initial ones."""
    return rows_of(
        engine,
        f"SELECT id, pool_id, timestamp, raw_json_data FROM {HISTORY} WHERE id > 9 ORDER BY id",
    )


def ledger(engine: Engine) -> list[dict[str, Any]]:
    return rows_of(
        engine, "SELECT job, status, plan, rows FROM yieldspark.run_ledger ORDER BY started_at"
    )


def test_list_counts_by_reason_and_filters(
    run_here: CommandLine, quarantine_ids: dict[str, int]
) -> None:
    listing = run_here.json("quarantine", "list")
    assert listing["total"] == len(quarantine_ids) == 7
    assert {
        "source_table": PRICES,
        "reason": "price_not_positive",
        "resolution": None,
        "rows": 1,
    } in listing["counts"]
    assert {row["id"] for row in listing["rows"]} == set(quarantine_ids.values())
    assert [row["timestamp"] for row in listing["rows"] if row["pool_id"] == "infinite"] == [
        "infinity"
    ]
    assert [
        row["reason"]
        for row in run_here.json("quarantine", "list", "--pool", "b", "--reason", "tvl_negative")[
            "rows"
        ]
    ] == ["tvl_negative"]
    assert run_here.json("quarantine", "list", "--since", "2999-01-01") == {
        "counts": [],
        "rows": [],
        "total": 0,
    }
    assert run_here("quarantine", "list", "--since", "2999-01-01").stdout == "no such rows\n"
    two = run_here.json("quarantine", "list", "--limit", "2")
    assert (len(two["rows"]), two["total"]) == (2, 7)
    table = run_here("quarantine", "list").stdout
    assert "apy_beyond_limit" in table
    assert str(quarantine_ids["tvl_negative"]) in table


def test_show_has_the_reason_and_whether_the_row_passes_today(
    run_here: CommandLine, quarantine_ids: dict[str, int]
) -> None:
    row_id = str(quarantine_ids["apy_beyond_limit"])
    row = run_here.json("quarantine", "show", row_id)
    assert row["raw_json_data"] == {"apy": 5_000_000, "tvlUsd": 10, "apyBase": 1}
    assert (row["message"], row["passes_now"], row["reason_now"]) == (
        "its APY is beyond MAX_APY_PERCENT (1,000,000 %)",
        False,
        "apy_beyond_limit",
    )
    assert (
        run_here.json("quarantine", "show", row_id, MAX_APY_PERCENT="6000000")["passes_now"] is True
    )
    price = run_here.json("quarantine", "show", str(quarantine_ids["price_not_positive"]))
    assert (price["passes_now"], "load" in price["what_to_do"]) == (None, True)
    assert run_here("quarantine", "show", row_id).stdout.count("apyBase") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "4711"], "quarantine has no row 4711"),
        (["replay", "4711"], "quarantine has no row 4711"),
        (["drop", "4711", "--note", "x", "--yes"], "quarantine has no row 4711"),
        (["show", "0"], "greater than or equal to 1"),
        (["list", "--since", "yesterday"], "yesterday"),
        (
            ["replay"],
            "no rows are selected: give ids, or --reason and/or --pool, or --all, or --file",
        ),
        (["replay", "1", "--all"], "ids and --all exclude each other"),
        (["replay", "--all", "--value", '{"apy": 1}'], "--value corrects one row"),
        (["replay", "1", "--value", "[1]"], "is no JSON object"),
        (["replay", "1", "--value", '{"apy": 1e999}'], "--value: a number is too large for JSON"),
        (["replay", "1", "--value", "{}"], "there is no value to replace"),
        (["replay", "1", "--value", '{"APY": 1}'], "'APY' is no key of a snapshot"),
        (["replay", "--file", "nothing.csv"], "nothing.csv"),
        (["drop", "1", "--yes"], "--note TEXT"),
        (["drop", "1", "--yes", "--note", " "], "--note TEXT"),
        (["drop", "1", "--note", "x"], "--yes"),
        (
            ["drop", "--note", "x", "--yes"],
            "no rows are selected: give ids, or --reason and/or --pool, or --all",
        ),
    ],
)
def test_wrong_use_exits_with_2_and_changes_nothing(
    run_here: CommandLine, engine: Engine, arguments: list[str], message: str
) -> None:
    refused = run_here.json("quarantine", *arguments, code=2)
    assert message in refused["error"]
    assert refused["job"] == {"replay": "replay_quarantine", "drop": "drop_quarantine"}.get(
        arguments[0]
    )
    assert rows_of(engine, "SELECT job, status FROM yieldspark.run_ledger") == []


def test_drop_marks_and_keeps(
    run: CommandLine, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    document = run.json("quarantine", "drop", "--pool", "b", "--note", "a test pool", "--yes")
    assert document["rows"] == {
        "read": 2,
        "quarantined": 0,
        "inserted": 0,
        "updated": 2,
        "unchanged": 0,
        "removed": 0,
    }
    assert resolutions(engine) == {"tvl_negative": "dropped", "apy_and_tvl_missing": "dropped"}
    (entry,) = rows_of(
        engine,
        "SELECT note, resolved_by, resolved_by_run FROM yieldspark.quarantine WHERE id = :id",
        id=quarantine_ids["tvl_negative"],
    )
    assert (entry["note"], entry["resolved_by_run"], "@" in entry["resolved_by"]) == (
        "a test pool",
        document["run_id"],
        True,
    )
    assert ledger(engine)[0]["plan"] == {"request": {"pool": "b"}, "note": "a test pool"}
    again = run.json(
        "quarantine",
        "drop",
        str(quarantine_ids["tvl_negative"]),
        str(quarantine_ids["price_not_positive"]),
        "--note",
        "and this",
        "--yes",
    )
    assert again["rows"] == {
        "read": 2,
        "quarantined": 0,
        "inserted": 0,
        "updated": 1,
        "unchanged": 1,
        "removed": 0,
    }
    assert run.json(
        "quarantine", "replay", str(quarantine_ids["tvl_negative"]), "--value", '{"tvlUsd": 1}'
    )["outcomes"] == {"already_resolved": 1}
    assert run.json("quarantine", "list")["total"] == 4


def test_reading_commands_need_no_rights_to_write(
    run_here: CommandLine, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    execute(engine, "CREATE ROLE looker LOGIN PASSWORD 'looker'; GRANT pg_read_all_data TO looker")
    try:
        run_here.environment |= {"DB_USER": "looker", "DB_PASSWORD": "looker"}
        assert run_here.json("quarantine", "list")["total"] == 7
        assert (
            run_here.json("quarantine", "show", str(quarantine_ids["tvl_negative"]))["reason"]
            == "tvl_negative"
        )
        refused = run_here.json("quarantine", "drop", "--all", "--note", "x", "--yes", code=1)
        assert "ON ALL TABLES IN SCHEMA yieldspark TO looker;" in refused["error"]
    finally:
        execute(engine, "DROP ROLE looker")
