"""Filters, sorts and pages the newest forecasts in SQL, for tables of many pools.

Reads the newest as-of day's forecasts with the pools' labels and today's values. APY is in percent,
TVL in USD, changes and widths of intervals in points of APY. Pages are found by the key of the last
row (keyset), so that a late page costs as much as the first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Engine, text

from database.connections.engine import checked_connection
from database.schema.metrics_table import metrics_name
from reporting.figures.forecasts import NEWEST_FORECASTS

# USD, EUR and CHF coins by symbol: the tables lack DefiLlama's flag
STABLECOINS = (
    *("USDC", "USDT", "DAI", "USDS", "SUSDS", "SDAI", "USDE", "SUSDE", "FRAX", "FRXUSD", "LUSD"),
    *("TUSD", "USDP", "GUSD", "BUSD", "PYUSD", "FDUSD", "CRVUSD", "GHO", "MIM", "DOLA", "SUSD"),
    *("USDD", "USD0", "USDB", "USDBC", "USDCE", "USDC.E", "USDT.E", "USDT0", "AXLUSDC", "RLUSD"),
    *("USDG", "USDX", "XUSD", "DEUSD", "BOLD", "ALUSD", "MUSD", "USDM", "USDY", "EUSD", "HONEY"),
    *("XDAI", "WXDAI", "EURC", "EURS", "AGEUR", "EURA", "EURE", "CRVFRAX", "3CRV", "FRAXBP"),
)

# name: (heading of the order, SQL of the value, whether the largest are first)
ORDERS: Mapping[str, tuple[str, str, bool]] = {
    "tvl_today": ("TVL today", "tvl_today", True),
    "apy": ("APY forecast", "apy", True),
    "apy_today": ("APY today", "apy_today", True),
    "rise": ("APY rise", "apy_change", True),
    "fall": ("APY fall", "apy_change", False),
    "least_certain": ("uncertainty, widest interval", "apy_width", True),
    "most_certain": ("uncertainty, narrowest interval", "apy_width", False),
    "symbol": ("pool, by symbol", "sort_symbol", False),
}

LISTED = f"""
WITH {NEWEST_FORECASTS},
listed AS (
    SELECT f.pool_id, p.name, p.symbol, p.protocol, p.chain,
        m.actual_apy::float8 AS apy_today,
        f.apy::float8 AS apy,
        f.apy_low::float8 AS apy_low,
        f.apy_high::float8 AS apy_high,
        f.apy::float8 - m.actual_apy::float8 AS apy_change,
        f.apy_high::float8 - f.apy_low::float8 AS apy_width,
        m.actual_tvl::float8 AS tvl_today,
        f.tvl::float8 AS tvl,
        f.tvl_low::float8 AS tvl_low,
        f.tvl_high::float8 AS tvl_high,
        f.apy_fallback_reason, f.tvl_fallback_reason, f.explanation, f.model_version, f.engine,
        f.interval_level, f.as_of, f.target_date,
        lower(coalesce(p.symbol, p.name, f.pool_id)) COLLATE "C" AS sort_symbol
    FROM yieldspark.forecasts f
    JOIN newest n ON n.as_of = f.as_of AND n.horizon_days = f.horizon_days
    LEFT JOIN pools p ON p.pool_id = f.pool_id
    LEFT JOIN {{metrics}} m ON m.pool_id = f.pool_id AND m.date = f.as_of
)
"""

SUMMARY = """
SELECT count(*) AS forecasts,
    count(*) FILTER (WHERE apy_fallback_reason IS NULL) AS by_model,
    coalesce(sum(tvl_today), 0)::float8 AS tvl_today,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY apy) AS median_apy,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY apy_width) AS median_width
FROM listed
"""

CHOICES = """
SELECT 'chain' AS filter, chain AS value, count(*) AS forecasts FROM listed
WHERE chain IS NOT NULL
GROUP BY chain
UNION ALL
SELECT 'protocol', protocol, count(*) FROM listed
WHERE protocol IS NOT NULL
GROUP BY protocol
UNION ALL
SELECT 'reason', apy_fallback_reason, count(*) FROM listed
WHERE apy_fallback_reason IS NOT NULL
GROUP BY apy_fallback_reason
ORDER BY filter, forecasts DESC, value
"""

NEWEST = f"WITH {NEWEST_FORECASTS} SELECT * FROM newest"


@dataclass(frozen=True)
class ForecastFilter:
    """Which of the newest forecasts are shown; empty values do not filter.

    Attributes:
        pool_id: only this pool.
        search: part of the symbol, name, protocol, chain or id; case does not matter.
        min_tvl_usd: least TVL of the as-of day.
        made_by: `model`, `fallback` or None for both.
        stablecoins: True: only pools whose symbol consists of STABLECOINS; False: only others.
    """

    pool_id: str | None = None
    search: str = ""
    chains: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    min_tvl_usd: float = 0.0
    made_by: str | None = None
    stablecoins: bool | None = None

    @property
    def condition(self) -> str:
        """SQL condition on `listed`, with the parameters of `parameters`."""
        parts = ["true"] if self.pool_id is None else ["pool_id = :pool_id"]
        if self.search:
            parts.append(
                "concat_ws(' ', symbol, name, protocol, chain, pool_id) ILIKE :search ESCAPE '!'"
            )
        parts += ["chain = ANY(:chains)"] if self.chains else []
        parts += ["protocol = ANY(:protocols)"] if self.protocols else []
        parts += ["apy_fallback_reason = ANY(:reasons)"] if self.reasons else []
        parts += ["tvl_today >= :min_tvl"] if self.min_tvl_usd else []
        if self.made_by:
            missing = "IS NULL" if self.made_by == "model" else "IS NOT NULL"
            parts.append(f"apy_fallback_reason {missing}")
        if self.stablecoins is not None:
            is_stable = (
                "coalesce(regexp_split_to_array(upper(symbol), '[-/+ _]+') <@ :stablecoins, false)"
            )
            parts.append(is_stable if self.stablecoins else f"NOT {is_stable}")
        return " AND ".join(parts)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of `condition`."""
        return {
            "pool_id": self.pool_id,
            "search": f"%{like_pattern(self.search)}%",
            "chains": list(self.chains),
            "protocols": list(self.protocols),
            "reasons": list(self.reasons),
            "min_tvl": self.min_tvl_usd,
            "stablecoins": list(STABLECOINS),
        }


