"""Names and conditions of `yieldspark.quarantine` that all its writers share. Strings only."""

from __future__ import annotations

from database.schema.merge_sql import qualified
from database.schema.own_tables import quarantine
from database.schema.owner_tables import gas_fees_daily, raw_pool_history, raw_prices

QUARANTINE = qualified(quarantine)
HISTORY, PRICES, GAS = (
    qualified(table) for table in (raw_pool_history, raw_prices, gas_fees_daily)
)

RAW_ROW = f"source_table = '{HISTORY}' AND source_id ~ '^-?[0-9]{{1,19}}$'"
"""Condition for a row of the raw table, identified by its snapshot. Rows that `load` and `ingest`
refused never reached that table.
"""

REOPEN = (
    "resolution = NULL, resolved_at = NULL, resolved_by_run = NULL, resolved_by = NULL,"
    " replayed_row_id = NULL, note = NULL"
)
"""SET clause for a row that fails again, or that another row has replaced."""

ACCEPT = "resolution = 'accepted', resolved_at = now(), resolved_by_run = :run_id"
"""SET clause for a row that is in use now; parameter run_id."""
