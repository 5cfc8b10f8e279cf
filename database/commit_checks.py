"""Checks of the rows that a run is about to commit, as data: a name, a severity and a query that
returns the failing rows.

They run inside the run's transaction, on staging and before the merge. A failing row of severity
`fail` prevents the commit. A `warn` check is only reported, and so is one that is not finished
after WARN_SECONDS.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from common.errors import CheckFailed, CheckUnfinished
from database.connections.time_limit import WARN_SECONDS, statement_time_limit
from database.ledger.check_result import Acceptance, CheckResult, Level, Severity
from database.ledger.runs import Run

log = logging.getLogger(__name__)

SAMPLE_ROWS = 5


@dataclass(frozen=True)
class BatchCheck:
    """One check of a commit.

    Attributes:
        name: name in messages and in the run ledger.
        level: unit that the query counts: rows, pool-days or the whole commit.
        severity: `fail` prevents the commit, `warn` is reported.
        message: message about the failing rows.
        query: SELECT that returns them; the first row is part of the message.
        parameters: parameters of the query.
        preparation: statements that run before it.
    """

    name: str
    level: Level
    severity: Severity
    message: str
    query: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    preparation: Sequence[str] = ()


@dataclass(frozen=True)
class CommitChecks:
    """The checks of one commit.

    Attributes:
        checks: run in this order.
        preparation: statements and parameters that run before them, for temporary tables that
            several checks use.
    """

    checks: Sequence[BatchCheck]
    preparation: Sequence[tuple[str, Mapping[str, Any]]] = ()


def run_checks(run: Run, commit_checks: CommitChecks) -> None:
    """Run the checks and record each in `run.checks`.

    Raises:
        CheckFailed: names every check that prevents the commit, its first row and the next step.
    """
    for statement, parameters in commit_checks.preparation:
        run.connection.execute(text(statement), parameters)
    results = [_run_check(run.connection, check, run.acceptance) for check in commit_checks.checks]
    # before the error: a blocked run records its checks too
    run.checks += results
    for result in results:
        if not result.passed and not result.blocks_commit:
            log.warning("check %s%s", result, " (accepted)" if result.acceptance else "")
    blocking = [result for result in results if result.blocks_commit]
    if blocking:
        raise CheckFailed(_blocked_message(blocking))


def failing_rows(
    connection: Connection, query: str, parameters: Mapping[str, Any] | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """Return the number of rows of a query, and the first SAMPLE_ROWS as JSON values."""
    # MATERIALIZED: the query runs once for the count and the sample
    statement = text(f"""
        WITH failures AS MATERIALIZED ({query})
        SELECT
            (SELECT count(*) FROM failures) AS failing,
            (
                SELECT coalesce(json_agg(sampled), '[]')
                FROM (SELECT * FROM failures LIMIT {SAMPLE_ROWS}) AS sampled
            ) AS sample
    """)
    failing, sample = connection.execute(statement, parameters).one()
    return failing, sample


def _run_check(
    connection: Connection, check: BatchCheck, acceptance: Acceptance | None
) -> CheckResult:
    try:
        with (
            # a check that may block the commit gets the time that it needs
            statement_time_limit(connection, WARN_SECONDS)
            if check.severity == "warn"
            else nullcontext()
        ):
            for statement in check.preparation:
                connection.exec_driver_sql(statement)
            failing, sample = failing_rows(connection, check.query, check.parameters)
    except CheckUnfinished as error:
        return CheckResult(
            check.name, False, check.severity, str(error), check.level, failing=0, sample=[]
        )
    is_acceptable = check.severity == "fail" and acceptance and check.name in acceptance.names
    return CheckResult(
        check.name,
        failing == 0,
        check.severity,
        _describe_failures(check.message, failing, sample),
        check.level,
        failing,
        sample,
        acceptance if failing and is_acceptable else None,
    )


def _describe_failures(message: str, failing: int, sample: list[dict[str, Any]]) -> str:
    if not failing:
        return "nothing"
    first = ", ".join(
        f"{name} {_format(value)}" for name, value in sample[0].items() if value is not None
    )
    return f"{message}: {first}" + (f" (the first of {failing:,})" if failing > 1 else "")


def _format(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _blocked_message(blocking: Sequence[CheckResult]) -> str:
    findings = "; ".join(map(str, blocking))
    options = " ".join(f"--accept-check {result.name}" for result in blocking)
    return (
        f"blocked, nothing was written. {findings}. Look at the source and run again; to let this"
        f" one run through: {options} --reason TEXT; to change limit or severity: docs/quality.md"
    )
