"""The SQL a plan is made of: why pools must be recomputed, and the table of them.

Each function runs in the caller's transaction. Days are UTC dates, intervals half-open. No decision
is taken here, and no row of a metric is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from sqlalchemy import Connection, select, text

from common.errors import ConfigurationError
from data_processing.checks.row_checks import EARLIEST_DAY, RowCheck
from data_processing.planning.changed_pools import TOUCHED
from data_processing.planning.last_run import LastRun, read_clock
from data_processing.planning.run_request import Request
from data_processing.raw.history import TABLE, pools_accepted_before, stored_before
from data_processing.raw.market_series import MarketChange
from data_processing.raw.observed_days import OBSERVED
from data_processing.raw.pool_coverage import CALENDARS
from database.schema.merge_sql import qualified
from database.schema.tables import GOOD, pools, run_ledger

POOLS = qualified(pools)

REASONS, RANGES = "reasons", "planned_ranges"
"""Temporary tables of a plan's transaction."""

CALENDAR_COLUMNS = "pool_id, known_from, open_end, write_from, write_end"
"""What `daily_grid` needs of a plan's table."""


def days_reached(connection: Connection, previous: LastRun | None) -> date:
    """The day after the last one that a run has written: the last good run's end, or a calendar's
    that another run has taken beyond it.
    """
    newest = connection.exec_driver_sql(f"SELECT max(last_day) + 1 FROM {CALENDARS}").scalar_one()
    return max(filter(None, (newest, previous.end if previous else None)), default=EARLIEST_DAY)


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


def read_watermark(connection: Connection) -> tuple[datetime, bool]:
    """The start of the oldest open transaction of this database, or now; and whether other sessions
    hide theirs from this role.

    `insertion_timestamp` is the start of the inserting transaction. Whatever a later snapshot does
    not see began at the watermark or after it, so ask before that snapshot is taken. A transaction
    reports its start a moment after it took it, hence the pause. Of a prepared one only the end of
    its work is known: it is taken to have begun a day before.
    """
    asked_at = read_clock(connection)
    connection.execute(text("SELECT pg_sleep(0.02)"))
    row = connection.execute(OPEN_SINCE, {"asked_at": asked_at}).one()
    return row.watermark, bool(row.hidden)


def require_same_schema(connection: Connection, job: str, schema: str) -> None:
    """Raises: ConfigurationError where the last good run's tables are in another schema: ledger,
    calendars and quarantine speak of those.
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
    """Raises: ConfigurationError naming pools that were asked for and that have neither raw rows
    nor metrics.
    """
    unknown = connection.execute(
        text(
            "SELECT pool_id FROM unnest(CAST(:pools AS text[])) AS asked (pool_id) "
            f"WHERE NOT EXISTS (SELECT FROM {TABLE} AS h WHERE h.pool_id = asked.pool_id) "
            f"AND NOT EXISTS (SELECT FROM {CALENDARS} AS c WHERE c.pool_id = asked.pool_id) "
            f"AND NOT EXISTS (SELECT FROM {OBSERVED} AS s WHERE s.pool_id = asked.pool_id)"
        ),
        {"pools": list(pools)},
    ).scalars()
    if missing := unknown.all():
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConfigurationError(
            f"--pools: no raw rows of {', '.join(missing[:5])}{more}; give ids that {TABLE} has,"
            " with commas between them or a file with one a line"
        )


CORRECTION = "late correction"

EVERYTHING = f"""
    SELECT coalesce(t.pool_id, c.pool_id) AS pool_id, 'full refresh' AS reason,
        CASE
            WHEN CAST(:retire AS boolean) THEN least(t.first_day, c.first_day)
            ELSE t.first_day
        END AS write_from,
        greatest(CAST(:end AS date), c.last_day + 1) AS write_to
    FROM {TOUCHED} AS t
    FULL JOIN calendars AS c ON c.pool_id = t.pool_id
    WHERE t.pool_id IS NOT NULL
        OR CAST(:retire AS boolean)
"""
"""The days of raw history and stored ones, and those of calendars that have neither: where missing
days are retired, a full run finds nothing there and takes them back.
"""

INTERVAL = f"""
    SELECT pool_id, 'backfill' AS reason,
        greatest(first_day, CAST(:start AS date)) AS write_from,
        CAST(:end AS date) AS write_to
    FROM {TOUCHED}
    UNION ALL
    SELECT pool_id, 'days missing before the interval', last_day + 1, CAST(:end AS date)
    FROM calendars
    WHERE last_day + 1 < CAST(:start AS date)
    UNION ALL
    SELECT c.pool_id, 'days missing after the interval',
        greatest(t.first_day, CAST(:start AS date)), c.first_day
    FROM {TOUCHED} AS t
    JOIN calendars AS c ON c.pool_id = t.pool_id
    WHERE t.first_day < CAST(:end AS date)
        AND c.first_day > CAST(:end AS date)
    UNION ALL
    SELECT pool_id, 'no longer active',
        greatest(last_observed_day + 1, CAST(:start AS date)), last_day + 1
    FROM calendars
    WHERE NOT alive
        AND last_observed_day + 1 < CAST(:end AS date)
        AND last_day >= CAST(:end AS date)
    UNION ALL
    SELECT c.pool_id, 'no raw rows any more', c.first_day, least(t.first_day, CAST(:end AS date))
    FROM calendars AS c
    LEFT JOIN {TOUCHED} AS t ON t.pool_id = c.pool_id
    WHERE CAST(:retire AS boolean)
        AND c.first_day < CAST(:end AS date)
        AND least(c.last_day + 1, t.first_day) > greatest(c.first_day, CAST(:start AS date))
