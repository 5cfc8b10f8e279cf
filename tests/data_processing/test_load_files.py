"""Tests loading files into a real PostgreSQL: the outcome of each kind of row, and the messages for
invalid input.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from common.errors import CheckFailed
from config_spark import Settings
from data_processing.ingest.loading import validation_sql
from data_processing.ingest.loading.file_kinds import NEEDED
from data_processing.ingest.loading.load_files import load_files
from tests.support.processes import PROJECT, CommandLine

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
HISTORY_CSV = (
    "timestamp,pool_id,tvl_usd,apy,apy_base,apy_reward\n2025-03-01T12:00:00Z,a,1000.5,5.25,5,0.25\n"
)


def write_file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(folder: Path, columns: dict[str, Any], name: str = "history.parquet") -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def history(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(
        engine,
        "SELECT pool_id, timestamp, raw_json_data FROM raw_defillama_pool_history ORDER BY id",
    )


def quarantined(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(
        engine,
        "SELECT source_table, source_id, pool_id, reason FROM yieldspark.quarantine ORDER BY"
        " source_id",
    )


def counts(summary: dict[str, Any]) -> tuple[int, ...]:
    (entry,) = summary["files"]
    names = ("rows_read", "rows_inserted", "rows_updated", "rows_already_there", "rows_refused")
    assert entry["rows_read"] == sum(entry[name] for name in (*names[1:], "rows_outdated"))
    return tuple(entry[name] for name in names)


REFERENCE = (
    "ALTER TABLE raw_defillama_pool_history ADD FOREIGN KEY (pool_id) REFERENCES pools (pool_id)"
)


def test_history_under_a_foreign_key_to_pools(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text(REFERENCE))
    file = write_file(tmp_path, "history.csv", HISTORY_CSV)
    assert counts(load_files(database, [file])) == (1, 1, 0, 0, 0)
    assert rows(engine, "SELECT pool_id FROM pools") == [("a",)]


def test_history_rows_that_a_trigger_drops_are_not_there_already(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF new.pool_id = 'b' THEN RETURN NULL; END IF; RETURN new; END $$;
                CREATE TRIGGER drop_row BEFORE INSERT ON raw_defillama_pool_history
                    FOR EACH ROW EXECUTE FUNCTION drop_row();
                """
            )
        )
    both = write_file(tmp_path, "both.csv", f"{HISTORY_CSV}2025-03-01T12:00:00Z,b,1,2,3,4\n")
    message = r"did not take 1 rows of .*both.csv, among them of pool b"
    with pytest.raises(CheckFailed, match=message):
        load_files(database, [both])
    assert history(engine) == []
    alone = write_file(tmp_path, "history.csv", HISTORY_CSV)
    assert counts(load_files(database, [alone])) == (1, 1, 0, 0, 0)
    assert counts(load_files(database, [alone])) == (1, 0, 0, 1, 0)


def test_csv_rows_are_unchanged(database: Settings, engine: Engine, tmp_path: Path) -> None:
    summary = load_files(database, [write_file(tmp_path, "history.csv", HISTORY_CSV)])
    assert counts(summary) == (1, 1, 0, 0, 0)
    assert summary["files"][0]["kind"] == "history"
    assert history(engine) == [
        ("a", NOON, {"apy": 5.25, "tvlUsd": 1000.5, "apyBase": 5, "apyReward": 0.25})
    ]
    assert rows(engine, "SELECT pool_id, is_active, symbol FROM pools") == [("a", True, None)]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + HISTORY_CSV,
        HISTORY_CSV.replace(",", ";"),
        HISTORY_CSV.replace(",", ";").replace(".", ","),
        HISTORY_CSV.replace(",", "\t"),
        HISTORY_CSV.replace("\n", "\r\n") + "\r\n",
        HISTORY_CSV.replace("tvl_usd", "tvlUsd").replace("apy_base", "APY Base"),
        HISTORY_CSV.replace("2025-03-01T12:00:00Z", '"2025-03-01 13:00:00+01:00"').replace(
            "1000.5", " 1000.5 "
        ),
        HISTORY_CSV.replace("2025-03-01T12:00:00Z", "1740830400"),
    ],
    ids=[
        "byte-order mark",
        "semicolons",
        "decimal commas",
        "tabs",
        "CRLF",
        "other names",
        "quotes, zone, blanks",
        "unix seconds",
    ],
)
def test_other_ways_to_write_the_same_csv(
    database: Settings, engine: Engine, tmp_path: Path, content: str
) -> None:
    load_files(database, [write_file(tmp_path, "history.csv", content)])
    assert history(engine) == [
        ("a", NOON, {"apy": 5.25, "tvlUsd": 1000.5, "apyBase": 5, "apyReward": 0.25})
    ]


