"""Builds the statement that joins two metrics tables, and the one that lists what no rule explains.

Each pair of rows gets a signature, two characters for each column (`Kind` and the letter of a
rule). Grouped by it, millions of rows are a few hundred counts. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from data_processing.checks.row_checks import EARLIEST_DAY
from data_processing.comparison.rules import (
    Precision,
    Rule,
    column_rules,
    our_row_rules,
    their_row_rules,
)
from data_processing.metrics.rolling_metrics import WINDOW_DAYS
from data_processing.raw.history import TABLE, midnight
from data_processing.raw.market_series import SERIES, SYMBOLS
from data_processing.raw.quarantine_table import QUARANTINE, RAW_ROW
from database.schema.merge_sql import qualified, quoted
from database.schema.own_tables import market_series, pool_coverage, value_staleness
from database.schema.owner_tables import pools, raw_prices

NO_RULE = "?"

OURS_ALONE, THEIRS_ALONE = "<", ">"
"""First character in the signature of a row that one table alone has; a rule's letter follows."""


class Kind(StrEnum):
    """How two values of a column compare."""

    equal = "="
    both_null = "0"
    different = "d"
    only_ours = "m"
    only_theirs = "t"


@dataclass(frozen=True)
class Sides:
    """The two tables.

    Attributes:
        metrics_table: quoted name of our table.
        other_table: quoted name of the other table.
        precisions: precision of each column to compare, in order.
    """

    metrics_table: str
    other_table: str
    precisions: Mapping[str, Precision]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to compare."""
        return tuple(self.precisions)


def counts_by_signature(sides: Sides) -> str:
    """Return a SELECT of signature and rows.

    Parameters: pools (text[] or NULL), first and end (days or NULL), run_end.

    Args:
        sides: the two tables.
    """
    return f"""
    {_joined(sides)}
    SELECT {_signature(sides)} AS signature, count(*) AS rows
    FROM joined AS d
    WHERE {_IN_INTERVAL}
    GROUP BY 1"""


def unexplained_rows(sides: Sides) -> str:
    """Return a SELECT of the rows that no rule explains, by day and pool.

    Columns: pool_id, date, signature and both values of each column. Parameters: those of
    `counts_by_signature`, and limit.

    Args:
        sides: the two tables.
    """
    values = ", ".join(f"m_{name}, t_{name}" for name in sides.columns)
    # dates as text: PostgreSQL's have years that Python does not have
    return f"""
    {_joined(sides)}
    SELECT pool_id, to_jsonb(date) #>> '{{}}' AS date, signature, {values}
    FROM (
        SELECT pool_id, date, {_signature(sides)} AS signature, {values}
        FROM joined AS d
        WHERE {_IN_INTERVAL}
    ) AS rows
    WHERE strpos(signature, '{NO_RULE}') > 0
    ORDER BY rows.date, pool_id
    LIMIT :limit"""


_IN_INTERVAL = """(CAST(:first AS date) IS NULL OR date >= CAST(:first AS date))
        AND (CAST(:end AS date) IS NULL OR date < CAST(:end AS date))"""


def _signature(sides: Sides) -> str:
    both = " || ".join(_code(name, sides) for name in sides.columns) or "''"
    return f"""
    CASE
        WHEN in_ours AND in_theirs THEN {both}
        WHEN in_ours THEN '{OURS_ALONE}' || {_first(our_row_rules())}
        ELSE '{THEIRS_ALONE}' || {_first(their_row_rules(sides.metrics_table, sides.precisions))}
    END"""


def _code(name: str, sides: Sides) -> str:
    value, other, precision = f"m_{name}", f"t_{name}", sides.precisions[name]
    rule, slack = _first(column_rules(name, sides.metrics_table, precision)), precision.slack
    return f"""
        CASE
            WHEN abs({value} - {other}) <= {slack} THEN '{Kind.equal}{Kind.equal}'
            WHEN {value} IS NULL AND {other} IS NULL THEN '{Kind.both_null}{Kind.both_null}'
            WHEN {other} IS NULL THEN '{Kind.only_ours}' || {rule}
            WHEN {value} IS NULL THEN '{Kind.only_theirs}' || {rule}
            ELSE '{Kind.different}' || {rule}
        END"""


def _first(rules: Sequence[Rule]) -> str:
    whens = " ".join(f"WHEN {rule.condition} THEN '{rule.letter}'" for rule in rules)
    return f"CASE {whens} ELSE '{NO_RULE}' END"


def _joined(sides: Sides) -> str:
    values = ", ".join(f"m.m_{name}, t.t_{name}" for name in sides.columns)
    # the rules of whole rows look at it in any case
    if "actual_apy" not in sides.columns:
        values += ", t.t_actual_apy"
    derived = ", ".join(f"t.derived_{name}" for name in _windows(sides.columns))
    market = ", ".join(
        f"s.{name} AS {name}_known" + (f", {name}_has_row, {name}_of_last_row" * (name in _OPENS))
        for name in SERIES
    )
    # MATERIALIZED: several joins read these, and each is one pass over a table
    return f"""
    WITH {_ours(sides)},
    {_theirs(sides)},
    {_market()},
    raw_days AS MATERIALIZED (
        SELECT pool_id::text AS pool_id, (timestamp AT TIME ZONE 'UTC')::date AS date,
            count(*) > 1 AS several
        FROM {TABLE}
        WHERE isfinite(timestamp)
            AND timestamp >= {midnight(EARLIEST_DAY)}
        GROUP BY 1, 2
    ),
    raw_pools AS MATERIALIZED (
        SELECT pool_id, min(date) AS first_raw_day, bool_or(several) AS several
        FROM raw_days
        GROUP BY 1
    ),
    bad_days AS (
        SELECT pool_id, (timestamp AT TIME ZONE 'UTC')::date AS date
        FROM {QUARANTINE}
        WHERE {RAW_ROW}
            AND resolution IS DISTINCT FROM 'accepted'
            AND isfinite(timestamp)
    ),
    joined AS (
        SELECT
            coalesce(m.pool_id, t.pool_id) AS pool_id,
            coalesce(m.date, t.date) AS date,
            m.pool_id IS NOT NULL AS in_ours,
            t.pool_id IS NOT NULL AS in_theirs,
            m.apy_staleness, m.tvl_staleness, m.apy_day, m.tvl_day, m.m_peak, t.t_peak,
            t.t_actual_apy_before, t.t_actual_tvl_before,
            c.first_day, c.last_day, p.is_active, p.pool_id IS NOT NULL AS in_pools,
            r.first_raw_day, r.several IS TRUE AS has_days_of_several_rows,
            w.pool_id IS NOT NULL AS has_raw_row,
            (coalesce(m.pool_id, t.pool_id), coalesce(m.date, t.date))
                IN (SELECT pool_id, date FROM bad_days) AS day_is_quarantined,
            {", ".join(filter(None, (market, values, derived)))}
        FROM ours AS m
        FULL JOIN theirs AS t ON t.pool_id = m.pool_id AND t.date = m.date
        LEFT JOIN {qualified(pool_coverage)} AS c ON c.pool_id = coalesce(m.pool_id, t.pool_id)
        LEFT JOIN {qualified(pools)} AS p ON p.pool_id = coalesce(m.pool_id, t.pool_id)
        LEFT JOIN raw_pools AS r ON r.pool_id = coalesce(m.pool_id, t.pool_id)
        LEFT JOIN raw_days AS w ON w.pool_id = m.pool_id AND w.date = m.date
        LEFT JOIN market AS s ON s.date = coalesce(m.date, t.date)
    )"""


_SELECTED = """(CAST(:pools AS text[]) IS NULL OR {alias}.pool_id = ANY(CAST(:pools AS text[])))
            AND (CAST(:end AS date) IS NULL OR {alias}.date < CAST(:end AS date))"""
"""Without the first day: windows and carries look back from an interval, never forward."""


def _ours(sides: Sides) -> str:
    """Return a CTE of the metrics job's own rows, which are the days of its coverage."""
    values = ", ".join(f"m.{name}::numeric AS m_{name}" for name in sides.columns)
    return f"""ours AS (
        SELECT m.pool_id::text AS pool_id, m.date,
            CASE WHEN a.pool_id IS NULL THEN 0 ELSE a.apy_staleness_days END AS apy_staleness,
            CASE WHEN a.pool_id IS NULL THEN 0 ELSE a.tvl_staleness_days END AS tvl_staleness,
            max(m.date) FILTER (WHERE m.actual_apy IS NOT NULL) OVER so_far AS apy_day,
            max(m.date) FILTER (WHERE m.actual_tvl IS NOT NULL) OVER so_far AS tvl_day,
            max(abs(m.actual_apy)) OVER so_far AS m_peak,
            {values}
        FROM {sides.metrics_table} AS m
        JOIN {qualified(pool_coverage)} AS c
            ON c.pool_id = m.pool_id AND m.date BETWEEN c.first_day AND c.last_day
        LEFT JOIN {qualified(value_staleness)} AS a
            ON a.pool_id = m.pool_id AND a.date = m.date
        WHERE {_SELECTED.format(alias="m")}
        WINDOW so_far AS (PARTITION BY m.pool_id ORDER BY m.date)
    )"""


