"""Page Pool: one pool's forecast, history, past forecasts beside persistence, quarantined rows and
raw snapshots. `?pool=ID` selects the pool.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import streamlit as st

from data_processing.quarantine.queries import Selection, list_rows
from reporting.dashboard import charts
from reporting.dashboard.charts import Line
from reporting.dashboard.connection import DataVersion, connected, data_version
from reporting.dashboard.page_parts import (
    CACHED_RESULTS,
    commands,
    escaped,
    long_day,
    one_line,
    pool_label,
    pool_place,
    table,
    texts,
    tiles,
    to_second,
)
from reporting.dashboard.views.pool_forecasts import UNITS, show_past
from reporting.dashboard.views.tomorrow import with_reasons
from reporting.figures.forecast_search import ForecastFilter, forecast_page
from reporting.figures.pool_history import (
    FoundPool,
    PoolFacts,
    find_pools,
    metrics_history,
    past_forecasts,
    pool_facts,
    raw_snapshots,
)
from reporting.report import formatting

FOUND_POOLS = 50
SPANS = {"30 days": 30, "90 days": 90, "365 days": 365, "all": 100_000}
TARGETS = {"APY": "apy", "TVL": "tvl"}
QUARANTINED_ROWS = 50


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _found(version: DataVersion, search: str) -> list[FoundPool]:
    return find_pools(connected().engine, search, limit=FOUND_POOLS)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _facts(version: DataVersion, pool_id: str) -> PoolFacts | None:
    return pool_facts(connected().engine, pool_id)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _forecast(version: DataVersion, pool_id: str) -> pd.DataFrame:
    rows = forecast_page(connected().engine, ForecastFilter(pool_id=pool_id), "apy", limit=1)
    return with_reasons(rows)


@st.cache_data(show_spinner="Reading the pool's history", max_entries=CACHED_RESULTS)
def _history(version: DataVersion, pool_id: str, days: int) -> pd.DataFrame:
    return metrics_history(connected().engine, pool_id, days=days)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _past(version: DataVersion, pool_id: str, target: str, days: int) -> pd.DataFrame:
    return past_forecasts(connected().engine, pool_id, target, days=days)


def show() -> None:
    """Show the page."""
    version = data_version()
    pool_id = _choose(version)
    if pool_id is None:
        _show_none(is_search=bool(st.session_state["pool_search"]))
        return
    facts = _facts(version, pool_id)
    if facts is None:
        st.title("Pool")
        st.warning(f"The database has no pool {escaped(pool_id)}. Find another one above.")
        return
    _show_head(facts, _forecast(version, pool_id))
    if facts.last_day is None:
        st.info("This pool has no metrics yet. Compute them:")
        commands("calculate_metrics")
    else:
        with st.container(horizontal=True):
            span = st.segmented_control(
                "Days", list(SPANS), default="90 days", key="span", required=True
            )
            name = st.segmented_control(
                "Value", list(TARGETS), default="APY", key="target", required=True
            )
        target = TARGETS[name or "APY"]
        days = SPANS[span or "90 days"]
        _show_history(_history(version, pool_id, days), target)
        show_past(_past(version, pool_id, target, days), target)
    _show_quarantine(pool_id)
    _show_snapshots(facts)


def _show_none(*, is_search: bool) -> None:
    st.title("Pool")
    if is_search:
        st.info("No pool with metrics matches the search.")
        return
    st.info("No pool has metrics yet. Load history, then run both jobs:")
    commands("load FILE...", "calculate_metrics", "forecast_pools")


def _choose(version: DataVersion) -> str | None:
    """Show the search and return the chosen pool: a link's, or the largest that matches."""
    linked = st.query_params.get("pool")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = st.text_input(
            "Find a pool",
            placeholder="symbol, protocol, chain or id",
            key="pool_search",
            width=300,
        )
        pools_by_id = {pool.pool_id: pool for pool in _found(version, search.strip())}
        options = list(pools_by_id)
        # a linked pool need not be among the largest
        if linked and not search and linked not in pools_by_id:
            options.insert(0, linked)
        if not options:
            return None
        chosen: str = st.selectbox(
            f"Pool, the {FOUND_POOLS} largest that match",
            options,
            index=options.index(linked) if linked in options else 0,
            format_func=lambda pool_id: _option(pools_by_id.get(pool_id), pool_id),
            width=430,
        )
    # the address of the page is a link to this pool
    if chosen != linked:
        st.query_params["pool"] = chosen
    return chosen


def _option(pool: FoundPool | None, pool_id: str) -> str:
    if pool is None:
        return one_line(pool_id)
    return " · ".join(one_line(text) for text in (pool.label, pool.protocol, pool.chain) if text)


def _show_head(facts: PoolFacts, forecast: pd.DataFrame) -> None:
    st.title(escaped(pool_label(facts)))
    days = f"days {facts.first_day} to {facts.last_day} (UTC)" if facts.last_day else "no metrics"
    inactive = ", not active" if facts.is_active is False else ""
    st.caption(f"{escaped(pool_place(facts))} · {days}{inactive} · id {escaped(facts.pool_id)}")
    if forecast.empty:
        st.info("The newest run has no forecast of this pool.")
        return
    row = forecast.iloc[0]
    level = formatting.share(float(row["interval_level"]))
    tiles(
        [
            (
                "APY today",
                formatting.percent(_known(row["apy_today"])),
                long_day(row["as_of"]),
            ),
            (
                "APY forecast",
                formatting.percent(_known(row["apy"])),
                f"for {long_day(row['target_date'])}; {level} interval"
                f" {formatting.points(_known(row['apy_low']))} to"
                f" {formatting.points(_known(row['apy_high']))}",
            ),
            (
                "TVL forecast",
                formatting.usd(_known(row["tvl"])),
                f"today {formatting.usd(_known(row['tvl_today']))}; {level} interval"
                f" {formatting.usd(_known(row['tvl_low']))} to"
                f" {formatting.usd(_known(row['tvl_high']))}",
            ),
        ]
    )
    made_by = "Made by the model" if row["made_by"] == "model" else "Fallback"
    st.markdown(f"**{made_by}**: {escaped(row['why'])}")


