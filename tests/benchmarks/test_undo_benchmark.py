"""The benchmark of undo on a history of a few pools, in the session's server."""

from __future__ import annotations

import itertools

from benchmarks.metrics_data import History
from benchmarks.undo import CASES, CHANGED, UNDO, measure, result_text
from config_spark import Settings


def test_measures_every_case_with_and_without_kept_rows(database: Settings) -> None:
    seconds = measure(database, History.until_today(5, 40), repeat=1)
    assert seconds.keys() == {*itertools.product((*CASES, CHANGED), (0, 7)), (UNDO, 7)}
    assert f"| {UNDO} | - | " in result_text(seconds)
