"""Tests `quarantine replay` as scripts see it, and the corrections that it reads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from common.errors import InputError
from config_spark import Settings
from data_processing.quarantine import replay
from data_processing.quarantine.queries import Selection
from data_processing.quarantine.replay import Replay, replay_rows
from data_processing.raw.observed_days import snapshot_identity
from tests.cli.test_quarantine_commands import (
    BAD_ROWS,
    HISTORY,
    NOON,
    ledger,
    quarantine_ids,
    raw_rows,
    resolutions,
)
from tests.support.metrics_store import execute, rows_of
from tests.support.processes import CommandLine

__all__ = ["quarantine_ids"]


def test_a_corrected_row_comes_back_as_a_new_one_once(
    run_here: CommandLine, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    row_id = quarantine_ids["apy_beyond_limit"]
    replay = ["quarantine", "replay", str(row_id), "--value", '{"apy": 5.5}']
    tried = run_here.json(*replay, "--dry-run")
    assert (tried["status"], tried["outcomes"], raw_rows(engine), ledger(engine)) == (
        "planned",
        {"replayed": 1},
        [],
        [],
    )

    document = run_here.json(*replay)
    (new,) = raw_rows(engine)
    assert (new["pool_id"], new["timestamp"], new["raw_json_data"]) == (
        "a",
        NOON + timedelta(days=1),
        {"apy": 5.5, "tvlUsd": 10, "apyBase": 1},
    )
    assert document["rows"] == {
        "read": 1,
        "quarantined": 0,
        "inserted": 1,
        "updated": 0,
        "unchanged": 0,
        "removed": 0,
    }
    (entry,) = rows_of(engine, "SELECT * FROM yieldspark.quarantine WHERE id = :id", id=row_id)
    (replacement,) = rows_of(
        engine, f"SELECT {snapshot_identity('h')} AS id FROM {HISTORY} AS h WHERE id = {new['id']}"
    )
    assert (entry["resolution"], entry["replayed_row_id"], entry["resolved_by_run"]) == (
        "replayed",
        str(replacement["id"]),
        document["run_id"],
    )
    assert "@" in entry["resolved_by"]
    assert entry["raw_json_data"]["apy"] == 5_000_000
    (row,) = ledger(engine)
    assert (row["job"], row["status"]) == ("replay_quarantine", "succeeded")
    assert row["plan"] == {"request": {"ids": [row_id]}, "corrections": {str(row_id): {"apy": 5.5}}}

    again = run_here.json(*replay)
    assert (again["outcomes"], again["rows"]["unchanged"], len(raw_rows(engine))) == (
        {"already_resolved": 1},
        1,
        1,
    )
    assert row_id not in {row["id"] for row in run_here.json("quarantine", "list")["rows"]}
    assert row_id in {row["id"] for row in run_here.json("quarantine", "list", "--all")["rows"]}


def test_a_row_that_still_fails_stays_with_its_reason(
    run_here: CommandLine, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    document = run_here.json(
        "quarantine",
        "replay",
        str(quarantine_ids["apy_not_a_number"]),
        "--value",
        '{"apy": "??"}',
        code=1,
    )
    (row,) = document["details"]
    assert (row["outcome"], row["reason_now"], row["message"]) == (
        "still_failing",
        "apy_not_a_number",
        "its APY is no number",
    )
    assert (resolutions(engine), raw_rows(engine)) == ({}, [])
    assert document["rows"] == {
        "read": 1,
        "quarantined": 1,
        "inserted": 0,
        "updated": 0,
        "unchanged": 0,
        "removed": 0,
    }


def test_replay_under_other_limits_inserts_passing_rows(
    run_here: CommandLine, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    document = run_here.json("quarantine", "replay", "--all", MAX_APY_PERCENT="6000000")
    assert document["outcomes"] == {"replayed": 1, "still_failing": 4, "not_replayable": 2}
    assert document["rows"] == {
        "read": 7,
        "quarantined": 4,
        "inserted": 1,
        "updated": 0,
        "unchanged": 2,
        "removed": 0,
    }
    messages = {
        row["reason"]: row["message"]
        for row in document["details"]
        if row["outcome"] == "not_replayable"
    }
    assert "`load` it" in messages["price_not_positive"]
    assert "it never came into the raw table" in messages["pool_id_missing"]
    assert resolutions(engine) == {"apy_beyond_limit": "replayed"}
    assert (
        run_here.json("quarantine", "replay", "--reason", "apy_beyond_limit")["rows"]["read"] == 0
    )
    assert run_here.json("quarantine", "replay", str(quarantine_ids["price_not_positive"]), code=1)[
        "outcomes"
    ] == {"not_replayable": 1}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_corrections_from_a_file(
    run_here: CommandLine, engine: Engine, quarantine_ids: dict[str, int], kind: str
) -> None:
    ids = [quarantine_ids[reason] for _, _, reason in BAD_ROWS]
    path = run_here.folder / f"corrections.{kind}"
    if kind == "jsonl":
        path.write_text(
            "\n".join(
                json.dumps({"id": row_id, **({"tvlUsd": 7.5} if n == 2 else {"apy": 4})})
                for n, row_id in enumerate(ids)
            )
            + "\n\n"
        )
    else:
        path.write_text(
            "id,apy,tvlUsd\n"
            + "".join(
                f"{row_id},{'' if n == 2 else 4},{7.5 if n == 2 else ''}\n"
                for n, row_id in enumerate(ids)
            )
        )
    assert run_here.json("quarantine", "replay", "--file", str(path))["outcomes"] == {"replayed": 4}
    assert [row["raw_json_data"] for row in raw_rows(engine)] == [
        {"apy": 4, "tvlUsd": 10, "apyBase": 1},
        {"apy": 4, "tvlUsd": 10},
        {"apy": 2, "tvlUsd": 7.5},
        {"apy": 4},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "1", "c.txt: corrections come as .jsonl"),
        ("c.csv", "id,apy\n1,2,3\n", "c.csv:2: the row has not as many values"),
        ("c.csv", "id,apy\none,2\n", "c.csv:2: 'one' is no id"),
        ("c.csv", "id,apy\n1,\n", "c.csv:2: there is no value to replace"),
        ("c.csv", "id,tvl\n1,2\n", "'tvl' is no key of a snapshot; give apy, tvlUsd"),
        ("c.csv", "id,apy\n", "has no corrections in it"),
        (
            "c.jsonl",
            '{"id": 1, "apy": 2}\n{"id": 1, "apy": 3}\n',
            "c.jsonl:2: row 1 is corrected twice",
        ),
        ("c.jsonl", '{"id": 1, "apy": }\n', "c.jsonl:1: "),
        ("c.jsonl", '{"id": 1, "apy": ' + "1" * 5000 + "}", "c.jsonl:1: "),
        ("c.jsonl", '{"id": 99999999999999999999, "apy": 1}\n', "is no id"),
        ("c.jsonl", '{"id": 4711, "apy": 1}\n', "quarantine has no row 4711"),
    ],
)
def test_an_invalid_file_is_rejected_with_its_line(
    run_here: CommandLine, name: str, content: str, message: str
) -> None:
    (run_here.folder / name).write_text(content)
    assert message in run_here.json("quarantine", "replay", "--file", name, code=2)["error"]


def test_a_row_with_two_reasons_comes_back_once(
    run_here: CommandLine, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    execute(
        engine,
        "INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id, timestamp,"
        " reason, raw_json_data) SELECT 'r3', source_table, source_id, pool_id, timestamp,"
        " 'tvl_beyond_limit', raw_json_data FROM yieldspark.quarantine WHERE id = :id",
        id=quarantine_ids["tvl_negative"],
    )
    ids = [
        row["id"]
        for row in rows_of(
            engine,
            "SELECT id FROM yieldspark.quarantine WHERE reason LIKE 'tvl_%' ORDER BY id",
        )
    ]
    (run_here.folder / "c.csv").write_text(f"id,tvlUsd\n{ids[1]},8\n{ids[0]},9\n")
    document = run_here.json("quarantine", "replay", "--file", "c.csv")
    assert (document["outcomes"], document["rows"]["inserted"], document["rows"]["unchanged"]) == (
        {"replayed": 2},
        1,
        1,
    )
    assert resolutions(engine) == {"tvl_negative": "replayed", "tvl_beyond_limit": "replayed"}
    assert [row["raw_json_data"]["tvlUsd"] for row in raw_rows(engine)] == [8]


def add_entry(engine: Engine, row_id: int, reason: str, resolution: str | None = None) -> int:
    """Add another entry of the source row of `row_id`; returns its id."""
    execute(
        engine,
        "INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id, timestamp,"
        " reason, raw_json_data, resolution) SELECT 'r3', source_table, source_id, pool_id,"
        " timestamp, :reason, raw_json_data, :resolution FROM yieldspark.quarantine WHERE id = :id",
        id=row_id,
        reason=reason,
        resolution=resolution,
    )
    (entry,) = rows_of(engine, "SELECT max(id) AS id FROM yieldspark.quarantine")
    return int(entry["id"])


def test_an_entry_that_is_done_with_decides_nothing(
    database: Settings, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    open_entry = quarantine_ids["tvl_negative"]
    ids = (open_entry, add_entry(engine, open_entry, "tvl_beyond_limit", "accepted"))
    document = replay_rows(
        database, engine, Replay(Selection(ids), "ann@desk", {open_entry: '{"tvlUsd": 1}'})
    )
    assert document["outcomes"] == {"replayed": 1, "already_resolved": 1}
    ids = (
        quarantine_ids["apy_beyond_limit"],
        add_entry(engine, quarantine_ids["apy_beyond_limit"], "tvl_beyond_limit", "accepted"),
    )
    looser = database.model_copy(update={"max_apy_percent": 6e6})
    assert replay_rows(looser, engine, Replay(Selection(ids), "ann@desk"))["outcomes"] == {
        "replayed": 1,
        "already_resolved": 1,
    }


def test_the_newer_entry_decides_between_two_corrections_of_a_row(
    database: Settings, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    older = quarantine_ids["tvl_negative"]
    newer = add_entry(engine, older, "tvl_beyond_limit")
    document = replay_rows(
        database,
        engine,
        Replay(
            Selection((older, newer)), "ann@desk", {older: '{"tvlUsd": 1}', newer: '{"tvlUsd": -1}'}
        ),
    )
    assert [row["message"] for row in document["details"]] == [
        "another entry of the same raw row decides, and that one fails",
        "its TVL is negative",
    ]
    assert raw_rows(engine) == []


def test_a_replay_waits_for_a_drop_that_is_under_way(
    database: Settings, engine: Engine, quarantine_ids: dict[str, int]
) -> None:
    """The two jobs have different locks.

    Without locks on the rows, the replay would insert what the drop resolves.
    """
    row_id = quarantine_ids["apy_beyond_limit"]
    looser = database.model_copy(update={"max_apy_percent": 6e6})
    with ThreadPoolExecutor(1) as others:
        with engine.begin() as dropping:
            dropping.execute(
                text("UPDATE yieldspark.quarantine SET resolution = 'dropped' WHERE id = :id"),
                {"id": row_id},
            )
            replay = others.submit(
                replay_rows, looser, engine, Replay(Selection((row_id,)), "ann@desk")
            )
            while not replay.done() and not rows_of(
                engine, "SELECT FROM pg_locks WHERE NOT granted"
            ):
                pass
        assert replay.result()["outcomes"] == {"already_resolved": 1}
    assert raw_rows(engine) == []


def test_the_first_rows_of_a_replay_are_shown_and_all_are_counted(
    database: Settings,
    engine: Engine,
    quarantine_ids: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "LISTED_ROWS", 2)
    document = replay_rows(database, engine, Replay(Selection(), "ann@desk"), dry_run=True)
    assert (sum(document["outcomes"].values()), [row["id"] for row in document["details"]]) == (
        len(quarantine_ids),
        sorted(quarantine_ids.values())[:2],
    )


def test_corrections_lie_beside_the_reader(tmp_path: Path) -> None:
    from data_processing.quarantine.corrections import read_corrections

    path = tmp_path / "c.csv"
    path.write_text("id,apy,tvlUsd\n1,+4.5,1e3\n2,NaN,1e400\n3,-7,abc\n")
    assert {row_id: json.loads(values) for row_id, values in read_corrections(path).items()} == {
        1: {"apy": 4.5, "tvlUsd": 1000.0},
        2: {"apy": "NaN", "tvlUsd": "1e400"},
        3: {"apy": -7, "tvlUsd": "abc"},
    }


def test_corrections_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    from data_processing.quarantine.corrections import read_corrections

    path = tmp_path / "c.csv"
    path.write_text("\ufeffid;apy;tvlUsd\n1;5,25;1.234\n2;1,5E-3;\n\n;;\n")
    corrections = {row_id: json.loads(values) for row_id, values in read_corrections(path).items()}
    assert corrections == {1: {"apy": 5.25, "tvlUsd": 1234}, 2: {"apy": 0.0015}}
    path.write_text("id;apy\n1;1.234\n")
    with pytest.raises(InputError, match=r"column apy of .*: give --decimal . or --decimal ,"):
        read_corrections(path)
    assert read_corrections(path, ",") == {1: '{"apy": 1234}'}
    assert read_corrections(path, ".") == {1: '{"apy": 1.234}'}
    path.write_text("id;apy;tvlUsd;il7d\n1;5,25 %;$1.234,50;-1,5%\n")
    assert json.loads(read_corrections(path)[1]) == {"apy": 5.25, "tvlUsd": 1234.5, "il7d": -1.5}
    path.write_text("<html><body>")
    with pytest.raises(InputError, match=r"is a web page"):
        read_corrections(path)


def test_a_column_of_corrections_that_comes_twice_is_refused(tmp_path: Path) -> None:
    from data_processing.quarantine.corrections import read_corrections

    path = tmp_path / "twice.csv"
    path.write_text("id,apy,apy\n1,5.25,6.5\n")
    with pytest.raises(InputError, match=r"has 2 columns 'apy'; keep one"):
        read_corrections(path)
