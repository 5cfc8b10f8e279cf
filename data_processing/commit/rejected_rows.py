"""Rows that must not be used, kept with run, reason and their raw JSON; the rest of their pool goes
on.

In: staged rows with a reason, and the market tables. Out: rows of `yieldspark.quarantine`, one for
each source row and reason, however often it is met.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.raw.history import HIGHEST, LOWEST, TABLE
from data_processing.raw.market_series import judged_gas, judged_prices
from data_processing.raw.observed_days import snapshot_identity
from data_processing.raw.quarantine_table import ACCEPT, GAS, PRICES, QUARANTINE, RAW_ROW, REOPEN
from database.schema.merge_sql import MergeTarget
from database.schema.tables import quarantine

MERGE = MergeTarget(
    quarantine,
    key={"source_table": "source_table", "source_id": "snapshot", "reason": "reason"},
    columns={"pool_id": "pool_id"},
    provenance={"run_id": "run_id", "timestamp": "timestamp"},
    rows="reason IS NOT NULL",
)
"""What the first run that met a row said stays: a later one finds nothing changed."""


def add_raw_json(connection: Connection) -> None:
    """Copy JSON and exact timestamp from the raw table to what is in quarantine without: they never
    pass through Spark. A row that was deleted since the run read it has none until it comes again.
    """
    connection.exec_driver_sql(
        f"UPDATE {QUARANTINE} AS q SET timestamp = h.timestamp, raw_json_data = h.raw_json_data"
        f" FROM {TABLE} AS h WHERE {RAW_ROW} AND q.raw_json_data IS NULL AND h.pool_id = q.pool_id"
        f" AND (h.timestamp = q.timestamp OR q.timestamp IS NULL OR q.timestamp <= '{LOWEST}' OR"
        f" q.timestamp >= '{HIGHEST}') AND {snapshot_identity('h')}::text = q.source_id"
    )


def quarantine_market_rows(
    connection: Connection, settings: Settings, run_id: str, now: datetime
) -> None:
    """Put prices (source id `SYMBOL|timestamp`) and gas (source id: the day) that are bad at the
    moment `now` (UTC) into quarantine. What lacks a part of its key is known by its content too.

    Those that are good by now count as accepted.
    """
    content = "md5(coalesce(j.raw_json_data::text, ''))"
    prices = (
        f"SELECT DISTINCT '{PRICES}', coalesce(j.symbol || '|' || j.data_timestamp,"
        f" concat_ws('|', j.symbol, j.data_timestamp, {content})), j.data_timestamp, j.reason,"
        f" j.raw_json_data FROM ({judged_prices(settings, now)}) AS j WHERE j.reason IS NOT NULL"
    )
    # a date reaches further than a timestamp
    midnight = (
        f"CASE WHEN j.date IS NOT NULL THEN least(greatest(j.date, '{LOWEST}'),"
        f" '{HIGHEST}')::timestamp AT TIME ZONE 'UTC' END"
    )
    gas = (
        f"SELECT DISTINCT '{GAS}', coalesce(j.date::text, 'no day|' || j.gas), {midnight},"
        " j.reason, to_jsonb(j.gas) FROM"
        f" ({judged_gas(settings, now)}) AS j WHERE j.reason IS NOT NULL"
    )
    insert = (
        f"INSERT INTO {QUARANTINE} AS q (run_id, source_table, source_id, timestamp, reason,"
        " raw_json_data) SELECT :run_id, bad.* FROM ({rows}) AS bad ON CONFLICT (source_table,"
        f" source_id, reason) DO UPDATE SET {REOPEN} WHERE q.resolution = 'accepted'"
    )
    for rows in (prices, gas):
        connection.execute(text(insert.replace("{rows}", rows)), {"run_id": run_id})
    good = (
        f"SELECT '{PRICES}' AS source_table, symbol || '|' || data_timestamp AS source_id FROM"
        f" ({judged_prices(settings, now)}) AS p WHERE reason IS NULL UNION ALL SELECT '{GAS}',"
        f" date::text FROM ({judged_gas(settings, now)}) AS g WHERE reason IS NULL"
    )
    accepted = (
        f"UPDATE {QUARANTINE} AS q SET {ACCEPT} FROM ({good}) AS good WHERE q.source_table ="
        " good.source_table AND q.source_id = good.source_id AND q.resolution IS NULL"
    )
    connection.execute(text(accepted), {"run_id": run_id})
