"""Page Tomorrow: the newest forecasts with interval, change and reason; filters, order, downloads,
and expected yield against uncertainty.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from reporting.dashboard import charts
from reporting.dashboard.connection import DataVersion, connected, data_version
from reporting.dashboard.page_parts import (
    CACHED_RESULTS,
    PAGE_ROWS,
    Pager,
    commands,
    escaped,
    long_day,
    one_line,
    open_pool,
    pool_label,
    pool_link,
    pool_place,
    select_hint,
    selectable_table,
    texts,
    tiles,
)
from reporting.figures.forecast_search import (
    ORDERS,
    ForecastChoices,
    ForecastDay,
    ForecastFilter,
    ForecastSummary,
    PageKey,
    forecast_choices,
    forecast_day,
    forecast_page,
    forecast_summary,
    page_key,
)
from reporting.report import formatting, labels
from reporting.report.feature_labels import feature_label

SCATTER_POOLS = 1500
"""The largest pools of the filter are drawn: more points hide each other, and delay the page."""
SCATTER_ORDER = "tvl_today"
LEAST_TVL = {
    "any TVL": 0.0,
    "over $100K": 1e5,
    "over $1M": 1e6,
    "over $10M": 1e7,
    "over $100M": 1e8,
}
STABLECOINS = {"all pools": None, "stablecoin pools": True, "other pools": False}
MADE_BY = {"model and fallbacks": None, "model": "model", "fallback": "fallback"}
VALUES = (*("apy_today", "apy", "apy_low", "apy_high", "tvl_today", "tvl", "tvl_low", "tvl_high"),)
# columns that are downloaded
DOWNLOADED = (
    *("pool_id", "symbol", "name", "protocol", "chain", "as_of", "target_date"),
    *("apy_today", "apy", "apy_low", "apy_high", "apy_change", "apy_width"),
    *("tvl_today", "tvl", "tvl_low", "tvl_high", "interval_level", "engine", "model_version"),
    *("apy_fallback_reason", "tvl_fallback_reason", "why"),
)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _day(version: DataVersion) -> ForecastDay | None:
    return forecast_day(connected().engine)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _choices(version: DataVersion) -> ForecastChoices:
    return forecast_choices(connected().engine)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _summary(version: DataVersion, selection: ForecastFilter) -> ForecastSummary:
    return forecast_summary(connected().engine, selection)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _rows(
    version: DataVersion,
    selection: ForecastFilter,
    order: str,
    after: PageKey | None,
    limit: int,
) -> pd.DataFrame:
    rows = forecast_page(connected().engine, selection, order, after=after, limit=limit)
    return with_reasons(rows)


def with_reasons(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns label, place, made_by, why and link to forecasts."""
    pools: list[Any] = list(rows.itertuples())
    described = rows.copy()
    described["label"] = [pool_label(pool) for pool in pools]
    described["place"] = [pool_place(pool) for pool in pools]
    described["made_by"] = ["fallback" if pool.apy_fallback_reason else "model" for pool in pools]
    described["why"] = [why(pool.apy_fallback_reason, pool.explanation) for pool in pools]
    described["link"] = [pool_link(pool.pool_id) for pool in pools]
    return described


def why(fallback_reason: str | None, explanation: list[Mapping[str, Any]] | None) -> str:
    """Return the contributions to a model's forecast, or the reason of a fallback, as one line."""
    if fallback_reason:
        reason = one_line(fallback_reason)
        return f"{reason.replace('_', ' ')}: {labels.FALLBACKS.get(reason, 'a fallback')}"
    parts = [
        f"{formatting.signed_points(part['points'])} {one_line(feature_label(part['feature']))}"
        for part in explanation or []
    ]
    return "; ".join(parts) or "model"


def prepare_page(version: DataVersion) -> None:
    """Read the figures that the page shows without a choice of its visitor."""
    if _day(version) is None:
        return
    selection, order = ForecastFilter(), next(iter(ORDERS))
    _choices(version)
    _summary(version, selection)
    _rows(version, selection, order, None, PAGE_ROWS + 1)
    _rows(version, selection, SCATTER_ORDER, None, SCATTER_POOLS)


