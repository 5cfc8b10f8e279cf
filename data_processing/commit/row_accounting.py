"""Counts a run's raw rows by the outcome of the row checks: accepted + quarantined = read.

Writes the run's counts and its ledger entries of level `row`. Changes no row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import CheckFailed
from config_spark import Settings
from data_processing.checks.catalogue import check_message
from data_processing.checks.row_checks import RowCheck
from database.ledger.runs import Run

log = logging.getLogger(__name__)


def record_counts(
    run: Run,
    settings: Settings,
    counts: Mapping[str, int],
    checks: Sequence[RowCheck],
    planned: int,
) -> None:
    """Write the counts into the run, with an entry for each check that rejected or reported rows.

    Args:
        run: the open run.
        settings: limits, for the messages.
        counts: `read`, `accepted` and one for each check, as `row_count_columns` has them.
        checks: row checks with severities.
        planned: number of rows that the plan counted.

    Raises:
        CheckFailed: rows were lost after PostgreSQL, or have an unknown reason.
    """
    read, accepted = counts["read"], counts["accepted"]
    rejected = sum(counts[check.name] for check in checks if check.severity == "fail")
    run.rows |= {"read": read, "quarantined": rejected}
    run.checks += [
        _entry(check, counts[check.name], settings) for check in checks if counts[check.name]
    ]
    results = {
        "accepted_and_quarantined_are_all": (
            accepted + rejected == read,
            f"{accepted} accepted and {rejected} quarantined of {read} read",
        ),
        "planned_rows_were_read": (read >= planned, f"{read} read, {planned} planned"),
    }
    run.checks += [
        {
            "name": f"raw_rows.{name}",
            "level": "batch",
            "severity": "fail",
            "passed": passed,
            "found": message,
        }
        for name, (passed, message) in results.items()
    ]
    failed = [f"{name}: {message}" for name, (passed, message) in results.items() if not passed]
    if failed:
        raise CheckFailed(
            f"the raw rows failed {'; '.join(failed)}. Nothing was written; run again, and if it"
            " stays look at the database's log"
        )


def _entry(check: RowCheck, rows: int, settings: Settings) -> dict[str, Any]:
    outcome = "rows, not used" if check.severity == "fail" else "rows, used all the same"
    log.warning("check %s: %d %s", check.name, rows, outcome)
    return {
        "name": check.name,
        "level": "row",
        "severity": check.severity,
        "passed": False,
        "found": f"{check_message(check.name, settings)}: {rows:,} {outcome}",
        "failing": rows,
    }
