"""Columns of the owner's tables that YieldSpark reads and writes, as data.

The table check, the rights of a role and the documented GRANT block depend on it. A column that is
not listed may have any type or be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Table

from database.schema.owner_tables import (
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
    """Use of a table.

    Attributes:
        table: the table.
        reads: columns that are read.
        inserts: columns of inserted rows.
        updates: columns that are updated.
        deletes: rows are deleted if no other job's column has a value, which reads all columns.
    """

    table: Table
    reads: tuple[str, ...]
    inserts: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    deletes: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, without duplicates."""
        return tuple(dict.fromkeys([*self.reads, *self.inserts, *self.updates]))

    @property
    def commands(self) -> tuple[str, ...]:
        """SELECT, and the commands that write."""
        uses = {
            "SELECT": True,
            "INSERT": bool(self.inserts),
            "UPDATE": bool(self.updates),
            "DELETE": self.deletes,
        }
        return tuple(command for command, is_used in uses.items() if is_used)

    @property
    def is_written(self) -> bool:
        """Whether the table is written."""
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
        # a row that another job has marked is kept when its day is removed
        reads=(*_DAY, "is_filtered_out", *METRIC_COLUMNS),
        inserts=(*_DAY, *METRIC_COLUMNS),
        updates=METRIC_COLUMNS,
        deletes=True,
    ),
)
"""Tables of the metrics job."""

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
"""Tables of the forecast job."""

JOBS_USE = (*METRICS_USE, *FORECAST_USE)

_POOLS_WRITTEN = TableUse(pools, _POOL, inserts=_POOL, updates=_POOL[1:])
_HISTORY_WRITTEN = TableUse(
    raw_pool_history, _RAW_ROW, inserts=("pool_id", "timestamp", "raw_json_data")
)
_PRICES_WRITTEN = TableUse(
    raw_prices,
    # a corrected close counts as new, so that the next run reads it
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
"""Tables of `load`, by kind of file."""

INGEST_USE = (_POOLS_WRITTEN, _HISTORY_WRITTEN, _PRICES_WRITTEN)
"""Tables of `ingest`."""

REPLAY_USE = (TableUse(pools, ("pool_id",)), _HISTORY_WRITTEN)
"""Tables of `quarantine replay`."""