def show() -> None:
    """Show the page."""
    version = data_version()
    day = _day(version)
    if day is None:
        _show_empty()
        return
    st.title(f"Forecasts for {long_day(day.target_date)}")
    st.caption(
        f"Made from data up to {long_day(day.as_of)} (UTC), the as-of day, by engine"
        f" {escaped(day.engine)}. APY in percent, changes and intervals in points of APY, TVL in"
        " USD."
    )
    # today is never complete, so data up to yesterday are 0 days old
    age_days = (dt.datetime.now(dt.UTC).date() - day.as_of).days - 1
    if age_days > 0:
        st.warning(
            f"The data end {age_days:,} {'day' if age_days == 1 else 'days'} before the last"
            f" complete UTC day: these are forecasts for {day.target_date}, not for tomorrow. Load"
            " or ingest newer history, then run both jobs again.",
            icon=":material/schedule:",
        )
    selection, order = _filters(_choices(version))
    summary = _summary(version, selection)
    _show_tiles(summary)
    if not summary.forecasts:
        st.info("No forecast passes these filters.")
        return
    _show_table(version, selection, order, summary.forecasts)
    _show_scatter(version, selection, summary.forecasts)


def _show_empty() -> None:
    st.title("No forecasts yet")
    st.info("The database has no forecasts. Load history, then run both jobs:")
    commands("load FILE...", "calculate_metrics", "forecast_pools")
    st.write("Or load the sample of 72 pools and run both jobs on it:")
    commands("demo")


