"""The count of a run's raw rows by what the row checks said: accepted + quarantined = read, in
every run.

In: parsed raw rows (columns reason and warning), in Spark. Out: the run's counts and its ledger's
entries of level `row`. No row is changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from common.errors import CheckFailed
from config_spark import Settings
from data_processing.checks.catalogue import words
from data_processing.checks.row_checks import RowCheck
from database.ledger.runs import Run

log = logging.getLogger(__name__)


def counting_columns(checks: Sequence[RowCheck]) -> list[Column]:
    """Aggregates over parsed rows: `read`, `accepted`, and for each check the rows it took (`fail`)
    or that pass with its warning (`warn`).

    Rows without an id were not read: they open a calendar.
    """
    found = {
        check.name: (
            F.col("reason") == check.name
            if check.severity == "fail"
            else F.col("reason").isNull() & F.col("warning").eqNullSafe(check.name)
        )
        for check in checks
    }
    return [
        F.count("id").alias("read"),
        F.count_if(F.col("id").isNotNull() & F.col("reason").isNull()).alias("accepted"),
        *(F.count_if(condition).alias(name) for name, condition in found.items()),
    ]


def record_counts(
    run: Run,
    settings: Settings,
    counts: Mapping[str, int],
    checks: Sequence[RowCheck],
    planned: int,
) -> None:
    """Write the counts into the run, and an entry for each check that found rows.

    Args: planned is how many rows the plan counted.
    Raises: CheckFailed where rows got lost between PostgreSQL and Spark, or have no reason that is
    known.
    """
    read, good = counts["read"], counts["accepted"]
    bad = sum(counts[check.name] for check in checks if check.severity == "fail")
    run.rows |= {"read": read, "quarantined": bad}
    run.checks += [
        _entry(check, counts[check.name], settings) for check in checks if counts[check.name]
    ]
    found = {
        "accepted_and_quarantined_are_all": (
            good + bad == read,
            f"{good} accepted and {bad} quarantined of {read} read",
        ),
        "planned_rows_were_read": (read >= planned, f"{read} read, {planned} planned"),
    }
    run.checks += [
        {
            "name": f"raw_rows.{name}",
            "level": "batch",
            "severity": "fail",
            "passed": passed,
            "found": said,
        }
        for name, (passed, said) in found.items()
    ]
    failed = [f"{name}: {said}" for name, (passed, said) in found.items() if not passed]
    if failed:
        raise CheckFailed(
            f"the raw rows failed {'; '.join(failed)}. Nothing was written; run again, and if it"
            " stays look at the database's log"
        )


def _entry(check: RowCheck, rows: int, settings: Settings) -> dict[str, Any]:
    done = "rows, not used" if check.severity == "fail" else "rows, used all the same"
    log.warning("check %s: %d %s", check.name, rows, done)
    return {
        "name": check.name,
        "level": "row",
        "severity": check.severity,
        "passed": False,
        "found": f"{words(check.name, settings)}: {rows:,} {done}",
        "failing": rows,
    }
