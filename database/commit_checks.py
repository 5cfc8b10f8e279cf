"""Checks of what a run is about to commit, as data: a name, a severity and a query whose rows are
the failures (as dbt and SQLMesh have it).

They run inside the run's transaction, on staging and before the merge. No row: passed. Rows of a
`fail` check stop the commit, rows of a `warn` check are reported, and so is one that takes longer
than WARN_SECONDS. What a check means is not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, text

from common.errors import CheckFailed, CheckUnfinished
from database.connections.time_limit import WARN_SECONDS, statement_time_limit
from database.ledger.runs import Acceptance, Run

log = logging.getLogger(__name__)

Level = Literal["row", "pool_day", "batch"]
Severity = Literal["fail", "warn"]

SAMPLE_ROWS = 5


@dataclass(frozen=True)
class BatchCheck:
    """`query` returns what is wrong, `parameters` are its own; `words` say to a reader what that
    is. `preparation`: statements run before the query, for this check alone.
    """

    name: str
    level: Level
    severity: Severity
    words: str
    query: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    preparation: Sequence[str] = ()


@dataclass(frozen=True)
class CommitChecks:
    """The checks of one commit. `preparation`: statements run before them, for what several share
    (temporary tables, say).
    """

    checks: Sequence[BatchCheck]
    preparation: Sequence[tuple[str, Mapping[str, Any]]] = ()


def run_checks(run: Run, commit_checks: CommitChecks) -> None:
    """Run all of them and record each in the run's `checks`.

    Raises: CheckFailed naming every check that stops the commit, its first row, and how to go on.
    """
    for statement, parameters in commit_checks.preparation:
        run.connection.execute(text(statement), parameters)
    entries = [_entry(run.connection, check, run.acceptance) for check in commit_checks.checks]
    run.checks += entries
    for entry in entries:
        if not entry["passed"] and (entry["severity"] == "warn" or "accepted" in entry):
            log.warning(
                "check %s: %s%s",
                entry["name"],
                entry["found"],
                " (accepted)" if "accepted" in entry else "",
            )
    stopping = [
        entry
        for entry in entries
        if not entry["passed"] and entry["severity"] == "fail" and "accepted" not in entry
    ]
    if stopping:
        raise CheckFailed(_sentence(stopping))


def failing_rows(
    connection: Connection, query: str, parameters: Mapping[str, Any] | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """How many rows the query returns, and the first SAMPLE_ROWS of them as plain JSON values."""
    counted = text(
        f"WITH wrong AS MATERIALIZED ({query}) SELECT (SELECT count(*) FROM wrong) AS failing,"
        f" (SELECT coalesce(json_agg(sampled), '[]') FROM (SELECT * FROM wrong LIMIT {SAMPLE_ROWS})"
        " AS sampled) AS sample"
    )
    failing, sample = connection.execute(counted, parameters).one()
    return failing, sample


def _entry(
    connection: Connection, check: BatchCheck, acceptance: Acceptance | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": check.name,
        "level": check.level,
        "severity": check.severity,
    }
    try:
        with (
            statement_time_limit(connection, WARN_SECONDS)
            if check.severity == "warn"
            else nullcontext()
        ):
            for statement in check.preparation:
                connection.exec_driver_sql(statement)
            failing, sample = failing_rows(connection, check.query, check.parameters)
    except CheckUnfinished as error:
        return entry | {"passed": False, "found": str(error), "failing": 0, "sample": []}
    entry |= {
        "passed": failing == 0,
        "found": _found(check.words, failing, sample),
        "failing": failing,
        "sample": sample,
    }
    if failing and check.severity == "fail" and acceptance and check.name in acceptance.names:
        entry["accepted"] = {"by": acceptance.by, "reason": acceptance.reason}
    return entry


def _found(words: str, failing: int, sample: list[dict[str, Any]]) -> str:
    if not failing:
        return "nothing"
    first = ", ".join(
        f"{name} {_shown(value)}" for name, value in sample[0].items() if value is not None
    )
    return f"{words}: {first}" + (f" (the first of {failing:,})" if failing > 1 else "")


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sentence(stopping: list[dict[str, Any]]) -> str:
    findings = "; ".join(f"{entry['name']}: {entry['found']}" for entry in stopping)
    names = " ".join(f"--accept-check {entry['name']}" for entry in stopping)
    return (
        f"blocked, nothing was written. {findings}. Look at the source and run again; to let this"
        f" one run through: {names} --reason TEXT; to change limit or severity: docs/quality.md"
    )