def _theirs(sides: Sides) -> str:
    """Return CTEs of the other table's rows, and of the windows that follow from its own APY."""
    source = ", ".join(
        f"{_number(f'o.{quoted(name)}::numeric', of)} AS t_{name}"
        for name, of in sides.precisions.items()
    )
    missing = "".join(
        f", NULL::numeric AS t_{name}"
        for name in ("actual_apy", "actual_tvl")
        if name not in sides.columns
    )
    # RANGE and not ROWS, because the other table may lack days
    frames = ", ".join(
        f"w{days} AS (days RANGE BETWEEN '{days - 1} days' PRECEDING AND CURRENT ROW)"
        for days in WINDOW_DAYS
    )
    moments = ", ".join(
        f"count(apy) OVER w{days} AS n_{days}, sum(apy) OVER w{days} AS sum_{days},"
        f" sum(square) OVER w{days} AS squares_{days}"
        for days in WINDOW_DAYS
    )
    windows = ", ".join(
        f"sum_{days}::double precision / nullif(n_{days}, 0) AS rolling_{days},"
        f" CASE WHEN n_{days} > 1 THEN sqrt(greatest((n_{days} * squares_{days} - sum_{days} *"
        f" sum_{days})::double precision, 0) / (n_{days} * (n_{days} - 1))) END AS stddev_{days}"
        for days in WINDOW_DAYS
    )
    # the row before is not yesterday's if the other table lacks days
    yesterday = "CASE WHEN lag(date) OVER days = date - 1 THEN lag(apy) OVER days END"
    derived = "".join(
        f", {expression} AS derived_{name}" for name, expression in _windows(sides.columns).items()
    )
    before = ", ".join(
        f"lag(t_{name}) OVER days AS t_{name}_before" for name in ("actual_apy", "actual_tvl")
    )
    return f"""source AS (
        SELECT o.pool_id::text AS pool_id, o.date, {source}{missing}
        FROM {sides.other_table} AS o
        WHERE {_SELECTED.format(alias="o")}
    ),
    moments AS (
        SELECT source.*, {before}, {moments},
            nullif(max(abs(apy)) OVER days, 'Infinity') AS t_peak,
            apy - {yesterday} AS apy_change
        FROM (
            SELECT *, t_actual_apy AS apy, t_actual_apy * t_actual_apy AS square
            FROM source
        ) AS source
        WINDOW days AS (PARTITION BY pool_id ORDER BY date), {frames}
    ),
    windows AS (
        SELECT moments.*, {windows}
        FROM moments
    ),
    theirs AS (
        SELECT *{derived}
        FROM windows
        WINDOW days AS (PARTITION BY pool_id ORDER BY date)
    )"""


