"""The files the demo loads; SOURCE.md says where they come from, make_sample.py how they
were cut.
"""

from __future__ import annotations

from pathlib import Path

SAMPLE_FILES = tuple(
    Path(__file__).resolve().parent / name
    for name in ("pools.parquet", "pool_history.parquet", "prices.parquet", "gas.parquet")
)
