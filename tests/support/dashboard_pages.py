"""The dashboard's pages inside the tests' process, as Streamlit's AppTest runs them."""

from __future__ import annotations

import datetime as dt
from itertools import chain
from typing import Any

import pandas as pd
import streamlit as st
from sqlalchemy import Engine, insert, text
from streamlit.testing.v1 import AppTest

from config_spark import Settings
from database.schema.own_tables import promotion, run_ledger
from reporting.dashboard import connection, scoring
from reporting.dashboard.scores import compute_scores
from tests.support.hostile_values import FORMATS, FORMULAS, LOG_LINES, MARKUP, TERMINAL
from tests.support.report_store import UNSAFE, decision, drift, ledger_row

PAGES = ("tomorrow", "pool", "quality", "runs", "data")
SECONDS = 60.0
POOLS = 8
"""Pools of `report_store.fill`: p0 to p7."""

HOSTILE_NAMES = (
    *MARKUP[:2],
    *MARKUP[5:8],
    FORMULAS[0],
    LOG_LINES[0],
    TERMINAL[6],
    MARKUP[3],
    FORMATS[1],
)
"""Names that are code, markup or formulas in a page."""


def run_sql(engine: Engine, query: str, **parameters: Any) -> list[Any]:
    """Return the rows of a statement, in a transaction of its own."""
    with engine.begin() as session:
        return list(session.execute(text(query), parameters))


def show_page(settings: Settings, name: str, **query: str) -> AppTest:
    """Return a page of the settings' database after its first run.

    Args:
        settings: of a running server.
        name: one of PAGES.
        query: parameters of the address.
    """
    connection.use(settings)
    # a database is reused by other tests, which have runs of the same id
    st.cache_data.clear()
    if name == "quality":
        # a process of the server computes them
        version = connection.data_version()
        scoring.keep(version, compute_scores(connection.connected().engine))
    script = f"from reporting.dashboard.views import {name}\n{name}.show()\n"
    page = AppTest.from_string(script, default_timeout=SECONDS)
    for key, value in query.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception, page.exception
    return page


def metrics(page: AppTest) -> dict[str, str]:
    """Return the value of each tile by its title."""
    return {tile.label.replace("\\", ""): tile.value for tile in page.metric}


def tables(page: AppTest) -> list[pd.DataFrame]:
    """Return the tables of a page, in order."""
    return [table.value for table in page.dataframe]


def table_with(page: AppTest, *columns: str) -> pd.DataFrame:
    """Return the first table that has these columns."""
    return next(table for table in tables(page) if {*columns} <= {*table.columns})


def shown_text(page: AppTest) -> str:
    """Return the Markdown of a page, of all kinds of elements but code."""
    kinds: tuple[Any, ...] = (
        *(page.title, page.header, page.subheader, page.markdown, page.caption),
        *(page.info, page.warning, page.error, page.success),
    )
    return "\n".join(str(element.value) for element in chain.from_iterable(kinds))


def name_hostile(engine: Engine) -> None:
    """Give every text of the database a hostile value, and add runs that have them.

    The pool `p<number>` has HOSTILE_NAMES[number]; there are fewer pools than names, and the others
    are protocols and chains.
    """
    names = list(HOSTILE_NAMES)
    renamed = text(
        "UPDATE pools SET name = :name, symbol = :name, protocol = :place, chain = :place"
        " WHERE pool_id = :pool"
    )
    with engine.begin() as connection:
        for number in range(POOLS):
            place = names[(number + POOLS) % len(names)]
            values = {"name": names[number], "place": place, "pool": f"p{number}"}
            connection.execute(renamed, values)
        connection.execute(
            text(
                "UPDATE yieldspark.forecasts SET apy_fallback_reason = :name WHERE pool_id = 'p1'"
            ),
            {"name": UNSAFE},
        )
        connection.execute(
            insert(run_ledger),
            [
                ledger_row(
                    f"{UNSAFE} {number}",
                    UNSAFE,
                    UNSAFE,
                    error=name,
                    mode=name,
                    stages={name: 1.0},
                    checks=drift(features=[{"feature": name, "psi": 0.4, "ks": 0.3}]),
                    plan={name: name},
                    started_at=dt.datetime(2025, 10, 7, 1, number, tzinfo=dt.UTC),
                )
                for number, name in enumerate(names)
            ],
        )
        connection.execute(
            insert(run_ledger),
            ledger_row(
                "r9",
                "forecast_pools",
                "succeeded",
                checks=drift(features=[{"feature": UNSAFE, "psi": 0.4, "ks": 0.3}]),
            ),
        )
        connection.execute(
            insert(promotion), [decision("refused", serving_version=None, reason=UNSAFE)]
        )
        connection.execute(
            text(
                "INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id,"
                " timestamp, reason, raw_json_data)"
                " VALUES ('r', :name, '1', 'p7', now(), :name, '{}')"
            ),
            {"name": UNSAFE},
        )


def shown_commands(page: AppTest) -> str:
    """Return the blocks of code of a page, which are shown as they are."""
    return "\n".join(block.value for block in page.code)
