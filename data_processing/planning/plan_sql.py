"""Builds the SQL of a plan: why pools must be recomputed, and the table of those pools.

Each function runs in the caller's transaction. Days are UTC dates, intervals half-open. Decides
nothing, and does not read or write rows of metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from sqlalchemy import Connection, select, text

from common.errors import ConfigurationError
from data_processing.checks.row_checks import EARLIEST_DAY, RowCheck
from data_processing.planning.changed_pools import CHANGED_POOLS
from data_processing.planning.last_run import LastRun, read_clock
from data_processing.planning.run_request import Request
from data_processing.raw.history import TABLE, exists_stored_before, select_accepted_pools_before
from data_processing.raw.market_series import MarketChange
from data_processing.raw.observed_days import OBSERVED
from data_processing.raw.pool_coverage import COVERAGE
from database.schema.merge_sql import qualified
from database.schema.own_tables import GOOD, run_ledger
from database.schema.owner_tables import pools

POOLS = qualified(pools)

REASONS, RANGES = "reasons", "planned_ranges"
"""Temporary tables of the plan's transaction."""

INTERVAL_COLUMNS = "pool_id, known_from, open_end, write_from, write_end"
"""The columns of the plan's table that the daily grid needs."""


def coverage_end(connection: Connection, previous: LastRun | None) -> date:
    """Return the day after the last one that a run has written.

    It is the last good run's end, or the end of a pool's coverage if another run went further.

    Args:
        connection: the plan's transaction.
        previous: the last good run.
    """
    newest = connection.exec_driver_sql(f"SELECT max(last_day) + 1 FROM {COVERAGE}").scalar_one()
    return max(filter(None, (newest, previous.end if previous else None)), default=EARLIEST_DAY)


# other roles' sessions show no state to a role without pg_read_all_stats
OPEN_SINCE = text("""
    SELECT least(:asked_at, min(began)) AS watermark, bool_or(hidden) AS hidden
    FROM (
        SELECT xact_start AS began, state IS NULL AND usename <> current_user AS hidden
        FROM pg_stat_activity
        WHERE datname = current_database()
            AND coalesce(backend_type, 'client backend') = 'client backend'
            AND pid <> pg_backend_pid()
        UNION ALL
        SELECT prepared - interval '1 day', false
        FROM pg_prepared_xacts
        WHERE database = current_database()
        UNION ALL
        SELECT NULL, false
    ) AS transactions
""")
"""Only the end of its work is known of a prepared transaction: it is assumed to have begun a day
earlier.
"""


def read_watermark(connection: Connection) -> tuple[datetime, bool]:
    """Return the start of the oldest open transaction of this database, or now.

    `insertion_timestamp` is the start of the inserting transaction. A row that a later snapshot
    does not see was inserted at the watermark or after it, so call this before that snapshot is
    taken.

    Args:
        connection: a connection of its own, outside the plan's snapshot.

    Returns:
        The watermark, and whether other sessions hide their transactions from this role.
    """
    asked_at = read_clock(connection)
    # a transaction reports its start a moment after it took it
    connection.execute(text("SELECT pg_sleep(0.02)"))
    row = connection.execute(OPEN_SINCE, {"asked_at": asked_at}).one()
    return row.watermark, bool(row.hidden)


def require_same_schema(connection: Connection, job: str, schema: str) -> None:
    """Require that the last good run used the same schema.

    Args:
        connection: reads the run ledger.
        job: name of the job.
        schema: value of DB_SCHEMA.

    Raises:
        ConfigurationError: the last good run used another schema; ledger, coverage and quarantine
            describe the tables there.
    """
    ledger = run_ledger.c
    used = ledger.plan["schema"].astext
    newest = (
        select(used)
        .where(ledger.job == job, ledger.status.in_(GOOD), used.is_not(None))
        .order_by(ledger.started_at.desc())
        .limit(1)
    )
    before = connection.execute(newest).scalar()
    if before not in (None, schema):
        raise ConfigurationError(
            f"DB_SCHEMA={schema}: the last good run of this database had DB_SCHEMA={before}, and"
            f" what YieldSpark keeps in `{run_ledger.schema}` is about those tables. Give"
            f" DB_SCHEMA={before}, or a database of its own for {schema}; docs/metrics.md says what"
            " to do after a rename"
        )


def require_known_pools(connection: Connection, pools: Sequence[str]) -> None:
    """Require that each pool has raw rows or metrics.

    Args:
        connection: reads raw history, coverage and stored days.
        pools: pool ids of the request.

    Raises:
        ConfigurationError: pools are unknown; the message names the first of them.
    """
    unknown = connection.execute(
        text(f"""
        SELECT pool_id
        FROM unnest(CAST(:pools AS text[])) AS requested (pool_id)
        WHERE NOT EXISTS (SELECT FROM {TABLE} AS h WHERE h.pool_id = requested.pool_id)
            AND NOT EXISTS (SELECT FROM {COVERAGE} AS c WHERE c.pool_id = requested.pool_id)
            AND NOT EXISTS (SELECT FROM {OBSERVED} AS s WHERE s.pool_id = requested.pool_id)"""),
        {"pools": list(pools)},
    ).scalars()
    if missing := unknown.all():
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConfigurationError(
            f"--pools: no raw rows of {', '.join(missing[:5])}{more}; give ids that {TABLE} has,"
            " with commas between them or a file with one a line"
        )


