"""Counts a run's raw rows by the outcome of the row checks: accepted + quarantined = read.

Writes the run's counts and its ledger entries of level `row`. Changes no row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from common.errors import CheckFailed
from config_spark import Settings
from data_processing.checks.catalogue import check_message
from data_processing.checks.row_checks import RowCheck
from database.ledger.check_result import CheckResult
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
        _row_result(check, counts[check.name], settings) for check in checks if counts[check.name]
    ]
    totals = [
        CheckResult(
            "raw_rows.accepted_and_quarantined_are_all",
            accepted + rejected == read,
            "fail",
            f"{accepted} accepted and {rejected} quarantined of {read} read",
            "batch",
        ),
        CheckResult(
            "raw_rows.planned_rows_were_read",
            # rows may be inserted between the plan and the snapshot of the read
            read >= planned,
            "fail",
            f"{read} read, {planned} planned",
            "batch",
        ),
    ]
    run.checks += totals
    failed = [str(result).removeprefix("raw_rows.") for result in totals if not result.passed]
    if failed:
        raise CheckFailed(
            f"the raw rows failed {'; '.join(failed)}. Nothing was written; run again, and if it"
            " stays look at the database's log"
        )


def _row_result(check: RowCheck, rows: int, settings: Settings) -> CheckResult:
    outcome = "rows, not used" if check.severity == "fail" else "rows, used all the same"
    log.warning("check %s: %d %s", check.name, rows, outcome)
    message = f"{check_message(check.name, settings)}: {rows:,} {outcome}"
    return CheckResult(check.name, False, check.severity, message, "row", failing=rows)
