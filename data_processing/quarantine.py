"""Rows that must not be used, kept with run, reason and their raw JSON; the rest of their pool goes on.

In: staged rows with a reason, and the market tables. Out: rows of `yieldspark.quarantine`, one for each source row and reason, however often
it is met.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.market_series import judged_gas, judged_prices
from data_processing.quarantine_table import GAS, PRICES, QUARANTINE, REOPEN
from data_processing.raw_history import TABLE
from database.merge_sql import MergeTarget
from database.tables import quarantine

MERGE = MergeTarget(
    quarantine,
    key={"source_table": "source_table", "source_id": "source_id", "reason": "reason"},
    columns={"pool_id": "pool_id"},
    provenance={"run_id": "run_id"},
    rows="reason IS NOT NULL",
)
"""What the first run that met a row said stays: a later one finds nothing changed."""


def add_raw_json(connection: Connection, run_id: str) -> None:
    """Copy timestamp and JSON from the raw table to what this run put into quarantine: they never pass through Spark."""
    connection.execute(
        text(
            f"UPDATE {QUARANTINE} AS q SET timestamp = h.timestamp, raw_json_data = h.raw_json_data FROM {TABLE} AS h "
            "WHERE q.run_id = :run_id AND q.source_table = :source AND h.id = q.source_id::bigint"
        ),
        {"run_id": run_id, "source": TABLE},
    )


def quarantine_market_rows(connection: Connection, settings: Settings, run_id: str) -> int:
    """Put bad prices (source id `SYMBOL|timestamp`) and bad gas (source id: the day) into quarantine; returns how many are new or back.

    Those that are good by now count as accepted.
    """
    prices = (
        f"SELECT '{PRICES}', j.symbol || '|' || j.data_timestamp, "
        f"j.data_timestamp, j.reason, p.raw_json_data FROM ({judged_prices(settings)}) AS j "
        f"JOIN {PRICES} AS p ON p.data_timestamp = j.data_timestamp AND p.symbol = j.symbol WHERE j.reason IS NOT NULL"
    )
    gas = (
        f"SELECT '{GAS}', j.date::text, j.date::timestamp AT TIME ZONE 'UTC', j.reason, to_jsonb(j.gas) "
        f"FROM ({judged_gas()}) AS j WHERE j.reason IS NOT NULL"
    )
    insert = (
        f"INSERT INTO {QUARANTINE} AS q (run_id, source_table, source_id, timestamp, reason, raw_json_data) "
        "SELECT :run_id, bad.* FROM ({rows}) AS bad "
        f"ON CONFLICT (source_table, source_id, reason) DO UPDATE SET {REOPEN} WHERE q.resolution = 'accepted'"
    )
    found = sum(connection.execute(text(insert.replace("{rows}", rows)), {"run_id": run_id}).rowcount for rows in (prices, gas))
    good = (
        f"SELECT '{PRICES}' AS source_table, symbol || '|' || data_timestamp AS source_id FROM ({judged_prices(settings)}) AS p "
        f"WHERE reason IS NULL UNION ALL SELECT '{GAS}', date::text FROM ({judged_gas()}) AS g WHERE reason IS NULL"
    )
    accepted = (
        f"UPDATE {QUARANTINE} AS q SET resolution = 'accepted', resolved_at = now(), resolved_by_run = :run_id FROM ({good}) AS good "
        "WHERE q.source_table = good.source_table AND q.source_id = good.source_id AND q.resolution IS NULL"
    )
    connection.execute(text(accepted), {"run_id": run_id})
    return found
