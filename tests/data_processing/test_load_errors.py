"""Tests files that cannot be loaded: one message, and no row is stored."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from common.errors import DatabaseError, InputError
from config_spark import Settings
from data_processing.ingest.loading.load_files import load_files
from tests.data_processing.test_load_files import (
    HISTORY_CSV,
    NOON,
    history,
    parquet,
    quarantined,
    rows,
    write_file,
)


def test_rejects_history_without_numbers(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines = "timestamp,pool,tvl,apy\n2025-03-01,a,1,5.2x\n2025-03-02,a,1,\n"
    with pytest.raises(InputError, match=r"no apy in .* is a number, the first is '5.2x'"):
        load_files(database, [write_file(tmp_path, "h.csv", lines)])
    assert history(engine) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.parquet", b"", "is empty (0 bytes)"),
        ("empty.csv", b"", "is empty (0 bytes)"),
        ("blank.csv", b"\n\n", "empty first line"),
        ("header.csv", HISTORY_CSV.splitlines()[0].encode(), "no row"),
        ("cut.parquet", b"PAR1 and then nothing", "not a whole Parquet file"),
        ("text.parquet", HISTORY_CSV.encode(), "not a whole Parquet file"),
        ("excel.csv", HISTORY_CSV.encode("utf-16"), "is text in UTF-16"),
        (
            "latin.csv",
            HISTORY_CSV.replace(",a,", ",\u00e9,").encode("latin-1"),
            "neither Parquet nor UTF-8 text",
        ),
        ("quote.csv", HISTORY_CSV.replace(",a,", ',"a,').encode(), "is not CSV"),
        (
            "no_apy.csv",
            b"timestamp,pool_id,tvl_usd\n2025-03-01,a,1\n",
            (
                "has no column apy: a history file needs timestamp, pool_id, tvl_usd, apy; it has"
                " timestamp,"
            ),
        ),
        ("what.csv", b"date,DGS10\n2025-03-01,4\n", "can't tell what"),
        ("gas.csv", b"date,gas\n2025-03-01,4\n", "gwei or wei"),
        ("pair.csv", b"date,close\n2025-03-01,4\n", "--symbol ETH"),
        (
            "ETHUSD.csv",
            b"time,close\n"
            + b"".join(b"%d,4\n" % (1740787200 + 3600 * hour) for hour in range(48)),
            "48 rows for 2 days",
        ),
        (
            "american.csv",
            b"timestamp,pool_id,tvl_usd,apy\n3/1/2025,a,1,2\n",
            "'3/1/2025' is no ISO 8601 timestamp",
        ),
        ("ragged.csv", b"timestamp,pool_id,tvl_usd,apy\n2025-03-01,a\n", "wrong_number_of_values"),
        (
            "euro.csv",
            b"date,symbol,close\n2025-03-01,ETH/EUR,4\n",
            "'ETH/EUR' is no coin with a price in USD",
        ),
    ],
)
def test_bad_file_says_what_is_wrong_and_loads_nothing(
    database: Settings, engine: Engine, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_files(database, [write_file(tmp_path, name, content)])
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert (
        rows(
            engine,
            "SELECT 1 FROM raw_defillama_pool_history UNION ALL SELECT 1 FROM"
            " raw_coinmarketcap_ohlcv UNION ALL SELECT 1 FROM yieldspark.quarantine",
        )
        == []
    )


def test_parquet_without_a_needed_column_names_both(database: Settings, tmp_path: Path) -> None:
    file = parquet(tmp_path, {"timestamp": [NOON], "pool": ["a"], "apy": [1.0]})
    with pytest.raises(
        InputError,
        match=(
            "has no column tvl_usd: a history file needs timestamp, pool_id, tvl_usd, apy; it has"
            " timestamp, pool, apy"
        ),
    ):
        load_files(database, [file])


def test_parquet_damaged_in_the_middle_leaves_the_table_as_it_was(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    number = 200_000
    columns = {
        "timestamp": [NOON] * number,
        "pool_id": [f"pool {row}" for row in range(number)],
        "tvl_usd": [1.0] * number,
        "apy": [1.0] * number,
    }
    pq.write_table(
        pa.table(columns), tmp_path / "history.parquet", row_group_size=70_000, compression="zstd"
    )
    metadata = pq.ParquetFile(tmp_path / "history.parquet").metadata
    content = bytearray((tmp_path / "history.parquet").read_bytes())
    start = metadata.row_group(2).column(1).dictionary_page_offset
    content[start : start + 2000] = bytes(2000)
    with pytest.raises(InputError, match="not a whole Parquet file"):
        load_files(database, [write_file(tmp_path, "damaged.parquet", bytes(content))])
    assert history(engine) == []


def test_missing_file_folder_and_unknown_kind(database: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv does not exist"):
        load_files(database, [tmp_path / "nothing.csv"])
    with pytest.raises(InputError, match="is a folder"):
        load_files(database, [tmp_path])
    with pytest.raises(
        InputError, match="kind 'history2' is unknown; allowed are history, prices, gas, pools"
    ):
        load_files(database, [write_file(tmp_path, "history.csv", HISTORY_CSV)], kind="history2")
    with pytest.raises(InputError, match="has no column close"):
        load_files(database, [tmp_path / "history.csv"], kind="prices")


def test_rejects_bad_file_before_loading_good_one(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        load_files(
            database, [write_file(tmp_path, "history.csv", HISTORY_CSV), tmp_path / "nothing.csv"]
        )
    assert history(engine) == []


def test_database_failure_leaves_tables_unchanged(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE pools ADD CONSTRAINT short CHECK (length(pool_id) < 3)")
        )
    lines = HISTORY_CSV + "2025-03-01T12:00:00Z,a long name,1,2,,\nno time,b,1,2,,\n"
    with pytest.raises(DatabaseError):
        load_files(database, [write_file(tmp_path, "history.csv", lines)])
    assert history(engine) == quarantined(engine) == []
