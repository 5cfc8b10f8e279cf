"""What the product reads and writes of the owner's tables, as data: the ground for the check of
tables, for the rights a role needs and for the documented GRANT block.

A column that stands in no use here may have any type, or be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Table

from database.schema.tables import (
    FORECAST_COLUMNS,
    METRIC_COLUMNS,
    gas_fees_daily,
    pool_daily_metrics,
    pools,
    raw_pool_history,
    raw_prices,
)


@dataclass(frozen=True)
class TableUse:
    """Columns by what is done with them.

    `deletes` says that rows go where no other job's column holds a value, so that all columns are
    read.
    """

    table: Table
    reads: tuple[str, ...]
    inserts: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    deletes: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.reads, *self.inserts, *self.updates]))

    @property
    def commands(self) -> tuple[str, ...]:
        """SELECT and those that write."""
        wanted = {
            "SELECT": True,
            "INSERT": bool(self.inserts),
            "UPDATE": bool(self.updates),
            "DELETE": self.deletes,
        }
        return tuple(command for command, is_wanted in wanted.items() if is_wanted)

    @property
    def is_written(self) -> bool:
        return len(self.commands) > 1


_DAY = ("pool_id", "date")
_RAW_ROW = ("id", "pool_id", "timestamp", "raw_json_data", "insertion_timestamp")
_PRICE = ("data_timestamp", "symbol", "raw_json_data")
_GAS = ("date", "actual_avg_gas_gwei")
_POOL = (
    "pool_id",
    "name",
    "chain",
    "protocol",
    "symbol",
    "tvl",
    "apy",
    "last_updated",
    "is_active",
    "underlying_token_addresses",
    "poolmeta",
)

METRICS_USE = (
    TableUse(pools, ("pool_id", "is_active")),
    TableUse(raw_pool_history, _RAW_ROW),
    TableUse(raw_prices, _PRICE),
    TableUse(gas_fees_daily, _GAS),
    TableUse(
        pool_daily_metrics,
        reads=(*_DAY, "is_filtered_out", *METRIC_COLUMNS),
        inserts=(*_DAY, *METRIC_COLUMNS),
        updates=METRIC_COLUMNS,
        deletes=True,
    ),
)
"""The metrics job."""

FORECAST_USE = (
    TableUse(pools, ("pool_id", "is_active", "chain", "protocol")),
    TableUse(
        pool_daily_metrics,
        reads=(
            *_DAY,
            *("actual_apy", "actual_tvl", "eth_open", "btc_open", "gas_price_gwei", "pool_group"),
            *FORECAST_COLUMNS,
        ),
        inserts=(*_DAY, *FORECAST_COLUMNS),
        updates=FORECAST_COLUMNS,
    ),
)
"""The forecast job."""

JOBS_USE = (*METRICS_USE, *FORECAST_USE)

_POOLS_WRITTEN = TableUse(pools, _POOL, inserts=_POOL, updates=_POOL[1:])
_HISTORY_WRITTEN = TableUse(
    raw_pool_history, _RAW_ROW, inserts=("pool_id", "timestamp", "raw_json_data")
)
_PRICES_WRITTEN = TableUse(
    raw_prices,
    (*_PRICE, "insertion_timestamp"),
    inserts=_PRICE,
    updates=("raw_json_data", "insertion_timestamp"),
)
_GAS_WRITTEN = TableUse(gas_fees_daily, _GAS, inserts=_GAS, updates=_GAS[1:])

LOAD_USE = {
    "history": (_POOLS_WRITTEN, _HISTORY_WRITTEN),
    "prices": (_PRICES_WRITTEN,),
    "gas": (_GAS_WRITTEN,),
    "pools": (_POOLS_WRITTEN,),
}
"""`load`, by the kind of a file."""

INGEST_USE = (_POOLS_WRITTEN, _HISTORY_WRITTEN, _PRICES_WRITTEN)
"""`ingest`."""

REPLAY_USE = (TableUse(pools, ("pool_id",)), _HISTORY_WRITTEN)
"""`quarantine replay`."""
