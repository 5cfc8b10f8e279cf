"""Page Data: freshness of the sources, gaps by pool, quarantine by reason, and rows by day."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Any

import pandas as pd
import streamlit as st

from data_processing.quarantine.queries import Selection, list_rows, remedy
from reporting.dashboard import charts
from reporting.dashboard.charts import Line
from reporting.dashboard.connection import DataVersion, connected, data_version
from reporting.dashboard.page_parts import (
    CACHED_RESULTS,
    Pager,
    commands,
    escaped,
    one_line,
    shell_word,
    table,
    texts,
    tiles,
    to_second,
    utc,
)
from reporting.figures.data_gaps import (
    GapKey,
    SourceFreshness,
    gap_calendar,
    pools_with_gaps,
    rows_by_day,
    source_freshness,
)
from reporting.figures.data_quality import (
    DataQuality,
    QuarantinedRows,
    RawEnd,
    data_quality,
    raw_end,
)
from reporting.figures.forecast_search import like_pattern
from reporting.report import formatting

CALENDAR_POOLS = 25
CALENDAR_DAYS = {"30 days": 30, "60 days": 60, "120 days": 120}
LABEL_LENGTH, ID_LENGTH = 24, 8
"""Characters of a pool's name that are shown, and of its id at least."""
ROW_DAYS = 90
QUARANTINED_ROWS, QUARANTINE_REASONS = 20, 8
"""Newest rows that are listed of each reason, and reasons that have such a list."""
FRESH_SECONDS = 60
"""Newest rows of the sources change between runs, when history is loaded."""


@st.cache_data(show_spinner="Reading the state of the data", max_entries=CACHED_RESULTS, ttl=600)
def _quality(version: DataVersion) -> DataQuality:
    return data_quality(connected().engine)


@st.cache_data(show_spinner="Reading the newest snapshot", max_entries=4)
def raw_end_of(version: DataVersion) -> RawEnd:
    """Return the end of the raw history when the version was first shown."""
    return raw_end(connected().engine)


@st.cache_data(
    show_spinner="Reading the newest rows", max_entries=CACHED_RESULTS, ttl=FRESH_SECONDS
)
def _sources(version: DataVersion) -> list[SourceFreshness]:
    engine = connected().engine
    # the whole history was read once for this version; now only the rows that came since
    return source_freshness(engine, raw_end(engine, raw_end_of(version)))


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _rows_by_day(version: DataVersion) -> pd.DataFrame:
    return rows_by_day(connected().engine, days=ROW_DAYS)


@st.cache_data(show_spinner="Reading the gaps", max_entries=CACHED_RESULTS)
def _gaps(version: DataVersion, days: int, search: str, after: GapKey | None) -> pd.DataFrame:
    return pools_with_gaps(
        connected().engine,
        days=days,
        limit=CALENDAR_POOLS + 1,
        search=like_pattern(search),
        after=after,
    )


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS)
def _calendar(version: DataVersion, pools: tuple[str, ...], days: int) -> pd.DataFrame:
    return gap_calendar(connected().engine, list(pools), days=days)


@st.cache_data(show_spinner=False, max_entries=CACHED_RESULTS, ttl=FRESH_SECONDS)
def _quarantined(version: DataVersion, reason: str) -> list[dict[str, Any]]:
    listing = list_rows(connected().engine, Selection(reason=reason), limit=QUARANTINED_ROWS)
    rows: list[dict[str, Any]] = listing["rows"]
    return rows


def show() -> None:
    """Show the page."""
    st.title("Data")
    version = data_version()
    health = _quality(version)
    if not health.pool_days:
        _show_empty(version, health, raw_end_of(version))
        return
    st.caption("Days and times are UTC.")
    _show_tiles(health)
    _show_sources(_sources(version))
    _show_rows(_rows_by_day(version))
    _show_gaps(version)
    _show_quarantine(version, health)


def _show_empty(version: DataVersion, health: DataQuality, raw: RawEnd) -> None:
    if raw.newest:
        st.info("There is raw history, and no metrics yet. Compute them:")
        commands("calculate_metrics", "forecast_pools")
    else:
        st.info("The database has no history yet. Load yours, then run both jobs:")
        commands("load FILE...", "calculate_metrics", "forecast_pools")
        st.write("Or load the sample of 72 pools and run both jobs on it:")
        commands("demo")
    if health.quarantine:
        _show_quarantine(version, health)


def _show_tiles(health: DataQuality) -> None:
    tiles(
        [
            ("Pools", formatting.count(health.pools), f"{health.active_pools:,} active"),
            (
                "Rows of metrics",
                formatting.count(health.pool_days),
                f"{health.first_day} to {health.last_day}",
            ),
            (
                "APY observed",
                formatting.share(health.shares["apy"].observed),
                f"carried {formatting.share(health.shares['apy'].carried)}, unknown"
                f" {formatting.share(health.shares['apy'].unknown)}",
            ),
            (
                "Not observed",
                formatting.count(health.active_pools_not_observed),
                f"active pools, on {health.last_day}",
            ),
            (
                "In quarantine",
                formatting.count(sum(entry.rows for entry in health.quarantine)),
                "open rows, by reason below",
            ),
        ]
    )


def _show_sources(sources: list[SourceFreshness]) -> None:
    st.header("Freshness by source")
    now = dt.datetime.now(dt.UTC)
    rows = pd.DataFrame([asdict(source) for source in sources])
    rows["age"] = [
        formatting.age((now - source.newest).total_seconds()) if source.newest else "no row"
        for source in sources
    ]
    rows["newest"] = [utc(source.newest) for source in sources]
    table(
        texts(rows, "source", "content"),
        {"content": "content", "newest": "newest row, UTC", "age": "age", "source": "table"},
    )


