"""A check's result has one JSON form in the run ledger; keys without a value are left out."""

from __future__ import annotations

from typing import Any

import pytest

from database.ledger.check_result import Acceptance, CheckResult

ACCEPTED = Acceptance(("spike", "null_share"), "me@here", "a known outage")


@pytest.mark.parametrize(
    ("result", "entry", "blocks"),
    [
        (
            CheckResult("spike", True, "warn", "nothing", "pool_day", failing=0, sample=[]),
            {
                "name": "spike",
                "level": "pool_day",
                "severity": "warn",
                "passed": True,
                "found": "nothing",
                "failing": 0,
                "sample": [],
            },
            False,
        ),
        (
            CheckResult("null_share", False, "fail", "too many", "batch", 1, [{"n": 1}], ACCEPTED),
            {
                "name": "null_share",
                "level": "batch",
                "severity": "fail",
                "passed": False,
                "found": "too many",
                "failing": 1,
                "sample": [{"n": 1}],
                "accepted": {"by": "me@here", "reason": "a known outage"},
            },
            False,
        ),
        (
            CheckResult("staged_rows", False, "fail", "2 in staging, 1 left Spark"),
            {
                "name": "staged_rows",
                "severity": "fail",
                "passed": False,
                "found": "2 in staging, 1 left Spark",
            },
            True,
        ),
        (
            CheckResult("scores", True, "info", "1.0", figures={"scores": [None]}),
            {
                "name": "scores",
                "severity": "info",
                "passed": True,
                "found": "1.0",
                "scores": [None],
            },
            False,
        ),
    ],
    ids=["passed", "accepted", "blocking", "figures"],
)
def test_entry_of_the_ledger(result: CheckResult, entry: dict[str, Any], blocks: bool) -> None:
    assert (result.to_json(), result.blocks_commit) == (entry, blocks)