CORRECTION = "late correction"

FULL_REFRESH_REASONS = f"""
    SELECT coalesce(t.pool_id, c.pool_id) AS pool_id, 'full refresh' AS reason,
        CASE
            WHEN CAST(:retire AS boolean) THEN least(t.first_day, c.first_day)
            ELSE t.first_day
        END AS write_from,
        greatest(CAST(:end AS date), c.last_day + 1) AS write_to
    FROM {CHANGED_POOLS} AS t
    FULL JOIN coverage AS c ON c.pool_id = t.pool_id
    WHERE t.pool_id IS NOT NULL
        OR CAST(:retire AS boolean)
"""
"""Reasons of a full refresh: the days of raw history and stored days. A run that removes missing
days adds the days of coverage that have neither.
"""

BACKFILL_REASONS = f"""
    SELECT pool_id, 'backfill' AS reason,
        greatest(first_day, CAST(:start AS date)) AS write_from,
        CAST(:end AS date) AS write_to
    FROM {CHANGED_POOLS}
    UNION ALL
    SELECT pool_id, 'days missing before the interval', last_day + 1, CAST(:end AS date)
    FROM coverage
    WHERE last_day + 1 < CAST(:start AS date)
    UNION ALL
    SELECT c.pool_id, 'days missing after the interval',
        greatest(t.first_day, CAST(:start AS date)), c.first_day
    FROM {CHANGED_POOLS} AS t
    JOIN coverage AS c ON c.pool_id = t.pool_id
    WHERE t.first_day < CAST(:end AS date)
        AND c.first_day > CAST(:end AS date)
    UNION ALL
    SELECT pool_id, 'no longer active',
        greatest(last_observed_day + 1, CAST(:start AS date)), last_day + 1
    FROM coverage
    WHERE NOT alive
        AND last_observed_day + 1 < CAST(:end AS date)
        AND last_day >= CAST(:end AS date)
    UNION ALL
    SELECT c.pool_id, 'no raw rows any more', c.first_day, least(t.first_day, CAST(:end AS date))
    FROM coverage AS c
    LEFT JOIN {CHANGED_POOLS} AS t ON t.pool_id = c.pool_id
    WHERE CAST(:retire AS boolean)
        AND c.first_day < CAST(:end AS date)
        AND least(c.last_day + 1, t.first_day) > greatest(c.first_day, CAST(:start AS date))
"""
"""Reasons of a backfill. All parts but the first keep the coverage of a pool free of holes, because
the next incremental run derives from the last day what is missing.

An interval before a pool's first day is extended to it. All days of an inactive pool after its last
observation are removed if the interval has some of them; likewise the days before a pool's first
raw row.
"""

INCREMENTAL_REASONS = f"""
    SELECT t.pool_id, 'new pool' AS reason,
        t.first_day AS write_from,
        CAST(:end AS date) AS write_to
    FROM {CHANGED_POOLS} AS t
    LEFT JOIN coverage AS c ON c.pool_id = t.pool_id
    WHERE c.pool_id IS NULL
    UNION ALL
    SELECT t.pool_id, '{CORRECTION}', t.first_day,
        least(greatest(t.newest_day + CAST(:reach AS integer), c.first_day), CAST(:end AS date))
    FROM {CHANGED_POOLS} AS t
    JOIN coverage AS c ON c.pool_id = t.pool_id
    WHERE t.first_day <= c.last_day
    UNION ALL
    SELECT t.pool_id, 'new raw rows', c.last_day + 1, CAST(:end AS date)
    FROM {CHANGED_POOLS} AS t
    JOIN coverage AS c ON c.pool_id = t.pool_id
    WHERE t.newest_day > c.last_day
    UNION ALL
    SELECT pool_id, 'new days', last_day + 1, CAST(:end AS date)
    FROM coverage
    WHERE alive
    UNION ALL
    SELECT pool_id, CAST(:market_reason AS text), CAST(:market_from AS date),
        least(last_day + 1, CAST(:end AS date))
    FROM coverage
    WHERE last_day >= CAST(:market_from AS date)
    UNION ALL
    SELECT pool_id, 'no longer active', last_observed_day + 1, last_day + 1
    FROM coverage
    WHERE NOT alive
        AND last_day > last_observed_day
"""
"""Reasons of an incremental run, with the first day to recompute and the end.

A new snapshot also fills the days since the previous one. A snapshot of a known day changes no day
beyond its reach; one before a pool's first day also changes the days in between. Coverage
beyond the last observation belongs to a pool that became inactive.
"""

