"""The script that Streamlit runs for every visit and click: navigation, and the chosen page.

`server` (or a test) has set the database with `connection.use` before. The pages are in `views/`:
Streamlit would list the files of a folder `pages/` in a menu of its own.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from reporting.dashboard import visits
from reporting.dashboard.charts import colours
from reporting.dashboard.connection import database_problem
from reporting.dashboard.page_parts import escaped
from reporting.dashboard.views import data, pool, quality, runs, tomorrow

ICON = Path(__file__).with_name("icon.svg")
# Streamlit's own grey of notes has a contrast of 4.2:1, and AA needs 4.5:1.
# Its CSV of a table leaves formulas as they are, which a spreadsheet runs: `csv_of` does not.
# Some of its links and tables do not show that they have the focus (WCAG 2.4.7).
STYLE = """
<style>
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] p {{
    color: {colours.muted}; opacity: 1;
}}
a:focus-visible, button:focus-visible, summary:focus-visible,
[data-testid="stDataFrameResizable"]:focus-within {{
    outline: 2px solid {colours.accent} !important; outline-offset: 1px;
}}
[data-testid="stElementToolbarButton"]:has(button[aria-label="Download as CSV"]) {{
    display: none;
}}
</style>
"""


def main() -> None:
    """Show the chosen page, or why the database cannot be read."""
    st.set_page_config(page_title="YieldSpark", layout="wide", page_icon=str(ICON))
    st.html(STYLE.format(colours=colours()))
    pool_page = st.Page(pool.show, title="Pool", url_path="pool")
    # for links of other pages
    st.session_state["pool_page"] = pool_page
    pages = [
        st.Page(tomorrow.show, title="Tomorrow", url_path="tomorrow", default=True),
        pool_page,
        st.Page(quality.show, title="Quality", url_path="quality"),
        st.Page(runs.show, title="Runs", url_path="runs"),
        st.Page(data.show, title="Data", url_path="data"),
    ]
    page = st.navigation(pages, position="top")
    if problem := database_problem():
        st.title("The database can't be read")
        st.error(escaped(problem), icon=":material/error:")
    else:
        page.run()


if __name__ == "__main__":
    with visits.counted():
        main()