def _known(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _show_history(history: pd.DataFrame, target: str) -> None:
    st.header(f"History of {target.upper()}")
    if history.empty:
        st.write("No metrics in these days.")
        return
    if target == "tvl":
        st.caption("The line is interrupted where no TVL was observed.")
    else:
        st.caption(
            "The line of the observed APY is interrupted where none was observed. The band is the"
            " 30-day mean plus and minus one standard deviation."
        )
    newest = history.iloc[-1]
    charts.show(
        _history_chart(history, target),
        f"{target.upper()} of {len(history)} days up to {newest['date']}; on the last day"
        f" {newest[target]:,.2f}.",
    )
    with st.expander("Numbers"):
        table(
            history[::-1],
            {
                "date": "day, UTC",
                "apy": st.column_config.NumberColumn("APY, %", format="%.4f"),
                "mean_7d": st.column_config.NumberColumn("mean of 7 days, %", format="%.4f"),
                "mean_30d": st.column_config.NumberColumn("mean of 30 days, %", format="%.4f"),
                "stddev_7d": st.column_config.NumberColumn(
                    "standard deviation of 7 days, points", format="%.4f"
                ),
                "stddev_30d": st.column_config.NumberColumn(
                    "standard deviation of 30 days, points", format="%.4f"
                ),
                "tvl": st.column_config.NumberColumn("TVL, USD", format="localized"),
                "apy_is_observed": "APY observed",
                "tvl_is_observed": "TVL observed",
            },
        )


def _history_chart(history: pd.DataFrame, target: str) -> charts.AnyChart:
    rows = history.assign(
        # carried values are in the table only: a line through them would hide the gap
        observed=history[target].where(history[f"{target}_is_observed"].astype(bool)),
        band_low=history["mean_30d"] - history["stddev_30d"],
        band_high=history["mean_30d"] + history["stddev_30d"],
    )
    observed = Line("observed", f"observed {target.upper()}", "ink", points="circle")
    if target == "tvl":
        return charts.lines(rows, [observed], unit=UNITS["tvl"], value_format="$,.4s")
    means = [
        Line("mean_7d", "mean of 7 days", "second", (6, 3)),
        Line("mean_30d", "mean of 30 days", "accent", (2, 2)),
    ]
    return charts.lines(rows, [observed, *means], unit=UNITS["apy"], band=("band_low", "band_high"))


def _show_quarantine(pool_id: str) -> None:
    st.header("Quarantined rows")
    # also the rows that were resolved since: they explain gaps
    selection = Selection(pool_id=pool_id, resolved=True)
    listing = list_rows(connected().engine, selection, limit=QUARANTINED_ROWS)
    if not listing["rows"]:
        st.write("No raw row of this pool was ever quarantined.")
        return
    st.caption(f"The newest {len(listing['rows']):,} of {listing['total']:,} rows.")
    rows = pd.DataFrame(listing["rows"])
    for name in ("timestamp", "quarantined_at"):
        rows[name] = [to_second(time) for time in rows[name]]
    table(
        texts(rows, "reason", "resolution", "source_table"),
        {
            "id": st.column_config.NumberColumn("id", format="%d"),
            "reason": "reason",
            "timestamp": "snapshot, UTC",
            "quarantined_at": "quarantined, UTC",
            "resolution": "resolution",
            "source_table": "source table",
        },
    )
    open_ids = [str(row["id"]) for row in listing["rows"] if row["resolution"] is None]
    if open_ids:
        st.write("Show why a row was rejected, or replay it under other limits:")
        commands(f"quarantine show {open_ids[0]}", f"quarantine replay {open_ids[0]}")


def _show_snapshots(facts: PoolFacts) -> None:
    st.header("Raw snapshots of a day")
    newest = facts.last_observed_day or facts.last_day or dt.datetime.now(dt.UTC).date()
    # a key for each pool: otherwise the day that was chosen for another pool would stay
    day = st.date_input(
        "Day, UTC", value=newest, format="YYYY-MM-DD", key=f"day_{facts.pool_id}", width=180
    )
    if not isinstance(day, dt.date):
        return
    rows = raw_snapshots(connected().engine, facts.pool_id, day)
    if rows.empty:
        st.write(f"The raw history has no snapshot of this pool on {day}.")
        return
    table(
        rows,
        {
            "timestamp": st.column_config.DatetimeColumn(
                "snapshot, UTC", format="YYYY-MM-DD HH:mm:ss", timezone="UTC"
            ),
            "insertion_timestamp": st.column_config.DatetimeColumn(
                "inserted, UTC", format="YYYY-MM-DD HH:mm:ss", timezone="UTC"
            ),
            "raw_json_data": st.column_config.TextColumn(
                "raw JSON: apy in percent, tvlUsd in USD", width=600
            ),
            "id": "id",
        },
    )
