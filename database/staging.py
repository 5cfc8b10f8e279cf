"""Loading and committing a run's rows: staging in parallel, checks on staging, then one transaction
for merge, ledger and clean-up.

A failing check, a killed driver or a lost connection leaves the targets as they were; the next run
of the job drops what is left in staging.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import types as T
from sqlalchemy import Connection

from common.errors import CheckFailed
from config_spark import Settings
from database.commit_checks import CommitChecks, failing_rows, run_checks
from database.ledger.runs import Run
from database.schema import merge_sql
from database.schema.catalog import has_triggers
from database.schema.merge_sql import MergeTarget
from database.schema.tables import OWN_SCHEMA
from database.transport.query import LastStep, Transport, staging_types
from spark.interrupt import stop_if_interrupted

log = logging.getLogger(__name__)


MERGE_WORK_MEM = "256MB"
"""For the commit's transaction alone: its joins and counts hold keys of all staged rows, and
PostgreSQL's default of 4 MB sends them to disk.
"""


@dataclass(frozen=True)
class StagedFrame:
    """A frame to load once and merge into each target, in order. Columns that are loaded: boolean,
    int, bigint, double, string, date, timestamp.
    """

    frame: DataFrame
    targets: Sequence[MergeTarget]
    last_step: LastStep | None = None


@dataclass(frozen=True)
class MergeCounts:
    """What a merge did to a target, in rows; together they are all rows that were staged."""

    inserted: int
    updated: int
    unchanged: int


@dataclass(frozen=True)
class _Staging:
    name: str
    targets: Sequence[MergeTarget]
    double_columns: list[str]
    sent_rows: int


def commit_run(
    run: Run,
    settings: Settings,
    staged: Sequence[StagedFrame],
    transport: Transport,
    *,
    loaded: Callable[[], None] | None = None,
    checks: CommitChecks | None = None,
    also: Callable[[Connection], None] | None = None,
) -> MergeCounts:
    """Load, check, merge: all or nothing. Returns and records the counts of the first target.

    Args: loaded is called when all rows are in staging; checks run on it before the merges, also
    runs after them, inside the same transaction.
    Raises: CheckFailed with the failing check and its counts; DatabaseError.
    """
    with run.stage("load"):
        stagings = [
            _load(run, settings, one, number, transport) for number, one in enumerate(staged)
        ]
        if loaded:
            loaded()
    stop_if_interrupted()
    with run.stage("merge"), run.connection.begin():
        run.connection.exec_driver_sql(f"SET LOCAL work_mem = '{MERGE_WORK_MEM}'")
        for staging in stagings:
            # waits for loads that are still in flight (a speculative task) and keeps later ones out
            run.connection.exec_driver_sql(f"LOCK TABLE {staging.name} IN ACCESS EXCLUSIVE MODE")
            rows = _keep_last_attempts(run.connection, staging.name)
            run.connection.exec_driver_sql(f"ANALYZE {staging.name}")
            _check(run, staging, rows)
        if checks:
            run_checks(run, checks)
        counts = [
            merge_staged(run, target, staging.name)
            for staging in stagings
            for target in staging.targets
        ]
        if also:
            also(run.connection)
        for staging in stagings:
            run.connection.exec_driver_sql(f"DROP TABLE {staging.name}")
        run.rows |= {
            "inserted": counts[0].inserted,
            "updated": counts[0].updated,
            "unchanged": counts[0].unchanged,
        }
        run.status = "succeeded"
        run.write(run.connection, finished=True)
    return counts[0]


def staging_name(run: Run, number: int | str) -> str:
    """The qualified name of a run's staging table: `number` counts the staged frames. Whatever has
    such a name goes when the run ends.
    """
    return f"{OWN_SCHEMA}.staging_{run.run_id}_{number}"


def _load(
    run: Run, settings: Settings, staged: StagedFrame, number: int, transport: Transport
) -> _Staging:
    name = staging_name(run, number)
    schema = (staged.last_step or staged.frame).schema
    with run.connection.begin():
        run.connection.exec_driver_sql(merge_sql.create_staging(name, staging_types(schema)))
    sent = transport.write(staged.frame, settings, name, staged.last_step)
    doubles = [field.name for field in schema if isinstance(field.dataType, T.DoubleType)]
    return _Staging(name, staged.targets, doubles, sent)


def _keep_last_attempts(connection: Connection, staging: str) -> int:
    """Delete the rows of tasks that were done again; returns how many are left."""
    attempts = connection.exec_driver_sql(merge_sql.staged_attempts(staging)).all()
    last = {partition: (attempt, rows) for partition, attempt, rows in sorted(attempts)}
    if len(last) < len(attempts):
        connection.exec_driver_sql(merge_sql.keep_last_attempts(staging))
    return sum(rows for _, rows in last.values())


FACTS = {
    "unique_key": "rows beyond the first of their key",
    "key_not_null": "keys with a null",
    "finite": "rows with NaN or infinity",
}


def _check(run: Run, staging: _Staging, rows: int) -> None:
    """What no run may commit: rows lost or doubled on the way, keys that are none, values that are
    none. Targets that share a key are judged by the first of them. Raises: CheckFailed.
    """
    first_of_key = {tuple(target.key): target for target in reversed(staging.targets)}
    first = f"{staging.targets[0].table.name}.staged_rows"
    entries = [
        _entry(
            first, rows - staging.sent_rows, f"{rows} in staging, {staging.sent_rows} left Spark"
        )
    ]
    for target in first_of_key.values():
        facts = (
            run.connection.exec_driver_sql(
                merge_sql.staging_facts(staging.name, target, staging.double_columns)
            )
            .mappings()
            .one()
        )
        failures = merge_sql.staging_failures(staging.name, target, staging.double_columns)
        for fact, words in FACTS.items():
            entry = _entry(f"{target.table.name}.{fact}", facts[fact], f"{facts[fact]} {words}")
            entries.append(
                entry
                if entry["passed"]
                else entry | {"sample": failing_rows(run.connection, failures[fact])[1]}
            )
    run.checks += entries
    failed = [f"{entry['name']}: {entry['found']}" for entry in entries if not entry["passed"]]
    if failed:
        raise CheckFailed(
            f"the staged rows failed {'; '.join(failed)}. Nothing was written; `status` shows"
            " the run"
        )


def _entry(name: str, failing: int, found: str) -> dict[str, Any]:
    return {
        "name": name,
        "level": "batch",
        "severity": "fail",
        "passed": failing == 0,
        "found": found,
        "failing": abs(failing),
    }


def _lost_rows(
    run: Run,
    target: MergeTarget,
    lost: int,
    sample: list[dict[str, Any]],
    staged: int,
    words: str,
) -> CheckFailed:
    """The error for staged rows that the table does not have after the merge, noted among the
    run's checks.
    """
    entry = _entry(f"{target.table.name}.merged_rows", lost, f"{staged} staged, {words}")
    run.checks.append(entry | {"sample": sample})
    first = "".join(
        f", the first with {' and '.join(f'{name} {key}' for name, key in row.items())}"
        for row in sample[:1]
    )
    table = merge_sql.qualified(target.table)
    return CheckFailed(
        f"{table} did not take {lost} of {staged} staged rows{first}: {words}. Every staged row"
        " must be one of them, under its own key; nothing was written. A trigger of the table drops"
        f" rows or changes their key: `\\d {table}` shows it; let it pass YieldSpark's rows, then"
        " run again"
    )


def merge_staged(run: Run, target: MergeTarget, staging: str) -> MergeCounts:
    """Merge the rows of the table `staging` into a target, inside the run's transaction.

    Raises: CheckFailed where rows are neither inserted nor updated nor equal to those of the
    table.
    """
    columns = run.connection.exec_driver_sql(merge_sql.stored_types(target.table)).all()
    stored = {column.name: column.type for column in columns}
    merge = merge_sql.merge(target, staging, stored)
    found = run.connection.exec_driver_sql(merge).mappings().one()
    staged, written, equal = found["staged"], found["written"], found["equal"]
    lost, sample = staged - written - equal, list[dict[str, Any]]()
    if lost:
        _, sample = failing_rows(run.connection, merge_sql.missing_rows(target, staging, stored))
    elif has_triggers(run.connection, target.table):
        # a trigger that gives a row another key has written it, and not where it belongs
        lost, sample = failing_rows(
            run.connection, merge_sql.missing_rows(target, staging, stored, key_alone=True)
        )
    if lost:
        raise _lost_rows(
            run, target, lost, sample, staged, f"{written} inserted or updated, {equal} unchanged"
        )
    counts = MergeCounts(written - found["changed"], found["changed"], equal)
    log.info(
        "%s: %d inserted, %d updated, %d unchanged",
        target.table.name,
        counts.inserted,
        counts.updated,
        counts.unchanged,
    )
    return counts