"""
"""All parts but the first keep a calendar free of holes: its last day is how the next incremental
run knows what it lacks. An interval before a pool's first day has to reach it. Of an inactive pool
all days after its last observation go, were only some of them in the interval, and of days before a
pool's first raw row those before the interval too.
"""

CHANGES = f"""
    SELECT t.pool_id, 'new pool' AS reason,
        t.first_day AS write_from,
        CAST(:end AS date) AS write_to
    FROM {TOUCHED} AS t
    LEFT JOIN calendars AS c ON c.pool_id = t.pool_id
    WHERE c.pool_id IS NULL
    UNION ALL
    SELECT t.pool_id, '{CORRECTION}', t.first_day,
        least(greatest(t.newest_day + CAST(:reach AS integer), c.first_day), CAST(:end AS date))
    FROM {TOUCHED} AS t
    JOIN calendars AS c ON c.pool_id = t.pool_id
    WHERE t.first_day <= c.last_day
    UNION ALL
    SELECT t.pool_id, 'new raw rows', c.last_day + 1, CAST(:end AS date)
    FROM {TOUCHED} AS t
    JOIN calendars AS c ON c.pool_id = t.pool_id
    WHERE t.newest_day > c.last_day
    UNION ALL
    SELECT pool_id, 'new days', last_day + 1, CAST(:end AS date)
    FROM calendars
    WHERE alive
    UNION ALL
    SELECT pool_id, CAST(:market_reason AS text), CAST(:market_from AS date),
        least(last_day + 1, CAST(:end AS date))
    FROM calendars
    WHERE last_day >= CAST(:market_from AS date)
    UNION ALL
    SELECT pool_id, 'no longer active', last_observed_day + 1, last_day + 1
    FROM calendars
    WHERE NOT alive
        AND last_day > last_observed_day
"""
"""Why a pool must be recomputed, from which day on and up to which. A new snapshot fills the days
since the last one too; one of a known day changes no day beyond its reach, one before a pool's
first day also the days in between. A calendar that goes on after the last observation of a pool
that is not active is that of a pool that was.
"""

_SELECTS: dict[str, str] = {
    "incremental": CHANGES,
    "backfill": INTERVAL,
    "full_refresh": EVERYTHING,
}


def find_reasons(
    connection: Connection,
    request: Request,
    mode: str,
    *,
    end: date,
    market: MarketChange | None,
    reach: int,
) -> None:
    """Make the temporary table `reasons`: pool_id, reason, write_from, write_to, a row for each
    reason that a pool has. Only the pools of the request, if it names some.
    """
    connection.execute(
        text(
            f"""
    CREATE TEMPORARY TABLE {REASONS} ON COMMIT DROP AS
    WITH calendars AS (
        SELECT c.*, p.is_active IS NOT FALSE AS alive
        FROM {CALENDARS} AS c
        LEFT JOIN {POOLS} AS p ON p.pool_id = c.pool_id
    )
    SELECT *
    FROM ({_SELECTS[mode]}) AS found
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


def make_plan_table(
    connection: Connection, table: str, *, run_end: date, look_back: int, checks: Sequence[RowCheck]
) -> None:
    """Make `table` from `reasons`: pool_id, reasons, alive, write_from, write_end, read_from and
    read_end (midnights UTC), known_from, open_end.

    A pool that is not alive is read to the run's end: only its last snapshot ends its calendar.
    Days to write beyond the run's end are those of a calendar that went further; nothing is there
    any more. known_from is set for a pool that has an accepted snapshot before read_from, stored or
    in raw history: its calendar begins before what is read.
    """
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
        EXISTS ({stored_before("ranges.read_day", "ranges.pool_id", checks)}) AS is_known
    FROM ranges"""),
        {"run_end": run_end, "look_back": look_back, "earliest": EARLIEST_DAY},
    )
    connection.exec_driver_sql(f"ANALYZE {RANGES}")
    unknown = f"(SELECT pool_id, read_from FROM {RANGES} WHERE NOT is_known)"
    connection.exec_driver_sql(f"""
    CREATE UNLOGGED TABLE {table} AS
    SELECT r.pool_id, reasons, alive, write_from, write_end, read_from,
        coalesce(open_end, '{run_end}')::timestamp AT TIME ZONE 'UTC' AS read_end,
        CASE WHEN is_known OR earlier.pool_id IS NOT NULL THEN read_day END AS known_from,
        open_end
    FROM {RANGES} AS r
    LEFT JOIN ({pools_accepted_before(unknown, checks)}) AS earlier
        ON earlier.pool_id = r.pool_id""")
    # raw rows that the planner takes for few are joined by it: no pass over the plan for each
    connection.exec_driver_sql(f"CREATE UNIQUE INDEX ON {table} (pool_id)")
    connection.exec_driver_sql(f"ANALYZE {table}")
