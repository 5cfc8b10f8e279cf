"""Tests triggers of the owner that drop a row, move it to another key or delete it later.

Such a row is not counted as loaded, and loading the same file again inserts nothing twice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import CheckFailed
from config_spark import Settings
from data_processing.ingest.loading.load_files import load_files
from database.db_utils_spark import execute_sql

HISTORY, PRICES = "raw_defillama_pool_history", "raw_coinmarketcap_ohlcv"
FILES = {
    HISTORY: "timestamp,pool,apy,tvlUsd\n2025-03-01T12:00:00Z,a,1,2\n2025-03-02T12:00:00Z,b,1,2\n",
    PRICES: "date,symbol,close\n2025-03-01,ETH,1\n2025-03-02,ETH,2\n",
    "gas_fees_daily": "date,value_gwei\n2025-03-01,1\n2025-03-02,2\n",
    "pools": "pool,chain\na,Base\nb,Base\n",
}
TRIGGERS = [
    (HISTORY, HISTORY, "BEFORE INSERT", "NEW.pool_id := upper(NEW.pool_id); RETURN NEW;"),
    (HISTORY, HISTORY, "BEFORE INSERT", "NEW.timestamp := NEW.timestamp::date; RETURN NEW;"),
    (HISTORY, HISTORY, "BEFORE INSERT", "NEW.raw_json_data := '{}'; RETURN NEW;"),
    (HISTORY, HISTORY, "AFTER INSERT", f"DELETE FROM {HISTORY}; RETURN NEW;"),
    (HISTORY, "pools", "BEFORE INSERT", "RETURN NULL;"),
    (PRICES, PRICES, "BEFORE INSERT", "NEW.raw_json_data := '{}'; RETURN NEW;"),
    (
        "gas_fees_daily",
        "gas_fees_daily",
        "BEFORE INSERT",
        "NEW.actual_avg_gas_gwei := 0; RETURN NEW;",
    ),
    ("pools", "pools", "BEFORE INSERT", "NEW.pool_id := 'x' || NEW.pool_id; RETURN NEW;"),
]


def add_trigger(database: Settings, table: str, event: str, body: str) -> None:
    execute_sql(
        database,
        f"""
        CREATE FUNCTION change_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
        CREATE TRIGGER change_row {event} ON {table} FOR EACH ROW EXECUTE FUNCTION change_row()
        """,
    )


def counted(database: Settings, table: str) -> int:
    return int(execute_sql(database, f"SELECT count(*) AS n FROM {table}")[0]["n"])


@pytest.mark.parametrize(("loaded", "table", "event", "body"), TRIGGERS)
def test_row_moved_by_trigger_is_not_loaded(
    loaded: str, table: str, event: str, body: str, database: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "file.csv"
    file.write_text(FILES[loaded])
    add_trigger(database, table, event, body)
    message = rf"{table}\S* did not take 2 rows of .*file.csv.*drops or changes rows.*load the file"
    with pytest.raises(CheckFailed, match=message):
        load_files(database, [file])
    assert counted(database, loaded) == counted(database, table) == 0


def test_description_dropped_by_trigger_is_not_counted_as_stored(
    database: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "pools.csv"
    file.write_text(FILES["pools"])
    execute_sql(database, "INSERT INTO pools (pool_id, chain) VALUES ('a', 'Base'), ('b', 'Old')")
    add_trigger(database, "pools", "BEFORE UPDATE", "RETURN NULL;")
    with pytest.raises(CheckFailed, match="pools did not take 1 rows of"):
        load_files(database, [file])
    execute_sql(database, "DROP TRIGGER change_row ON pools")
    (summary,) = load_files(database, [file])["files"]
    assert (summary["rows_updated"], summary["rows_already_there"]) == (1, 1)


def test_trigger_that_keeps_row_is_no_loss(database: Settings, tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text(FILES[HISTORY])
    add_trigger(database, HISTORY, "BEFORE INSERT", "NEW.insertion_timestamp := now(); RETURN NEW;")
    (first,), (again,) = (load_files(database, [file])["files"] for _ in range(2))
    assert (first["rows_inserted"], again["rows_inserted"]) == (2, 0)
