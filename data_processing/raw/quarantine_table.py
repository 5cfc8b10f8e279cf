"""`yieldspark.quarantine` as SQL knows it: names and conditions that all who write to it share.
Strings only.
"""

from __future__ import annotations

from database.schema.merge_sql import qualified
from database.schema.tables import gas_fees_daily, quarantine, raw_pool_history, raw_prices

QUARANTINE = qualified(quarantine)
HISTORY, PRICES, GAS = (
    qualified(table) for table in (raw_pool_history, raw_prices, gas_fees_daily)
)

RAW_ROW = f"source_table = '{HISTORY}' AND source_id ~ '^-?[0-9]{{1,19}}$'"
"""Condition for a row that came into the raw table, known by the identity of its snapshot; what
`load` and `ingest` refused never came so far.
"""

REOPEN = (
    "resolution = NULL, resolved_at = NULL, resolved_by_run = NULL, resolved_by = NULL,"
    " replayed_row_id = NULL, note = NULL"
)
"""What an UPDATE sets for a row that is bad again, or that another one has replaced."""

ACCEPT = "resolution = 'accepted', resolved_at = now(), resolved_by_run = :run_id"
"""What an UPDATE sets for a row that is in use by now; parameter run_id."""