_SELECTS: dict[str, str] = {
    "incremental": INCREMENTAL_REASONS,
    "backfill": BACKFILL_REASONS,
    "full_refresh": FULL_REFRESH_REASONS,
}


def create_reasons(
    connection: Connection,
    request: Request,
    mode: str,
    *,
    end: date,
    market: MarketChange | None,
    reach: int,
) -> None:
    """Create the temporary table `reasons`: pool_id, reason, write_from, write_to.

    It has a row for each reason of a pool.

    Args:
        connection: the plan's transaction, with the table CHANGED_POOLS.
        request: days and pools; None of pools means all.
        mode: mode of the run.
        end: end of the run or the backfill, exclusive.
        market: first change of the market series, or None.
        reach: days that a correction can change.
    """
    # IS NOT FALSE: a pool that `pools` lacks counts as active
    connection.execute(
        text(
            f"""
    CREATE TEMPORARY TABLE {REASONS} ON COMMIT DROP AS
    WITH coverage AS (
        SELECT c.*, p.is_active IS NOT FALSE AS alive
        FROM {COVERAGE} AS c
        LEFT JOIN {POOLS} AS p ON p.pool_id = c.pool_id
    )
    SELECT *
    FROM ({_SELECTS[mode]}) AS candidates
    WHERE write_from < write_to
        AND (
            CAST(:pools AS text[]) IS NULL
            OR pool_id = ANY(CAST(:pools AS text[]))
        )"""
        ),
        {
            "start": request.start,
            "end": end,
            "market_from": market.date if market else None,
            "market_reason": market.reason if market else None,
            "reach": reach,
            "pools": list(request.pools) if request.pools is not None else None,
            "retire": request.retire_missing,
        },
    )


def create_plan_table(
    connection: Connection, table: str, *, run_end: date, look_back: int, checks: Sequence[RowCheck]
) -> None:
    """Create the plan's table from `reasons`, one row for each pool.

    Columns: pool_id, reasons, alive, write_from, write_end, read_from and read_end (midnights,
    UTC), known_from, open_end. known_from is set for a pool that has an accepted snapshot before
    read_from, stored or in raw history: its daily grid starts before the rows that are read.

    Args:
        connection: the plan's transaction.
        table: qualified name of the new table.
        run_end: end of the run, exclusive. Days to write beyond it are removed.
        look_back: days before the first day to write that must be read.
        checks: row checks of this run.
    """
    # an inactive pool is read up to the run's end: its last snapshot ends its daily grid
    connection.execute(
        text(f"""
    CREATE TEMPORARY TABLE {RANGES} ON COMMIT DROP AS
    WITH starts AS (
        SELECT pool_id,
            min(write_from) AS write_from,
            max(write_to) AS write_end,
            array_agg(DISTINCT reason ORDER BY reason) AS reasons
        FROM {REASONS}
        GROUP BY pool_id
    ),
    ranges AS (
        SELECT starts.*,
            p.is_active IS NOT FALSE AS alive,
            greatest(write_from - CAST(:look_back AS integer), CAST(:earliest AS date)) AS read_day
        FROM starts
        LEFT JOIN {POOLS} AS p ON p.pool_id = starts.pool_id
    )
    SELECT ranges.*,
        read_day::timestamp AT TIME ZONE 'UTC' AS read_from,
        CASE WHEN alive THEN least(write_end, CAST(:run_end AS date)) END AS open_end,
        EXISTS ({exists_stored_before("ranges.read_day", "ranges.pool_id", checks)}) AS is_known
    FROM ranges"""),
        {"run_end": run_end, "look_back": look_back, "earliest": EARLIEST_DAY},
    )
    # autovacuum never sees temporary tables, so they have no statistics of their own
    connection.exec_driver_sql(f"ANALYZE {RANGES}")
    unknown = f"(SELECT pool_id, read_from FROM {RANGES} WHERE NOT is_known)"
    # not temporary: Spark's tasks read it through connections of their own
    connection.exec_driver_sql(f"""
    CREATE UNLOGGED TABLE {table} AS
    SELECT r.pool_id, reasons, alive, write_from, write_end, read_from,
        coalesce(open_end, '{run_end}')::timestamp AT TIME ZONE 'UTC' AS read_end,
        CASE WHEN is_known OR earlier.pool_id IS NOT NULL THEN read_day END AS known_from,
        open_end
    FROM {RANGES} AS r
    LEFT JOIN ({select_accepted_pools_before(unknown, checks)}) AS earlier
        ON earlier.pool_id = r.pool_id""")
    # without the index, a plan that PostgreSQL takes for small is scanned once for each raw row
    connection.exec_driver_sql(f"CREATE UNIQUE INDEX ON {table} (pool_id)")
    connection.exec_driver_sql(f"ANALYZE {table}")