@pytest.mark.parametrize(
    "timestamps",
    [
        pa.array([NOON], pa.timestamp("ns", "UTC")),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")),
        pa.array([NOON], pa.timestamp("us", "Europe/Berlin")),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")),
        pa.array(["2025-03-01T12:00:00.000Z"]),
        pa.array(["2025-03-01T12:00:00.000Z"]).dictionary_encode(),
        pa.array([int(NOON.timestamp())]),
        pa.array([int(NOON.timestamp() * 1000)]),
    ],
    ids=[
        "nanoseconds",
        "naive nanoseconds",
        "a zone",
        "seconds",
        "text",
        "dictionary",
        "unix seconds",
        "unix milliseconds",
    ],
)
def test_every_timestamp_type_of_parquet(
    database: Settings, engine: Engine, tmp_path: Path, timestamps: pa.Array
) -> None:
    load_files(
        database,
        [
            parquet(
                tmp_path,
                {"timestamp": timestamps, "pool_id": ["a"], "tvl_usd": [1.0], "apy": [2.0]},
            )
        ],
    )
    assert history(engine) == [("a", NOON, {"apy": 2, "tvlUsd": 1})]


def test_values_that_are_no_numbers_survive(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    values = [float("nan"), float("inf"), float("-inf"), -1e-7, None]
    file = parquet(
        tmp_path,
        {"timestamp": [NOON] * 5, "pool_id": list("abcde"), "tvl_usd": [1.0] * 5, "apy": values},
    )
    lines = [
        f"{NOON.isoformat()},{pool},1,{apy}"
        for pool, apy in zip("fghi", ["n/a", "NaN", "inf", ""], strict=True)
    ]
    other = write_file(tmp_path, "more.csv", "timestamp,pool_id,tvl_usd,apy\n" + "\n".join(lines))
    summary = load_files(database, [file, other])
    assert summary["rows_refused"] == 0
    stored = {pool: document["apy"] for pool, _, document in history(engine)}
    assert stored == {
        "a": "NaN",
        "b": "Infinity",
        "c": "-Infinity",
        "d": -1e-7,
        "e": None,
        "f": "n/a",
        "g": "NaN",
        "h": "Infinity",
        "i": None,
    }


def test_history_goes_into_a_partitioned_table(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        for statement in (
            "ALTER TABLE raw_defillama_pool_history RENAME TO plain",
            "CREATE TABLE raw_defillama_pool_history (LIKE plain INCLUDING DEFAULTS INCLUDING"
            " IDENTITY) PARTITION BY HASH (pool_id)",
            "CREATE TABLE part PARTITION OF raw_defillama_pool_history FOR VALUES WITH (MODULUS 1,"
            " REMAINDER 0)",
        ):
            connection.execute(text(statement))
    path = write_file(tmp_path, "history.csv", HISTORY_CSV)
    assert counts(load_files(database, [path])) == (1, 1, 0, 0, 0)
    assert counts(load_files(database, [path])) == (1, 0, 0, 1, 0)


def test_second_load_inserts_nothing(database: Settings, engine: Engine, tmp_path: Path) -> None:
    file = write_file(tmp_path, "history.csv", HISTORY_CSV)
    load_files(database, [file])
    assert counts(load_files(database, [file])) == (1, 0, 0, 1, 0)
    same = parquet(
        tmp_path,
        {
            "timestamp": [NOON],
            "pool_id": ["a"],
            "tvl_usd": [1000.5],
            "apy": [5.25],
            "apy_base": [5.0],
            "apy_reward": [0.25],
        },
    )
    assert counts(load_files(database, [same])) == (1, 0, 0, 1, 0)
    assert len(history(engine)) == 1


def test_changed_snapshot_is_stored_next_to_old_one_in_file_order(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    row = "2025-03-01T12:00:00Z,a,1,{}\n"
    file = write_file(
        tmp_path,
        "history.csv",
        "timestamp,pool_id,tvl_usd,apy\n" + "".join(row.format(apy) for apy in (7, 3, 7, 5)),
    )
    assert counts(load_files(database, [file])) == (4, 3, 0, 1, 0)
    assert [document["apy"] for _, _, document in history(engine)] == [7, 3, 5]


def test_correction_in_later_file_is_not_undone_by_earlier_file(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    first = write_file(tmp_path, "first.csv", HISTORY_CSV)
    corrected = write_file(tmp_path, "corrected.csv", HISTORY_CSV.replace("5.25", "6"))
    for file in (first, corrected, first):
        load_files(database, [file])
    assert [document["apy"] for _, _, document in history(engine)] == [5.25, 6]


def test_rows_without_timestamp_or_pool_go_to_quarantine(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines = [
        "yesterday,a,1,2",
        "2025-03-01,,1,2",
        "2025-03-01,b,1",
        "2025-03-01,c,1,2,3",
        "2025-03-01,d,1,2",
        ",e,1,2",
    ]
    file = write_file(tmp_path, "history.csv", "timestamp,pool_id,tvl_usd,apy\n" + "\n".join(lines))
    assert counts(load_files(database, [file])) == (6, 1, 0, 0, 5)
    load_files(database, [file])
    table = "raw_defillama_pool_history"
    assert quarantined(engine) == [
        (table, "history.csv:2", "a", "timestamp_unusable"),
        (table, "history.csv:3", None, "pool_id_missing"),
        (table, "history.csv:4", None, "wrong_number_of_values"),
        (table, "history.csv:5", None, "wrong_number_of_values"),
        (table, "history.csv:7", "e", "timestamp_unusable"),
    ]
    documents = [
        row[0]
        for row in rows(
            engine, "SELECT raw_json_data FROM yieldspark.quarantine ORDER BY source_id"
        )
    ]
    assert documents[0] == {
        "timestamp_text": "yesterday",
        "pool_id": "a",
        "tvl_usd": "1",
        "apy": "2",
    }
    assert documents[2] == ["2025-03-01", "b", "1"]
    assert [pool for pool, *_ in history(engine)] == ["d"]


def test_values_postgresql_cannot_store_stop_nothing(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    columns = {
        "timestamp": [NOON, NOON],
        "pool_id": ["a\0b", "'; DROP TABLE pools; --"],
        "tvl_usd": ["1\0", "9" * 400],
        "apy": ["1e999", '"\\,\n'],
    }
    assert counts(load_files(database, [parquet(tmp_path, columns)])) == (2, 2, 0, 0, 0)
    assert [pool for pool, *_ in history(engine)] == ["a\ufffdb", "'; DROP TABLE pools; --"]
    assert history(engine)[1][2]["apy"] == '"\\,'


def test_text_too_long_for_an_index_is_refused(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    key = random.Random(1).randbytes(3000).hex().upper()
    contents = {
        "history.csv": f"timestamp,pool,tvl,apy\n2025-03-01,{key},1,2\n2025-03-01,a,1,2\n",
        "prices.csv": f"date,symbol,close\n2025-03-01,{key},1\n2025-03-01,ETH,2\n",
        "pools.csv": f"pool,project,chain\n{key},p,c\nb,p,c\n",
    }
    for name, content in contents.items():
        summary = load_files(database, [write_file(tmp_path, name, content)])
        assert counts(summary) == (2, 1, 0, 0, 1), name
    assert rows(engine, "SELECT DISTINCT reason FROM yieldspark.quarantine") == [
        ("value_beyond_column",)
    ]


def test_rejects_timestamp_outside_calendar(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    beyond = pa.array([10**15, 0, 1_740_830_400], pa.timestamp("s"))
    file = parquet(
        tmp_path,
        {"timestamp": beyond, "pool_id": list("abc"), "tvl_usd": [1.0] * 3, "apy": [1.0] * 3},
    )
    assert counts(load_files(database, [file])) == (3, 2, 0, 0, 1)
    assert [row[3] for row in quarantined(engine)] == ["timestamp_unusable"]


def test_progress_names_each_file(database: Settings, tmp_path: Path) -> None:
    messages: list[str] = []
    load_files(
        database, [write_file(tmp_path, "history.csv", HISTORY_CSV)], progress=messages.append
    )
    assert messages == [
        "history.csv (history): 1 read, 1 inserted, 0 updated, 0 already there, 0 refused"
    ]


@pytest.mark.shared_data
def test_real_data_loads_whole_and_once(database: Settings, shared_data: Path) -> None:
    names = (
        "defillama_pools.parquet",
        "defillama_pool_history.parquet",
        "BTCUSDT_1d.csv",
        "ETHUSDT_1d.csv",
        "AvgGasPrice.csv",
    )
    files = [shared_data / name for name in names]
    first = load_files(database, files)
    assert [(entry["kind"], entry["rows_inserted"]) for entry in first["files"]] == [
        ("pools", 487),
        ("history", 80_628),
        ("prices", 3_122),
        ("prices", 3_122),
        ("gas", 3_740),
    ]
    assert first["rows_refused"] == 0
    assert load_files(database, files)["rows_inserted"] == 0


def test_json_value_of_every_text(engine: Engine) -> None:
    texts = [
        "1",
        "-1.50",
        "1e-5",
        ".5",
        "nan",
        "NaN",
        "Inf",
        "-INFINITY",
        "1,5",
        "0x10",
        "",
        "1\n",
        "١",
    ]
    with engine.connect() as connection:
        statement = text(
            f"SELECT ({validation_sql.json_value('value')})::text"
            " FROM unnest(CAST(:given AS text[])) WITH ORDINALITY AS t(value, n) ORDER BY n"
        )
        values = [
            json.loads(row) for row in connection.execute(statement, {"given": texts}).scalars()
        ]
    assert values == [
        1,
        -1.5,
        1e-5,
        0.5,
        "NaN",
        "NaN",
        "Infinity",
        "-Infinity",
        "1,5",
        "0x10",
        "",
        "1\n",
        "١",
    ]


def test_loading_guide_matches_behaviour(run_here: CommandLine) -> None:
    page = (PROJECT / "docs" / "loading.md").read_text(encoding="utf-8")
    (run_here.folder / "sample_data").symlink_to(PROJECT / "sample_data")
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines():
        finished = run_here(*shlex.split(line.removeprefix("python run_spark_local.py ")))
        assert finished.returncode == 0, finished.stderr
    for kind, columns in NEEDED.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
        assert [name for name in columns if f"`{name}`" not in row] == []


def test_option_decides_decimal_sign(run_here: CommandLine, engine: Engine) -> None:
    lines = "date;symbol;close\n2025-03-01;ETH;2.518\n2025-03-02;ETH;2.217\n"
    path = str(write_file(run_here.folder, "prices.csv", lines))
    error = run_here.json("load", path, code=2)["error"]
    assert "column close of" in error
    assert "give --decimal . or --decimal ," in error
    assert run_here.json("load", path, "--decimal", ",")["rows_inserted"] == 2
    closes = "SELECT raw_json_data #>> '{USD,close}' FROM raw_coinmarketcap_ohlcv ORDER BY 1"
    assert rows(engine, closes) == [("2217",), ("2518",)]


def test_file_name_that_is_not_utf_8_is_stored(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"h\xff\n.csv")
    path.write_text("timestamp,pool_id,tvl_usd,apy\n2025-03-01,a,1,2\nno,b,1,2\n2025-03-02,a\n")
    summary = load_files(database, [path])
    assert counts(summary) == (3, 1, 0, 0, 2)
    assert {source_id for _, source_id, _, _ in quarantined(engine)} == {
        "h\ufffd\n.csv:3",
        "h\ufffd\n.csv:4",
    }
