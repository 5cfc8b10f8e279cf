"""Lists the known rules by which the metrics of the pandas job differ from ours, as data.

Conditions are SQL over the columns of `comparison_sql`: `m_<column>` is our value, `t_<column>` the
other table's, NULL without one. A condition uses YieldSpark's own tables (staleness, coverage,
market series, quarantine) and, if the rule says which value the other job takes, that value. APY
percent, TVL and prices USD, gas gwei, days UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data_processing.raw.market_series import SERIES, SYMBOLS

UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Precision:
    """Precision of a column.

    Attributes:
        scale: decimals that both tables store; below 0: zeros before the point.
        slack: difference up to which two values are equal, as an SQL literal.
        is_wide: whether the other table's type holds values beyond the square root of a double's
            range.
    """

    scale: int
    slack: str
    is_wide: bool = False


@dataclass(frozen=True)
class Rule:
    """A known difference; the first rule whose condition is true is used.

    Attributes:
        letter: represents the rule in a signature.
        name: name in the result.
        meaning: explanation for a reader.
        condition: SQL condition.
    """

    letter: str
    name: str
    meaning: str
    condition: str


QUARANTINED_DAY = "day_is_quarantined IS TRUE"

RAW_ROWS_GONE = "raw_rows_gone"

_RAW_ROWS_GONE_MEANING = (
    "raw rows are gone: each table keeps what it computed while they were there, and the other job"
    " has nothing of its own for days without them"
)


def value_rules(column: str, metrics: str, slack: str) -> tuple[Rule, ...]:
    """Return the rules of actual_apy and actual_tvl.

    Args:
        column: name of the column.
        metrics: quoted name of our table.
        slack: SQL of the difference up to which two values are equal.
    """
    target = column.removeprefix("actual_")
    staleness, t, m = f"{target}_staleness", f"t_{column}", f"m_{column}"
    last_known = f"""abs({t} - (
            SELECT k.{column}::numeric
            FROM {metrics} AS k
            WHERE k.pool_id = d.pool_id
                AND k.date = d.{target}_day
        )) <= {slack}"""
    return (
        Rule(
            "f",
            "carried_for_ever",
            "no observation for more than MAX_FILL_DAYS days: ours is null, the other job"
            " repeats the last value",
            f"{m} IS NULL AND {staleness} IS NULL AND {last_known}",
        ),
        Rule(
            "c",
            "not_carried",
            "not observed that day: ours is the value of an earlier day, the other job has none",
            f"{staleness} > 0 AND {t} IS NULL",
        ),
        Rule(
            "q",
            "quarantined_rows",
            "the other job uses a raw row of that day that is in quarantine",
            QUARANTINED_DAY,
        ),
        Rule(
            "d",
            "carried_from_a_different_value",
            "not observed that day: both carry, and the value of the day before differs",
            f"coalesce({staleness}, 1) > 0 AND abs({t} - {t}_before) <= {slack}",
        ),
        Rule(
            "g",
            RAW_ROWS_GONE,
            _RAW_ROWS_GONE_MEANING,
            f"{staleness} = 0 AND has_raw_row IS FALSE AND ({t} IS NULL OR abs({t} - {t}_before) <="
            f" {slack})",
        ),
    )


def market_rules(column: str, precision: Precision) -> tuple[Rule, ...]:
    """Return the rules of prices and gas.

    Args:
        column: a column of the market series.
        precision: precision of the column.
    """
    symbol = next((name for name, of in SYMBOLS.items() if of == column), None)
    rounded = f"round({{value}}, {precision.scale})"
    is_series_value = (
        f"{rounded.format(value=f't_{column}')} IN (SELECT {rounded.format(value=column)} FROM"
        " market)"
    )
    filled = Rule(
        "p",
        "filled_before_the_first",
        "nothing is known before that day: ours is null, the other job fills from the future or"
        " from another pool's rows",
        f"m_{column} IS NULL AND {column}_known IS NULL AND {is_series_value}",
    )
    if symbol is None:
        return (filled,)
    lagged = Rule(
        "l",
        "close_of_the_row_before",
        f"{symbol} has no close of that day: ours is the latest close before it, the other job"
        " repeats the value of the last day that has one",
        f"{column}_has_row IS NOT TRUE AND abs(t_{column} - {column}_of_last_row) <="
        f" {precision.slack}",
    )
    return (filled, lagged)


def window_rules(column: str, slack: str) -> tuple[Rule, ...]:
    """Return the rules of a column that is computed from a window of APY.

    Args:
        column: name of the column.
        slack: SQL of the difference up to which two values are equal.
    """
    derived = f"derived_{column}"
    rules = [
        Rule(
            "w",
            "window_of_other_values",
            "the other table's value follows from its own APY of the window, which differs from"
            " ours on some day",
            f"CASE WHEN {derived} IS NULL THEN t_{column} IS NULL ELSE abs({derived} -"
            f" t_{column}::double precision) <= (3 * {slack} + 1e-7 * t_peak)::double precision"
            " END",
        )
    ]
    if "stddev" in column:
        rules.append(
            Rule(
                "r",
                "running_sums",
                "pandas adds to and takes from running sums: after a spike the rounding of its"
                " square stays in later windows",
                f"abs(m_{column} - t_{column}) <= 1e-7 * m_peak",
            )
        )
    return tuple(rules)


def column_rules(column: str, metrics: str, precision: Precision) -> tuple[Rule, ...]:
    """Return the rules of a metric column; the first that is true is used.

    Args:
        column: name of the column.
        metrics: quoted name of our table.
        precision: precision of the column.
    """
    if column.startswith("actual_"):
        return value_rules(column, metrics, precision.slack)
    if column in SERIES:
        return market_rules(column, precision)
    return window_rules(column, precision.slack)


def their_row_rules(metrics: str, precisions: Mapping[str, Precision]) -> tuple[Rule, ...]:
    """Return the rules of a row that the other table alone has.

    Args:
        metrics: quoted name of our table.
        precisions: columns to compare. If raw rows are gone, only the other table's windows can
            confirm an APY.
    """
    confirmed = [
        f"({window_rules(name, precision.slack)[0].condition})"
        for name, precision in precisions.items()
        if not name.startswith("actual_") and name not in SERIES
    ]
    first = f"(SELECT k.actual_apy FROM {metrics} AS k WHERE k.pool_id = d.pool_id AND k.date ="
    return (
        Rule(
            "n",
            "day_not_over",
            "the day was not over when YieldSpark last computed: the other job computes today's"
            " partial day",
            "d.date >= CAST(:run_end AS date)",
        ),
        Rule(
            "b",
            "before_the_first_snapshot",
            "the pool has no snapshot by that day: ours has no row, the other job an empty one or"
            " the first value",
            f"d.date < first_day AND coalesce(t_actual_apy = {first} d.first_day), t_actual_apy IS"
            " NULL)",
        ),
        Rule(
            "a",
            "after_the_last_snapshot",
            "the pool is inactive: ours ends with its last snapshot, the other job carries on",
            f"is_active IS FALSE AND d.date > last_day AND coalesce(t_actual_apy = {first}"
            " d.last_day), t_actual_apy IS NULL)",
        ),
        Rule(
            "q",
            "quarantined_rows",
            "the other job uses raw rows that are in quarantine",
            QUARANTINED_DAY,
        ),
        Rule(
            "g",
            RAW_ROWS_GONE,
            _RAW_ROWS_GONE_MEANING,
            " AND ".join(
                (
                    "(first_day IS NULL OR d.date < first_day)",
                    "(first_raw_day IS NULL OR d.date < first_raw_day)",
                    *confirmed,
                )
            ),
        ),
    )


def our_row_rules() -> tuple[Rule, ...]:
    """Return the rules of a row that our table alone has."""
    return (
        Rule(
            "i",
            "inactive_pool",
            "the pool is inactive: ours keeps its days up to the last snapshot",
            "is_active IS FALSE",
        ),
        Rule(
            "s",
            "several_snapshots_a_day",
            "the pool has several snapshots on a day: ours takes the last one, the other job stops"
            " with an error",
            "has_days_of_several_rows",
        ),
        Rule(
            "k",
            "pool_not_in_pools",
            "`pools` lacks the pool: a table with a foreign key takes no row of it",
            "NOT in_pools",
        ),
        Rule(
            "g",
            RAW_ROWS_GONE,
            _RAW_ROWS_GONE_MEANING,
            "first_raw_day IS NULL OR d.date < (SELECT min(first_raw_day) FROM raw_pools)",
        ),
    )