def _number(value: str, precision: Precision) -> str:
    """Return SQL: the other table's value, NULL for a NaN, as at our input."""
    number = f"nullif({value}, 'NaN')"
    if not precision.is_wide:
        return number
    # windows are computed from squares in double precision
    return f"""CASE
            WHEN {number} > 1e100 THEN 'Infinity'
            WHEN {number} < -1e100 THEN '-Infinity'
            WHEN abs({number}) < 1e-100 THEN 0
            ELSE {number}
        END"""


def _windows(columns: Sequence[str]) -> dict[str, str]:
    """Return for each window column to compare how it follows from the CTE `windows`."""
    change = "stddev_{days} - CASE WHEN lag(date) OVER days = date - 1 THEN lag(stddev_{days}) OVER"
    derived = {"apy_delta_today_yesterday": "apy_change"}
    for days in WINDOW_DAYS:
        derived |= {
            f"rolling_apy_{days}d": f"rolling_{days}",
            f"stddev_apy_{days}d": f"stddev_{days}",
            f"stddev_apy_{days}d_delta": f"({change.format(days=days)} days END)",
        }
    return {name: derived[name] for name in columns if name in derived}


_OPENS = tuple(SYMBOLS.values())


def _market() -> str:
    """Return CTEs of the series as our last run used it; for each symbol whether a day has a row,
    and the value of the last day with a row.
    """
    has_row = ", ".join(
        f"""s.date IN (
                SELECT (r.data_timestamp AT TIME ZONE 'UTC')::date
                FROM {qualified(raw_prices)} AS r
                WHERE upper(r.symbol) = '{symbol}'
            ) AS {name}_has_row"""
        for symbol, name in SYMBOLS.items()
    )
    last_day = ", ".join(
        f"max(date) FILTER (WHERE {name}_has_row) OVER (ORDER BY date) AS {name}_day"
        for name in _OPENS
    )
    last = ", ".join(f"{name}_rows.{name} AS {name}_of_last_row" for name in _OPENS)
    joins = " ".join(
        f"LEFT JOIN days AS {name}_rows ON {name}_rows.date = s.{name}_day" for name in _OPENS
    )
    return f"""days AS MATERIALIZED (
        SELECT s.*, {has_row}
        FROM {qualified(market_series)} AS s
    ),
    market AS MATERIALIZED (
        SELECT s.*, {last}
        FROM (SELECT days.*, {last_day} FROM days) AS s {joins}
    )"""
