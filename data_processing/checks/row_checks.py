"""What makes a row unusable, as data: a name, which is the reason kept in quarantine, and a
condition in SQL that is true for a bad row.

`catalogue` says in words what each finds, and its severity: a row that fails a `fail` check is not
used, one that fails a `warn` check is.

Conditions are written in the SQL that Spark and PostgreSQL share, over a text column and its number
`<column>_value`: Spark judges the rows a run reads, PostgreSQL the ones a plan counts, by the same
words. Units: APY percent, TVL and prices USD, gas gwei; timestamps UTC. Nothing is read or written
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast

from config_spark import Settings
from data_processing.checks.catalogue import CATALOGUE, changed_severities, severity_of
from database.commit_checks import Severity

EARLIEST_DAY = date(2018, 1, 1)
"""No DeFi pool is older: an earlier timestamp is a unit or parsing error of the source."""

EARLIEST_MARKET_DAY = date(2009, 1, 1)
"""No coin is older."""

BEFORE_MARKETS = f"timestamp_before_{EARLIEST_MARKET_DAY:%Y}"

IN_FUTURE = "timestamp_in_future"
"""The reason of a row that may become good as time goes on."""

MAX_GAS_GWEI = 1e6
"""A thousand times the highest daily average there ever was."""

NO_TIMESTAMP = "timestamp_missing"

NOT_IN_POOLS = "pool_not_in_pools"
"""The reason of a row that becomes good when its pool is in `pools`."""

NEVER = "WHEN false THEN ''"
"""A branch for a CASE that would have none."""

NUMBER = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?(?![^~]|~)"
"""A decimal number and nothing behind it. No backslash and no `$`: Spark would unescape the one,
and Java's `$` lets a line feed pass.
"""

MAX_NUMBER_LENGTH = 1000
"""Characters of a text that is still looked at as a number: beyond 131,072 digits PostgreSQL
refuses the whole query.
"""


@dataclass(frozen=True)
class RowCheck:
    """`condition` is true for a bad row; `name` is the reason it gets."""

    name: str
    condition: str
    severity: Severity


Condition = tuple[str, str]
"""The name of a check and its condition; how severe it is stands in the catalogue."""


def raw_row_checks(settings: Settings, now: datetime) -> tuple[RowCheck, ...]:
    """Checks of a raw pool row (columns apy, tvl, apy_value, tvl_value, timestamp, not_in_pools,
    dropped, replaced); the first that fails names the reason.

    A row with one of APY and TVL missing is good: the missing one is NULL. `now` is the run's, UTC:
    a later timestamp is an error of the source.
    Raises: ConfigurationError for a wrong CHECK_SEVERITIES.
    """
    return _with_severities(
        settings,
        (NO_TIMESTAMP, "timestamp IS NULL"),
        ("timestamp_before_2018", f"timestamp < TIMESTAMP '{EARLIEST_DAY} 00:00:00'"),
        (IN_FUTURE, f"timestamp > TIMESTAMP '{now:%Y-%m-%d %H:%M:%S.%f}'"),
        ("apy_and_tvl_missing", "apy IS NULL AND tvl IS NULL"),
        *_number_checks("apy"),
        *_number_checks("tvl"),
        ("apy_beyond_limit", f"abs(apy_value) > {settings.max_apy_percent!r}"),
        ("tvl_negative", "tvl_value < 0"),
        ("tvl_beyond_limit", f"tvl_value > {settings.max_tvl_usd!r}"),
        # nothing comes this far unless CHECK_SEVERITIES lets values pass that are no numbers
        ("apy_and_tvl_unusable", "apy_value IS NULL AND tvl_value IS NULL"),
        # last: a row that fails on its own account keeps its reason
        (NOT_IN_POOLS, "not_in_pools"),
        ("row_dropped", "dropped"),
        ("row_replaced", "replaced"),
    )


def changed_row_severities(settings: Settings) -> dict[str, Any]:
    """Those of CHECK_SEVERITIES that decide which raw rows are used, by name."""
    return {
        name: severity
        for name, severity in changed_severities(settings).items()
        if CATALOGUE[name].level == "row"
    }


def price_checks(settings: Settings, now: datetime) -> tuple[RowCheck, ...]:
    """Checks of a daily close (columns close, close_value, data_timestamp, symbol) at the moment
    `now`, UTC.

    A price row without a price is of no use, so a missing one is bad too.
    """
    return _with_severities(
        settings,
        (NO_TIMESTAMP, "data_timestamp IS NULL"),
        ("symbol_missing", "symbol IS NULL"),
        (BEFORE_MARKETS, f"data_timestamp < TIMESTAMP '{EARLIEST_MARKET_DAY} 00:00:00'"),
        (IN_FUTURE, f"data_timestamp > TIMESTAMP '{now:%Y-%m-%d %H:%M:%S.%f}'"),
        ("price_missing", "close IS NULL"),
        *_number_checks("close", name="price"),
        ("price_not_positive", "close_value <= 0"),
        ("price_beyond_limit", f"close_value > {settings.max_price_usd!r}"),
    )


def gas_checks(settings: Settings, now: datetime) -> tuple[RowCheck, ...]:
    """Checks of a day's gas (columns gas, gas_value, date) at the moment `now`, UTC; a missing one
    is no error, for days to come have a forecast.
    """
    return _with_severities(
        settings,
        (NO_TIMESTAMP, "gas IS NOT NULL AND date IS NULL"),
        (BEFORE_MARKETS, f"gas IS NOT NULL AND date < DATE '{EARLIEST_MARKET_DAY}'"),
        (IN_FUTURE, f"gas IS NOT NULL AND date > DATE '{now:%Y-%m-%d}'"),
        *_number_checks("gas"),
        ("gas_negative", "gas_value < 0"),
        ("gas_beyond_limit", f"gas_value > {MAX_GAS_GWEI!r}"),
    )


def _number_checks(column: str, name: str | None = None) -> tuple[Condition, ...]:
    infinite = f"lower({column}) IN ('infinity', '+infinity', '-infinity', 'inf', '+inf', '-inf')"
    return (
        (f"{name or column}_infinite", infinite),
        (f"{name or column}_not_a_number", f"{column} IS NOT NULL AND {column}_value IS NULL"),
    )


def _with_severities(settings: Settings, *conditions: Condition) -> tuple[RowCheck, ...]:
    """The checks in their order, but for those that are off."""
    severities = [severity_of(name, settings) for name, _ in conditions]
    return tuple(
        RowCheck(name, condition, cast(Severity, severity))
        for (name, condition), severity in zip(conditions, severities, strict=True)
        if severity != "off"
    )


def reason(checks: Sequence[RowCheck]) -> str:
    """SQL expression: the name of the first check that a row must not be used for, NULL for a good
    row.
    """
    return _first_failing([check for check in checks if check.severity == "fail"])


def warning(checks: Sequence[RowCheck]) -> str:
    """SQL expression: the name of the first check that is only reported, NULL for a row without
    one.
    """
    return _first_failing([check for check in checks if check.severity == "warn"])


def _first_failing(checks: Sequence[RowCheck]) -> str:
    found = " ".join(f"WHEN {check.condition} THEN {check.name!r}" for check in checks)
    return f"CASE {found or NEVER} END"


def is_number(column: str, matches: str) -> str:
    """SQL condition: the text column is a NUMBER; `matches` is the dialect's operator for regular
    expressions.
    """
    return f"length({column}) <= {MAX_NUMBER_LENGTH} AND {column} {matches} '{NUMBER}'"


def spark_number(column: str) -> str:
    """Spark SQL: the text column as a double, NULL where it is no number; too large becomes
    infinity, too small zero.
    """
    return f"CASE WHEN {is_number(column, 'RLIKE')} THEN CAST({column} AS DOUBLE) END"


def postgresql_number(column: str) -> str:
    """As `spark_number`; by way of numeric, because PostgreSQL refuses a text beyond a double's
    range.
    """
    number = f"{column}::numeric"
    return (
        f"CASE WHEN {is_number(column, '~')} THEN CASE WHEN abs({number}) > 1e300 THEN"
        f" sign({number}) * 'Infinity'::double precision WHEN abs({number}) < 1e-300 THEN 0 ELSE"
        f" {column}::double precision END END"
    )


def missing_is_null(column: str) -> str:
    """SQL of both dialects: the text itself, NULL for a NaN."""
    return f"CASE WHEN lower({column}) <> 'nan' THEN {column} END"


def judged(
    select: str, *, others: Sequence[str], texts: Sequence[str], checks: Sequence[RowCheck]
) -> str:
    """PostgreSQL: a SELECT of the columns `others` and `texts` of `select`, of `<text>_value` for
    each text, and of `reason`, NULL for a good row.
    """
    cleaned = ", ".join([*others, *(f"{missing_is_null(name)} AS {name}" for name in texts)])
    values = ", ".join(f"{postgresql_number(name)} AS {name}_value" for name in texts)
    parsed = (
        f"SELECT cleaned.*, {values} FROM (SELECT {cleaned} FROM ({select}) AS given) AS cleaned"
    )
    return f"SELECT parsed.*, {reason(checks)} AS reason FROM ({parsed}) AS parsed"
