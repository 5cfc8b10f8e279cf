"""The transfer panel: public pools whose rows small panels learn from as well.

Reads the pool history that comes with the product (`sample_data/pool_history.parquet`: 72 DEX
pools, 2024-11-04 to 2025-09-29; `sample_data/SOURCE.md` has source and licence), also out of a
release's zip. Returns METRICS_SCHEMA: APY percent, TVL USD, UTC days. Imports no Spark.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from functools import cache
from importlib.resources import files

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from forecasting.features.pool_history import METRICS_SCHEMA


@cache
def panel_content() -> bytes:
    """Returns the file of the panel."""
    return files("sample_data").joinpath("pool_history.parquet").read_bytes()


def panel_hash() -> str:
    """Returns the first 16 hexadecimal digits of the file's SHA-256."""
    return hashlib.sha256(panel_content()).hexdigest()[:16]


def panel_metrics() -> pa.Table:
    """Returns METRICS_SCHEMA, sorted by pool and day: the last snapshot of each day. Nothing is
    carried forward, and no pool has a group.
    """
    raw = pq.read_table(
        io.BytesIO(panel_content()), columns=["pool_id", "timestamp", "apy", "tvl_usd"]
    ).sort_by("timestamp")
    keyed = raw.append_column("date", pc.cast(raw["timestamp"], pa.date32()))
    keep_nulls = pc.ScalarAggregateOptions(skip_nulls=False)
    # the rows of a group stay in their order with one thread only
    days = keyed.group_by(["pool_id", "date"], use_threads=False).aggregate(
        [("apy", "last", keep_nulls), ("tvl_usd", "last", keep_nulls)]
    )
    days = days.sort_by([("pool_id", "ascending"), ("date", "ascending")])
    columns = {
        "pool_id": days["pool_id"],
        "date": days["date"],
        "apy": days["apy_last"],
        "tvl": days["tvl_usd_last"],
    }
    return pa.Table.from_arrays(
        [
            columns[field.name].cast(field.type)
            if field.name in columns
            else pa.nulls(len(days), field.type)
            for field in METRICS_SCHEMA
        ],
        schema=METRICS_SCHEMA,
    )


def pool_days_before(end: dt.date) -> int:
    """Returns the number of the panel's pool-days before a day."""
    is_before = pc.less(panel_metrics()["date"], pa.scalar(end, pa.date32()))
    return int(pc.sum(is_before).as_py() or 0)
