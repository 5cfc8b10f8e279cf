"""The shipped sample: what SOURCE.md promises of it, that it loads, and that the script makes these
very bytes.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from config_spark import Settings
from data_processing.ingest.loading.load_files import load_files
from sample_data import SAMPLE_FILES
from sample_data.make_sample import LAST_DAY, make_sample

POOLS, HISTORY, PRICES, GAS = SAMPLE_FILES


def test_sample_is_a_few_hundred_kilobytes() -> None:
    assert 100_000 < sum(path.stat().st_size for path in SAMPLE_FILES) < 400_000


def test_pools_differ_in_size_and_behaviour() -> None:
    frame = pq.read_table(HISTORY).to_pandas()
    days = frame.timestamp.dt.date
    by_pool = frame.groupby("pool_id")
    span = by_pool.timestamp.max().dt.normalize() - by_pool.timestamp.min().dt.normalize()
    assert frame.pool_id.nunique() >= 60
    assert days.max() == LAST_DAY
    assert (days.max() - days.min()) >= timedelta(days=300)
    assert by_pool.tvl_usd.median().max() > 1e8
    assert by_pool.tvl_usd.median().min() < 1e4
    assert frame.apy.max() > 355_000
    assert frame.apy_reward.isna().any()
    assert (by_pool.apy_reward.min() > 0).any()
    assert (by_pool.size() == 1).any()
    assert (span.dt.days + 1 > by_pool.size() + 7).any()
    assert (by_pool.timestamp.max().dt.date < LAST_DAY).any()


def test_market_days_cover_the_pools_and_some_before() -> None:
    first = pq.read_table(HISTORY)["timestamp"].to_pandas().min().date()
    prices = pq.read_table(PRICES).to_pandas()
    gas = pq.read_table(GAS)["timestamp"].to_pandas()
    for instants in (
        prices[prices.symbol == "ETH"].timestamp,
        prices[prices.symbol == "BTC"].timestamp,
        gas,
    ):
        days = list(instants.dt.date)
        assert days == [days[0] + timedelta(days=number) for number in range(len(days))]
        assert days[0] < first - timedelta(days=7)
        assert days[-1] == date(2025, 10, 5)


@pytest.mark.parametrize("path", SAMPLE_FILES, ids=lambda path: path.stem)
def test_spark_can_read_its_timestamps(path: Path) -> None:
    schema = pq.read_schema(path)
    assert schema.field("timestamp").type == pa.timestamp("us", tz="UTC")
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_sample_loads_whole_and_once(database: Settings, engine: Engine) -> None:
    first = load_files(database, SAMPLE_FILES)
    again = load_files(database, SAMPLE_FILES)
    assert [entry["kind"] for entry in first["files"]] == ["pools", "history", "prices", "gas"]
    assert first["rows_refused"] == 0
    assert all(entry["rows_inserted"] == entry["rows_read"] > 0 for entry in first["files"])
    assert again["rows_inserted"] == 0
    with engine.connect() as connection:
        described, pools = connection.execute(
            text(
                "SELECT count(*) FILTER (WHERE symbol IS NOT NULL AND protocol IS NOT NULL),"
                " count(*) FROM pools"
            )
        ).one()
        assert described == pools == 72


@pytest.mark.shared_data
def test_script_makes_these_bytes(shared_data: Path, tmp_path: Path) -> None:
    make_sample(shared_data, tmp_path)
    for path in SAMPLE_FILES:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_no_value_of_the_source_is_changed(shared_data: Path) -> None:
    source = pq.read_table(shared_data / "defillama_pool_history.parquet").to_pandas()
    source["timestamp"] = source.timestamp.astype("datetime64[us, UTC]")
    sample = pq.read_table(HISTORY).to_pandas()
    both = sample.merge(source, how="left", on=["pool_id", "timestamp"], suffixes=("", "_source"))
    assert len(both) == len(sample)
    for column in ("apy", "tvl_usd", "apy_base", "apy_reward"):
        assert (
            both[column].eq(both[f"{column}_source"])
            | (both[column].isna() & both[f"{column}_source"].isna())
        ).all()