@dataclass(frozen=True)
class PageKey:
    """The last row of a page: its value of the order, None if it is unknown, and its pool."""

    value: float | str | None
    pool_id: str


@dataclass(frozen=True)
class ForecastSummary:
    """Figures of the forecasts that pass a filter.

    Attributes:
        by_model: those that no fallback replaced.
        tvl_today: sum; USD.
        median_apy: of the forecasts, percent; None without any.
        median_width: of the intervals, points of APY.
    """

    forecasts: int
    by_model: int
    tvl_today: float
    median_apy: float | None
    median_width: float | None


@dataclass(frozen=True)
class ForecastDay:
    """The days of the newest forecasts."""

    as_of: dt.date
    target_date: dt.date
    horizon_days: int
    engine: str


@dataclass(frozen=True)
class ForecastChoices:
    """Values of the filters and their numbers of forecasts, the most frequent first."""

    chains: Mapping[str, int] = field(default_factory=dict)
    protocols: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)


def forecast_day(engine: Engine) -> ForecastDay | None:
    """Reads the days of the newest forecasts; None without any.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        row = connection.execute(text(NEWEST)).mappings().first()
    return ForecastDay(**row) if row else None


def forecast_choices(engine: Engine) -> ForecastChoices:
    """Reads the values that the filters offer.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    values: dict[str, dict[str, int]] = {"chain": {}, "protocol": {}, "reason": {}}
    with checked_connection(engine) as connection:
        for row in connection.execute(text(_listed(connection) + CHOICES)):
            values[row.filter][row.value] = row.forecasts
    return ForecastChoices(values["chain"], values["protocol"], values["reason"])


def forecast_summary(engine: Engine, selection: ForecastFilter) -> ForecastSummary:
    """Computes the figures of the forecasts that pass the filter.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        query = f"{_listed(connection)}{SUMMARY}WHERE {selection.condition}"
        row = connection.execute(text(query), selection.parameters).mappings().one()
    return ForecastSummary(**row)


def forecast_page(
    engine: Engine,
    selection: ForecastFilter,
    order: str,
    *,
    after: PageKey | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """Reads one page of the forecasts that pass the filter.

    Args:
        order: name of ORDERS; unknown values are last, equal ones are ordered by pool_id.
        after: last row of the page before; None for the first page.
        limit: rows of the page; None for all.

    Returns:
        Columns of `listed`.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    _, value, is_descending = ORDERS[order]
    condition, key = _after(value, is_descending, after)
    rows = f"""
SELECT *
FROM listed
WHERE {selection.condition}
    AND {condition}
ORDER BY {value} {"DESC" if is_descending else "ASC"} NULLS LAST, pool_id COLLATE "C"
LIMIT :limit
"""
    with checked_connection(engine) as connection:
        result = connection.execute(
            text(_listed(connection) + rows), selection.parameters | key | {"limit": limit}
        )
        return pd.DataFrame(result.mappings().all(), columns=list(result.keys()))


def page_key(rows: pd.DataFrame, order: str) -> PageKey:
    """Returns the key of the last row of a page."""
    last = rows.iloc[-1]
    value = last[ORDERS[order][1]]
    return PageKey(None if pd.isna(value) else value, last["pool_id"])


def like_pattern(search: str) -> str:
    """Returns the text as a pattern of LIKE with the escape character `!`."""
    for sign in ("!", "%", "_"):
        search = search.replace(sign, f"!{sign}")
    return search


def _listed(connection: Connection) -> str:
    return LISTED.format(metrics=metrics_name(connection))


def _after(value: str, is_descending: bool, key: PageKey | None) -> tuple[str, dict[str, Any]]:
    """SQL condition for the rows after a key, and its parameters."""
    if key is None:
        return "true", {}
    parameters = {"last_value": key.value, "last_pool": key.pool_id}
    later_pool = 'pool_id COLLATE "C" > :last_pool'
    if key.value is None:
        return f"{value} IS NULL AND {later_pool}", parameters
    further = "<" if is_descending else ">"
    return (
        f"({value} {further} :last_value OR {value} IS NULL"
        f" OR ({value} = :last_value AND {later_pool}))",
        parameters,
    )
