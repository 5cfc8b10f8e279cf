"""Tests the shipped sample: it is as SOURCE.md describes it, it loads, and the script makes the
same bytes.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from config_spark import Settings
from data_processing.ingest.loading.load_files import load_files
from sample_data import SAMPLE_FILES
from sample_data.make_sample import (
    FAMILIAR_TOKENS,
    HIGHEST_APY,
    LAST_DAY,
    LOWEST_APY,
    make_sample,
)

POOLS, HISTORY, PRICES, GAS = SAMPLE_FILES


def test_sample_is_a_few_hundred_kilobytes() -> None:
    assert 100_000 < sum(path.stat().st_size for path in SAMPLE_FILES) <= 250_000


def pool_summary() -> pd.DataFrame:
    """One row for each pool, the largest TVL of its last day (USD) first: `days` observed, `last`
    day, `missing` days between its first and last, `apy` of its last day, `highest_apy` (percent),
    protocol_slug, chain, symbol.
    """
    history = pq.read_table(HISTORY).to_pandas().sort_values("timestamp")
    history["day"] = history.timestamp.dt.normalize()
    by_pool = history.groupby("pool_id")
    span = (by_pool.day.max() - by_pool.day.min()).dt.days + 1
    summary = pd.DataFrame(
        {
            "days": by_pool.day.nunique(),
            "last": by_pool.day.max().dt.date,
            "missing": span - by_pool.day.nunique(),
            "tvl": by_pool.tvl_usd.last(),
            "apy": by_pool.apy.last(),
            "highest_apy": by_pool.apy.max(),
        }
    )
    described = pq.read_table(POOLS).to_pandas().set_index("pool")
    return summary.join(described[["protocol_slug", "chain", "symbol"]]).sort_values(
        "tvl", ascending=False
    )


def test_nearly_all_pools_are_observed_on_the_last_day_and_most_have_a_history() -> None:
    pools = pool_summary()
    assert len(pools) == 72
    assert (pools["last"] == LAST_DAY).sum() >= 68
    assert (pools.days >= 120).sum() > len(pools) / 2


def test_largest_pools_make_sense_to_a_newcomer() -> None:
    largest = pool_summary().head(8)
    assert (largest["last"] == LAST_DAY).all()
    assert largest.apy.between(LOWEST_APY, HIGHEST_APY).all()
    assert all(FAMILIAR_TOKENS.issuperset(symbol.split("-")) for symbol in largest.symbol)
    assert largest.protocol_slug.nunique() >= 3


def test_pools_differ_in_size_and_behaviour() -> None:
    pools = pool_summary()
    assert set(pools.chain) == {"Arbitrum", "Base", "Ethereum", "Polygon"}
    assert pools.protocol_slug.nunique() >= 5
    assert pools.tvl.max() > 1e8
    assert pools.tvl.min() < 2e4
    assert (pools.days == 1).sum() == 1, "a cold start"
    assert (pools.highest_apy > 100_000).sum() == 2, "APYs that are no yield"
    assert (pools["last"] < LAST_DAY).sum() == 1, "a stale pool"
    assert (pools.missing > 7).any(), "gaps that no carry fills"
    rewards = pq.read_table(HISTORY)["apy_reward"].to_pandas()
    assert rewards.isna().any()
    assert (rewards > 0).any()


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
        assert days[-1] == LAST_DAY


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
