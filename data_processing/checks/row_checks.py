"""Defines the row checks as data: a name, which is the reason in quarantine, and an SQL condition
that is true for a bad row.

Conditions are in the SQL that Spark and PostgreSQL share, over a text column and its number
`<column>_value`: Spark validates the rows that a run reads, PostgreSQL those that a plan counts.
APY percent, TVL and prices USD, gas gwei; timestamps UTC. Does not read or write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, cast

from config_spark import Settings
from data_processing.checks.catalogue import CATALOGUE, changed_severities, severity_of
from database.ledger.check_result import Severity

EARLIEST_DAY = date(2018, 1, 1)
"""No DeFi pool is older: an earlier timestamp is a unit or parsing error of the source."""

EARLIEST_MARKET_DAY = date(2009, 1, 1)
"""No coin is older."""

BEFORE_MARKETS = f"timestamp_before_{EARLIEST_MARKET_DAY:%Y}"

IN_FUTURE = "timestamp_in_future"
"""Reason of a row that becomes valid as time passes."""

MAX_GAS_GWEI = 1e6
"""A thousand times the highest daily average on record."""

TIMESTAMP_MISSING = "timestamp_missing"

NOT_IN_POOLS = "pool_not_in_pools"
"""Reason of a row that becomes valid when its pool is in `pools`."""

NO_BRANCH = "WHEN false THEN ''"
"""A CASE needs at least one branch."""

NUMBER = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?"
"""A decimal number. No backslash, which Spark unescapes."""

END_IN_SPARK, END_IN_POSTGRESQL = "(?![^~]|~)", "$"
"""Nothing after the number. In Java, `$` lets a line feed pass; PostgreSQL needs four times as long
for the other one.
"""

MAX_NUMBER_LENGTH = 1000
"""Longest text, in characters, that is read as a number: PostgreSQL rejects the whole query beyond
131,072 digits.
"""


ROUNDED_TO_INFINITY = str(2**1024 - 2**970)
"""Smallest number that is rounded to infinity as a double; a PostgreSQL numeric."""

ROUNDED_TO_ZERO = f"{Decimal(5**1075)}e-1075"
"""Largest number that is rounded to zero as a double, 2^-1075; a PostgreSQL numeric. Not as an int:
PYTHONINTMAXSTRDIGITS may limit its text to 640 digits.
"""


@dataclass(frozen=True)
class RowCheck:
    """A check with its condition and severity.

    Attributes:
        name: reason of a rejected row.
        condition: SQL that is true for a bad row.
        severity: fail or warn.
    """

    name: str
    condition: str
    severity: Severity


Condition = tuple[str, str]
"""Name of a check and its condition; the catalogue has its severity."""


def raw_row_checks(settings: Settings, now: datetime) -> tuple[RowCheck, ...]:
    """Return the checks of a raw pool row, in order; the first that fails names the reason.

    Columns: apy, tvl, apy_value, tvl_value, timestamp, not_in_pools, dropped, replaced. A row with
    one of APY and TVL is good; the missing one is NULL.

    Args:
        settings: limits and severities.
        now: clock of the run, UTC; a later timestamp is an error of the source.

    Raises:
        ConfigurationError: CHECK_SEVERITIES is wrong.
    """
    return _with_severities(
        settings,
        (TIMESTAMP_MISSING, "timestamp IS NULL"),
        # literals without a zone: both dialects have them, and all sessions are in UTC
        ("timestamp_before_2018", f"timestamp < TIMESTAMP '{EARLIEST_DAY} 00:00:00'"),
        (IN_FUTURE, f"timestamp > TIMESTAMP '{now:%Y-%m-%d %H:%M:%S.%f}'"),
        ("apy_and_tvl_missing", "apy IS NULL AND tvl IS NULL"),
        *_number_checks("apy"),
        *_number_checks("tvl"),
        # !r writes every digit of the limit
        ("apy_beyond_limit", f"abs(apy_value) > {settings.max_apy_percent!r}"),
        ("tvl_negative", "tvl_value < 0"),
        ("tvl_beyond_limit", f"tvl_value > {settings.max_tvl_usd!r}"),
        # only reached if CHECK_SEVERITIES lets texts pass that are no numbers
        ("apy_and_tvl_unusable", "apy_value IS NULL AND tvl_value IS NULL"),
        # last: a row with a bad value keeps that reason
        (NOT_IN_POOLS, "not_in_pools"),
        ("row_dropped", "dropped"),
        ("row_replaced", "replaced"),
    )


def changed_row_severities(settings: Settings) -> dict[str, Any]:
    """Return the entries of CHECK_SEVERITIES that decide which raw rows are used, by name."""
    return {
        name: severity
        for name, severity in changed_severities(settings).items()
        if CATALOGUE[name].level == "row"
    }


def price_checks(settings: Settings, now: datetime) -> tuple[RowCheck, ...]:
    """Return the checks of a daily close: close, close_value, data_timestamp, symbol.

    Args:
        settings: limits and severities.
        now: clock of the run, UTC.
    """
    return _with_severities(
        settings,
        (TIMESTAMP_MISSING, "data_timestamp IS NULL"),
        ("symbol_missing", "symbol IS NULL"),
        (BEFORE_MARKETS, f"data_timestamp < TIMESTAMP '{EARLIEST_MARKET_DAY} 00:00:00'"),
        (IN_FUTURE, f"data_timestamp > TIMESTAMP '{now:%Y-%m-%d %H:%M:%S.%f}'"),
        # a price row has no other value, so a missing close is bad
        ("price_missing", "close IS NULL"),
        *_number_checks("close", name="price"),
        ("price_not_positive", "close_value <= 0"),
        ("price_beyond_limit", f"close_value > {settings.max_price_usd!r}"),
    )


def gas_checks(settings: Settings, now: datetime) -> tuple[RowCheck, ...]:
    """Return the checks of a day's gas: gas, gas_value, date.

    Args:
        settings: limits and severities.
        now: clock of the run, UTC.
    """
    # a row without gas is good: days to come have a forecast only
    return _with_severities(
        settings,
        (TIMESTAMP_MISSING, "gas IS NOT NULL AND date IS NULL"),
        (BEFORE_MARKETS, f"gas IS NOT NULL AND date < DATE '{EARLIEST_MARKET_DAY}'"),
        (IN_FUTURE, f"gas IS NOT NULL AND date > DATE '{now:%Y-%m-%d}'"),
        *_number_checks("gas"),
        ("gas_negative", "gas_value < 0"),
        ("gas_beyond_limit", f"gas_value > {MAX_GAS_GWEI!r}"),
    )


def _number_checks(column: str, name: str | None = None) -> tuple[Condition, ...]:
    infinite = (
        f"{ascii_lower(column)} IN ('infinity', '+infinity', '-infinity', 'inf', '+inf', '-inf')"
    )
    return (
        (f"{name or column}_infinite", infinite),
        (f"{name or column}_not_a_number", f"{column} IS NOT NULL AND {column}_value IS NULL"),
    )


def _with_severities(settings: Settings, *conditions: Condition) -> tuple[RowCheck, ...]:
    """Return the checks in their order, without those that are switched off."""
    severities = [severity_of(name, settings) for name, _ in conditions]
    return tuple(
        RowCheck(name, condition, cast(Severity, severity))
        for (name, condition), severity in zip(conditions, severities, strict=True)
        if severity != "off"
    )


def reason_sql(checks: Sequence[RowCheck]) -> str:
    """Return an SQL expression: the first failing `fail` check, NULL for a good row."""
    return _first_failing([check for check in checks if check.severity == "fail"])


def warning_sql(checks: Sequence[RowCheck]) -> str:
    """Return an SQL expression: the first failing `warn` check, NULL without one."""
    return _first_failing([check for check in checks if check.severity == "warn"])


def _first_failing(checks: Sequence[RowCheck]) -> str:
    branches = " ".join(f"WHEN {check.condition} THEN {check.name!r}" for check in checks)
    return f"CASE {branches or NO_BRANCH} END"


def is_number(column: str, matches: str, end: str) -> str:
    """Return an SQL condition: the text column is a NUMBER.

    Args:
        column: name of the text column.
        matches: the dialect's operator for regular expressions, RLIKE or ~.
        end: the dialect's pattern for the end of a text.
    """
    return f"length({column}) <= {MAX_NUMBER_LENGTH} AND {column} {matches} '{NUMBER}{end}'"


def spark_number(column: str) -> str:
    """Return Spark SQL: the text column as a double, NULL if it is no number.

    Too large becomes infinity, too small zero.
    """
    return f"CASE WHEN {is_number(column, 'RLIKE', END_IN_SPARK)} THEN CAST({column} AS DOUBLE) END"


def postgresql_number(column: str) -> str:
    """Return PostgreSQL SQL with the values of `spark_number`, to the bit."""
    # PostgreSQL rejects a text beyond the range of a double. A short one without an exponent is not
    # beyond it; any other is compared as a numeric, which is slower.
    number = f"{column}::numeric"
    negative = f"starts_with({column}, '-')"
    return f"""CASE WHEN {is_number(column, "~", END_IN_POSTGRESQL)} THEN
            CASE
                WHEN length({column}) < 300 AND strpos({column}, 'e') = 0
                    AND strpos({column}, 'E') = 0 THEN {column}
                WHEN abs({number}) >= {ROUNDED_TO_INFINITY}
                    THEN CASE WHEN {negative} THEN '-Infinity' ELSE 'Infinity' END
                WHEN abs({number}) <= {ROUNDED_TO_ZERO}
                    THEN CASE WHEN {negative} THEN '-0' ELSE '0' END
                ELSE {column}
            END::double precision
        END"""


def nan_to_null(column: str) -> str:
    """Return SQL of both dialects: the text itself, NULL for a NaN."""
    # most texts have another length, which is faster to see
    return f"CASE WHEN length({column}) <> 3 OR {ascii_lower(column)} <> 'nan' THEN {column} END"


def ascii_lower(column: str) -> str:
    """Return SQL of both dialects: the text with the letters of `infinity` and `nan` in lower case.

    `lower` depends on the database's locale: in a Turkish one `INF` has no `i`.
    """
    return f"translate({column}, 'AFINTY', 'afinty')"


def validated(
    select: str,
    *,
    others: Sequence[str],
    texts: Sequence[str],
    checks: Sequence[RowCheck],
    with_warning: bool = False,
) -> str:
    """Return a PostgreSQL SELECT that adds numbers and the reason to rows.

    Args:
        select: SELECT of the rows.
        others: columns of `select` that are returned as they are.
        texts: text columns; `<text>_value` is added for each.
        checks: row checks; `reason` is the first that fails, NULL for a good row.
        with_warning: also return `warning`, the first failing check that is only reported.
    """
    cleaned = ", ".join([*others, *(f"{nan_to_null(name)} AS {name}" for name in texts)])
    values = ", ".join(f"{postgresql_number(name)} AS {name}_value" for name in texts)
    warning = f", {warning_sql(checks)} AS warning" if with_warning else ""
    # OFFSET 0: without it PostgreSQL would evaluate an expression again wherever a level above uses
    # its column, ten times for a number
    return f"""
    SELECT parsed.*, {reason_sql(checks)} AS reason{warning}
    FROM (
        SELECT cleaned.*, {values}
        FROM (
            SELECT {cleaned}
            FROM (
                SELECT *
                FROM ({select}) AS selected
                OFFSET 0
            ) AS source
            OFFSET 0
        ) AS cleaned
        OFFSET 0
    ) AS parsed"""