def _show_rows(rows: pd.DataFrame) -> None:
    st.header("Rows by day")
    observed = rows.assign(observed=rows["rows"] - rows["carried"] - rows["unknown"])
    newest = observed.iloc[-1]
    st.caption(
        f"On {newest['date']}: {newest['rows']:,} rows of metrics. Their APY was observed in"
        f" {newest['observed']:,}, carried forward in {newest['carried']:,} and is unknown in"
        f" {newest['unknown']:,}. The metrics runs read {newest['snapshots']:,} raw snapshots."
    )
    drawn = [
        Line("snapshots", "raw snapshots", "ink", (10, 3, 2, 3)),
        Line("observed", "APY observed", "muted", points="circle"),
        Line("carried", "APY carried", "second", (6, 3), points="square"),
        Line("unknown", "APY unknown", "bad", (2, 2), points="cross"),
    ]
    charts.show(
        charts.lines(observed, drawn, unit="rows", value_format=",", is_log=True),
        f"Raw snapshots and rows of metrics by day, {len(rows)} days; the table below has the"
        " numbers.",
    )
    with st.expander(f"Numbers of the last {ROW_DAYS} days"):
        table(
            observed[::-1],
            {
                "date": "day, UTC",
                "rows": st.column_config.NumberColumn("metrics, rows", format="localized"),
                "observed": st.column_config.NumberColumn("APY observed, rows", format="localized"),
                "carried": st.column_config.NumberColumn("APY carried, rows", format="localized"),
                "unknown": st.column_config.NumberColumn("APY unknown, rows", format="localized"),
                "snapshots": st.column_config.NumberColumn(
                    "raw snapshots read, rows", format="localized"
                ),
            },
        )


def _show_gaps(version: DataVersion) -> None:
    st.header("Gaps by pool")
    st.caption(
        "Pools with the most days on which no APY was observed. Carried: the last value, for up to"
        " MAX_FILL_DAYS days. Unknown: no value."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = st.text_input(
            "Find a pool", placeholder="symbol, protocol, chain or id", key="gap_search", width=300
        )
        shown = st.segmented_control(
            "Last", list(CALENDAR_DAYS), default="60 days", key="gap_days", required=True
        )
    days = CALENDAR_DAYS[shown or "60 days"]
    pager = Pager("gaps", (version, search, days))
    listed = _gaps(version, days, search, pager.after)
    pools = listed.head(CALENDAR_POOLS)
    if pools.empty:
        st.write("No such pool has a day without an observed APY in these days.")
        return
    calendar = _calendar(version, tuple(pools["pool_id"]), days)
    named = gap_labels(pools)
    # the chart lists pools in the order of its rows, which is that of the page
    parts = [calendar[calendar["pool_id"] == pool_id] for pool_id in named]
    drawn = pd.concat(parts)
    drawn["label"] = drawn["pool_id"].map(named)
    charts.show(
        charts.gap_heat_map(drawn),
        f"Calendar of {len(pools)} pools over {days} days; behind a pool's name is its number of"
        " days without an observed APY.",
    )
    last = pools.iloc[-1]
    more = len(listed) > CALENDAR_POOLS
    pager.buttons(GapKey(int(last["gap_days"]), last["pool_id"]) if more else None)


def gap_labels(pools: pd.DataFrame) -> dict[str, str]:
    """Return a different label for each pool: its name, gap days and the start of its id.

    Args:
        pools: pool_id, label, gap_days.

    Returns:
        Labels by pool_id, in the order of the rows.
    """
    ids = [str(pool_id) for pool_id in pools["pool_id"]]
    # ids may begin alike, and two pools with one label would be drawn in one row
    length = ID_LENGTH
    while len({pool_id[:length] for pool_id in ids}) < len(ids):
        length += 1
    names = [one_line(label)[:LABEL_LENGTH] for label in pools["label"]]
    # the end of a long label is cut off, and every id is in the tooltip
    return {
        pool_id: f"{name} ({days}) · {pool_id[:length]}"
        for pool_id, name, days in zip(ids, names, pools["gap_days"], strict=True)
    }


def _show_quarantine(version: DataVersion, health: DataQuality) -> None:
    st.header("Quarantine")
    if not health.quarantine:
        st.write("No row is in quarantine.")
        return
    table(
        texts(
            pd.DataFrame([asdict(entry) for entry in health.quarantine]), "source_table", "reason"
        ),
        {
            "reason": "reason",
            "source_table": "source table",
            "rows": st.column_config.NumberColumn("open rows", format="localized"),
        },
    )
    for entry in health.quarantine[:QUARANTINE_REASONS]:
        with st.expander(
            f"{escaped(entry.reason)}: {entry.rows:,} rows of {escaped(entry.source_table)}"
        ):
            _show_reason(version, entry)


def _show_reason(version: DataVersion, entry: QuarantinedRows) -> None:
    newest = _quarantined(version, entry.reason)
    rows = [row for row in newest if row["source_table"] == entry.source_table]
    if rows:
        st.write(f"What to do: {escaped(remedy(rows[0]))}")
    reason = shell_word(entry.reason)
    commands(
        f"quarantine list --reason {reason}",
        f"quarantine replay --reason {reason}",
        "calculate_metrics",
    )
    if rows:
        st.caption(f"The newest {len(rows)} rows")
        shown = pd.DataFrame(rows)
        for name in ("timestamp", "quarantined_at"):
            shown[name] = [to_second(time) for time in shown[name]]
        table(
            texts(shown, "pool_id"),
            {
                "id": st.column_config.NumberColumn("id", format="%d"),
                "pool_id": "pool id",
                "timestamp": "snapshot, UTC",
                "quarantined_at": "quarantined, UTC",
            },
        )
