"""Parts that the pages share: cached figures, safe text, tiles, notices and paging.

Names of pools, protocols and chains, reasons and errors are data: in Markdown they are escaped.
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from common.plain_text import REPLACEMENT, without_controls
from reporting.report.formatting import UNKNOWN

PAGE_ROWS = 50
TILE_WIDTH = 168
"""Pixels; two tiles fit into a screen of 390."""
CACHED_RESULTS = 64
"""Results kept of each cached figure: filters of a few users."""

_MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&\"'=^@/])")


def escaped(text: object) -> str:
    """Return text of the data that Markdown shows as it is: no link, image, formula or colour."""
    return _MARKDOWN_SIGNS.sub(r"\\\1", one_line(text))


def one_line(text: object) -> str:
    """Return text of the data without line breaks and signs that have no shape."""
    return " ".join(without_controls(str(text)).replace(REPLACEMENT, " ").split())


def pool_label(pool: Any) -> str:
    """Return the symbol, name or id of a pool."""
    labels = (pool.symbol, pool.name, pool.pool_id)
    return one_line(next(label for label in labels if label is not None and label == label))


def pool_place(pool: Any) -> str:
    """Return protocol and chain of a pool."""
    parts = [one_line(text) for text in (pool.protocol, pool.chain) if text and text == text]
    return " · ".join(parts)


def pool_link(pool_id: str) -> str:
    """Return the address of a pool's page, relative to the dashboard's."""
    return f"/pool?pool={quote(pool_id, safe='')}"


def long_day(day: dt.date) -> str:
    """Return a day such as Mon 6 Oct 2025."""
    return f"{day:%a} {day.day} {day:%b %Y}"


def utc(time: dt.datetime | None) -> str:
    """Return a time to the minute, or a dash."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M}" if time else UNKNOWN


def to_second(time: object) -> str:
    """Return the text of a time in UTC, as PostgreSQL writes it, without fraction and zone."""
    return UNKNOWN if time is None else re.sub(r"(\.\d+)?\+00\b", "", str(time))


def tiles(facts: Sequence[tuple[str, str, str]]) -> None:
    """Show figures side by side, below each other on a narrow screen.

    Args:
        facts: title, value and note of each.
    """
    with st.container(horizontal=True, gap="small"):
        for title, value, note in facts:
            with st.container(border=True, width=TILE_WIDTH, height="stretch"):
                st.metric(escaped(title), value)
                # a number and its unit stay in one line
                st.caption(escaped(note).replace(" %", "&nbsp;%") if note else "&nbsp;")


def commands(*lines: str) -> None:
    """Show commands to copy; without colours of a language, whose contrast is below AA."""
    st.code("\n".join(f"python run_spark_local.py {line}" for line in lines), language=None)


def shell_word(text: object) -> str:
    """Return text of the data as one word of a command."""
    return shlex.quote(one_line(text))


def table(rows: pd.DataFrame, columns: dict[str, Any], **options: Any) -> Any:
    """Show a table with the columns of `columns`, in that order.

    Args:
        rows: a frame that has these columns.
        columns: Streamlit's configuration by column; every heading has the unit.
        options: further arguments of `st.dataframe`.
    """
    return st.dataframe(
        rows[list(columns)],
        column_config=columns,
        hide_index=True,
        width="stretch",
        **options,
    )


def selectable_table(rows: pd.DataFrame, columns: dict[str, Any], **options: Any) -> int | None:
    """Show a table as `table` does, and return the position of the row that is selected, or None.

    Args:
        options: `key`, and further arguments of `st.dataframe`.
    """
    event = table(rows, columns, on_select="rerun", selection_mode="single-row", **options)
    # the rows may have changed since the selection
    return next((number for number in event.selection.rows if number < len(rows)), None)


def select_hint(shown: str) -> None:
    """Say how a row is selected, without a mouse too.

    Args:
        shown: what a selected row shows.
    """
    st.caption(f"Select a row to see {shown}. By keyboard: arrow keys, then Shift+Space.")


def open_pool(pool_id: str, label: str) -> None:
    """Show a link to a pool's page: those inside tables can't be reached by keyboard."""
    st.page_link(
        st.session_state["pool_page"],
        label=f"Open the page of {escaped(label)}",
        query_params={"pool": pool_id},
    )


def texts(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the frame with these columns on one line and a dash for unknown values."""
    shown = rows.copy()
    for column in columns:
        shown[column] = [_known_text(value) for value in rows[column]]
    return shown


def _known_text(value: Any) -> str:
    # NaN differs from itself
    return UNKNOWN if value is None or value != value else one_line(value)


class Pager:
    """Pages of a table that are found by the key of the last row of the page before.

    Args:
        name: unique name of the table.
        selection: filter and order; another one starts at the first page.
    """

    def __init__(self, name: str, selection: object) -> None:
        self._name = f"pager_{name}"
        state = st.session_state.get(self._name)
        # the keys of another filter or order say nothing about this one
        if state is None or state["selection"] != selection:
            state = {"selection": selection, "keys": []}
            st.session_state[self._name] = state
        self._keys: list[Any] = state["keys"]

    @property
    def after(self) -> Any:
        """Key of the last row of the page before; None on the first page."""
        return self._keys[-1] if self._keys else None

    @property
    def number(self) -> int:
        """Number of the page, from 1."""
        return len(self._keys) + 1

    def buttons(self, last_key: Any, total: int | None = None) -> None:
        """Show the buttons of the previous and the next page.

        Args:
            last_key: key of the last row that is shown; None if no page follows.
            total: number of rows of all pages, if it is known.
        """
        if last_key is None and not self._keys:
            return
        pages = "" if total is None else f" of {-(-total // PAGE_ROWS):,}"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Previous page",
                key=f"{self._name}_previous",
                disabled=not self._keys,
                on_click=self._back,
            )
            st.button(
                "Next page",
                key=f"{self._name}_next",
                disabled=last_key is None,
                on_click=self._forward,
                args=(last_key,),
            )
            st.markdown(f"Page {self.number:,}{pages}")

    def _back(self) -> None:
        self._keys.pop()

    def _forward(self, last_key: Any) -> None:
        self._keys.append(last_key)
