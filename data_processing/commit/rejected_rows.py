"""Writes rejected rows to `yieldspark.quarantine` with their run, reason and raw JSON.

Reads staged rows with a reason and the market tables. A source row has one quarantined row for each
reason, however often a run reads it. The other rows of its pool stay in use.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from config_spark import Settings
from data_processing.raw.history import HIGHEST, LOWEST, TABLE
from data_processing.raw.market_series import validated_gas, validated_prices
from data_processing.raw.observed_days import snapshot_identity
from data_processing.raw.quarantine_table import ACCEPT, GAS, PRICES, QUARANTINE, RAW_ROW, REOPEN
from database.schema.merge_sql import MergeTarget
from database.schema.own_tables import quarantine

MERGE = MergeTarget(
    quarantine,
    key={"source_table": "source_table", "source_id": "snapshot", "reason": "reason"},
    columns={"pool_id": "pool_id"},
    provenance={"run_id": "run_id", "timestamp": "timestamp"},
    rows="reason IS NOT NULL",
)
"""The values of the first run that rejected a row stay; a later run changes nothing."""


def add_raw_json(connection: Connection) -> None:
    """Copy raw JSON and exact timestamp from the raw table to quarantined rows without them.

    They do not pass through Spark. A row that was deleted since the run read it gets them when it
    is inserted again.

    Args:
        connection: the run's transaction.
    """
    # two statements: an OR would join each of the rows to the whole history of its pool
    connection.exec_driver_sql(_raw_json("h.timestamp = q.timestamp"))
    # the timestamps of staging are clamped to LOWEST and HIGHEST
    connection.exec_driver_sql(
        _raw_json(f"""(
            q.timestamp IS NULL
            OR q.timestamp <= '{LOWEST}'
            OR q.timestamp >= '{HIGHEST}'
        )""")
    )


def _raw_json(is_same_moment: str) -> str:
    return f"""
    UPDATE {QUARANTINE} AS q
    SET timestamp = h.timestamp,
        raw_json_data = h.raw_json_data
    FROM {TABLE} AS h
    WHERE {RAW_ROW}
        AND q.raw_json_data IS NULL
        AND h.pool_id = q.pool_id
        AND {is_same_moment}
        AND {snapshot_identity("h")}::text = q.source_id"""


def quarantine_market_rows(
    connection: Connection, settings: Settings, run_id: str, now: datetime
) -> None:
    """Quarantine bad prices and gas, and accept quarantined ones that are good.

    The source id is `SYMBOL|timestamp` for a price and the day for gas. A row without a part of its
    key is identified by its content as well.

    Args:
        connection: the run's transaction.
        settings: limits and severities of the checks.
        run_id: stored as the run that rejected or accepted a row.
        now: clock of the run, UTC.
    """
    rejected = (_rejected_prices(settings, now), _rejected_gas(settings, now))
    for rows in rejected:
        connection.execute(text(_insert(rows)), {"run_id": run_id})
    # MATERIALIZED, and the condition on source_table: the run has just written the rejected raw
    # rows, which PostgreSQL has no statistics of. It would validate the market again for each.
    accepted = f"""
    WITH good AS MATERIALIZED (
        SELECT '{PRICES}' AS source_table, symbol || '|' || data_timestamp AS source_id
        FROM ({validated_prices(settings, now)}) AS p
        WHERE reason IS NULL
        UNION ALL
        SELECT '{GAS}', date::text
        FROM ({validated_gas(settings, now)}) AS g
        WHERE reason IS NULL
    )
    UPDATE {QUARANTINE} AS q
    SET {ACCEPT}
    FROM good
    WHERE q.source_table IN ('{PRICES}', '{GAS}')
        AND q.source_table = good.source_table
        AND q.source_id = good.source_id
        AND q.resolution IS NULL"""
    connection.execute(text(accepted), {"run_id": run_id})


def _insert(rows: str) -> str:
    # only an accepted row is opened again: decisions of people stay
    return f"""
    INSERT INTO {QUARANTINE} AS q
        (run_id, source_table, source_id, timestamp, reason, raw_json_data)
    SELECT :run_id, bad.*
    FROM ({rows}) AS bad
    ON CONFLICT (source_table, source_id, reason) DO UPDATE
    SET {REOPEN}
    WHERE q.resolution = 'accepted'"""


def _rejected_prices(settings: Settings, now: datetime) -> str:
    content = "md5(coalesce(j.raw_json_data::text, ''))"
    return f"""
        SELECT DISTINCT '{PRICES}',
            coalesce(
                j.symbol || '|' || j.data_timestamp,
                concat_ws('|', j.symbol, j.data_timestamp, {content})
            ),
            j.data_timestamp,
            j.reason,
            j.raw_json_data
        FROM ({validated_prices(settings, now)}) AS j
        WHERE j.reason IS NOT NULL"""


def _rejected_gas(settings: Settings, now: datetime) -> str:
    # a date has a wider range than a timestamp
    clamped = f"least(greatest(j.date, '{LOWEST}'), '{HIGHEST}')"
    return f"""
        SELECT DISTINCT '{GAS}',
            coalesce(j.date::text, 'no day|' || j.gas),
            CASE WHEN j.date IS NOT NULL THEN {clamped}::timestamp AT TIME ZONE 'UTC' END,
            j.reason,
            to_jsonb(j.gas)
        FROM ({validated_gas(settings, now)}) AS j
        WHERE j.reason IS NOT NULL"""