def _filters(choices: ForecastChoices) -> tuple[ForecastFilter, str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = st.text_input(
            "Find a pool", placeholder="symbol, protocol, chain or id", key="search", width=300
        )
        order = st.selectbox(
            "Order by",
            list(ORDERS),
            format_func=lambda name: ORDERS[name][0],
            key="order",
            width=260,
        )
        tvl = st.selectbox("TVL today", list(LEAST_TVL), key="least_tvl", width=150)
    with st.expander("More filters"), st.container(horizontal=True, vertical_alignment="bottom"):
        chains = st.multiselect("Chain", list(choices.chains), key="chains", width=260)
        protocols = st.multiselect("Protocol", list(choices.protocols), key="protocols", width=260)
        stable = st.selectbox("Tokens", list(STABLECOINS), key="stablecoins", width=180)
        made_by = st.selectbox("Made by", list(MADE_BY), key="made_by", width=220)
        reasons = st.multiselect("Fallback reason", list(choices.reasons), key="reasons", width=260)
    selection = ForecastFilter(
        search=search.strip(),
        chains=tuple(chains),
        protocols=tuple(protocols),
        reasons=tuple(reasons),
        min_tvl_usd=LEAST_TVL[tvl],
        made_by=MADE_BY[made_by],
        stablecoins=STABLECOINS[stable],
    )
    return selection, order


def _show_tiles(summary: ForecastSummary) -> None:
    fallbacks = summary.forecasts - summary.by_model
    tiles(
        [
            (
                "Pools with a forecast",
                formatting.count(summary.forecasts),
                f"{summary.by_model:,} by the model, {fallbacks:,} by a fallback",
            ),
            ("Their TVL", formatting.usd(summary.tvl_today), "on the as-of day"),
            ("Median APY forecast", formatting.percent(summary.median_apy), "half are higher"),
            (
                "Median interval, points",
                formatting.points(summary.median_width),
                "from the lower to the upper end",
            ),
        ]
    )


def _show_table(
    version: DataVersion, selection: ForecastFilter, order: str, forecasts: int
) -> None:
    pager = Pager("forecasts", (version, selection, order))
    listed = _rows(version, selection, order, pager.after, PAGE_ROWS + 1)
    rows = listed.head(PAGE_ROWS)
    level = formatting.share(float(rows["interval_level"].iloc[0]))
    chosen = selectable_table(
        texts(rows, "place", "why"),
        {
            "label": st.column_config.TextColumn("pool", width=130),
            "apy_today": _percent("APY today, %"),
            "apy": _percent("APY forecast, %"),
            "apy_low": _percent(f"lower end, % ({level} interval)"),
            "apy_high": _percent("upper end, %"),
            "apy_change": st.column_config.NumberColumn("change, points", format="%+.2f"),
            "tvl_today": st.column_config.NumberColumn("TVL today, USD", format="compact"),
            "made_by": st.column_config.TextColumn("made by"),
            "why": st.column_config.TextColumn(
                "why: contributions in points, or the fallback's reason", width=320
            ),
            "tvl": st.column_config.NumberColumn("TVL forecast, USD", format="compact"),
            "tvl_low": st.column_config.NumberColumn("TVL lower end, USD", format="compact"),
            "tvl_high": st.column_config.NumberColumn("TVL upper end, USD", format="compact"),
            "place": st.column_config.TextColumn("protocol · chain"),
            "link": st.column_config.LinkColumn("page", display_text="open"),
        },
        key="forecast_table",
        height=460,
    )
    last = page_key(rows, order) if len(listed) > PAGE_ROWS else None
    pager.buttons(last, forecasts)
    if chosen is None:
        select_hint("its whole reason and the link to its pool")
    else:
        _show_details(rows.iloc[chosen])
    _downloads(version, selection, order)


def _percent(heading: str) -> Any:
    return st.column_config.NumberColumn(heading, format="%.2f")


def _show_details(row: Any) -> None:
    with st.container(border=True):
        st.subheader(escaped(row["label"]))
        values = {name: None if pd.isna(row[name]) else float(row[name]) for name in VALUES}
        low, high = formatting.points(values["apy_low"]), formatting.points(values["apy_high"])
        st.markdown(
            f"{escaped(row['place'])}: APY {formatting.percent(values['apy_today'])} today,"
            f" forecast {formatting.percent(values['apy'])} ({low} to {high})"
        )
        parts = str(row["why"]).split("; ")
        st.markdown("\n".join(f"- {escaped(part)}" for part in parts))
        tvl = {name: escaped(formatting.usd(values[name])) for name in VALUES if "tvl" in name}
        made_by = row["tvl_fallback_reason"]
        st.markdown(
            f"TVL {tvl['tvl_today']} today, forecast {tvl['tvl']} ({tvl['tvl_low']} to"
            f" {tvl['tvl_high']}), {escaped(why(made_by, None))}"
        )
        open_pool(row["pool_id"], row["label"])


def _downloads(version: DataVersion, selection: ForecastFilter, order: str) -> None:
    def rows() -> pd.DataFrame:
        listed = forecast_page(connected().engine, selection, order)
        return with_reasons(listed)[list(DOWNLOADED)]

    def parquet() -> bytes:
        target = io.BytesIO()
        rows().to_parquet(target, index=False)
        return target.getvalue()

    with st.container(horizontal=True):
        # made when they are asked for
        st.download_button(
            "Download CSV",
            data=lambda: csv_of(rows()),
            file_name="forecasts.csv",
            mime="text/csv",
            on_click="ignore",
        )
        st.download_button(
            "Download Parquet",
            data=parquet,
            file_name="forecasts.parquet",
            mime="application/vnd.apache.parquet",
            on_click="ignore",
        )


def csv_of(rows: pd.DataFrame) -> bytes:
    """Return rows as CSV; text that a spreadsheet would run as a formula gets an apostrophe."""
    safe = rows.copy()
    for column in safe.select_dtypes("object").columns:
        safe[column] = [
            f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_SIGNS) else value
            for value in safe[column]
        ]
    # also a single carriage return ends a row where it is not in quotation marks
    return safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode()


# OWASP, CSV injection: spreadsheets take the wide signs for the others
_FORMULA_SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")


def _show_scatter(version: DataVersion, selection: ForecastFilter, forecasts: int) -> None:
    st.header("Expected yield against uncertainty")
    drawn = _rows(version, selection, SCATTER_ORDER, None, SCATTER_POOLS)
    drawn = drawn.dropna(subset=["apy", "apy_width"])
    largest = f"the {SCATTER_POOLS:,} largest of " if forecasts > SCATTER_POOLS else ""
    st.caption(
        f"Each mark is one pool, {largest}{forecasts:,} that pass the filters. Up: a higher"
        " forecast APY. Left: a narrower interval, so a surer forecast."
    )
    columns = ["apy", "apy_width", "tvl_today", "label", "place", "made_by"]
    charts.show(
        charts.uncertainty_scatter(drawn[columns]),
        f"Scatter of {len(drawn):,} pools: forecast APY against the width of its interval. The"
        " table above has the same numbers.",
    )
