"""Loads a run's rows into staging tables in parallel, checks them, then merges them in one
transaction with the ledger row and the clean-up.

A failing check, a killed driver or a lost connection leaves the targets unchanged. The next run of
the job drops leftover staging tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from common.errors import CheckFailed
from database.commit_checks import CommitChecks, failing_rows, run_checks
from database.ledger.check_result import CheckResult
from database.ledger.runs import Run
from database.schema import merge_sql
from database.schema.catalog import has_triggers
from database.schema.merge_sql import MergeTarget
from database.schema.own_tables import OWN_SCHEMA
from database.transport.staged_types import double_columns, staging_types
from database.undo.replaced_rows import (
    COMPARED_TABLES,
    Kind,
    begin_change,
    end_change,
    forget_old_rows,
    insert_replaced,
)

log = logging.getLogger(__name__)


MERGE_WORK_MEM = "256MB"
"""`work_mem` of the commit's transaction. Its joins and counts hold the keys of all staged rows,
which PostgreSQL's default of 4 MB writes to disk.
"""


@dataclass(frozen=True)
class StagedRows:
    """Rows that are loaded once and merged into each target, in order.

    Attributes:
        schema: their types: boolean, int, bigint, double, string, date or timestamp.
        targets: tables and columns to merge into.
        load: writes the rows, with tag columns, to the existing staging table of that name, and
            returns how many it has sent.
    """

    schema: pa.Schema
    targets: Sequence[MergeTarget]
    load: Callable[[str], int]


@dataclass(frozen=True)
class MergeCounts:
    """Rows of one merge; their sum is the number of staged rows of the target."""

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
    staged: Sequence[StagedRows],
    *,
    load_stage: str = "load",
    on_loaded: Callable[[], None] | None = None,
    before_checks: Callable[[Connection], None] | None = None,
    checks: CommitChecks | None = None,
    in_transaction: Callable[[Connection], None] | None = None,
) -> MergeCounts:
    """Load, check and merge the rows of a run: all or nothing.

    Args:
        run: the open run; it receives counts, checks and status.
        staged: rows to load, the first with the run's main target first.
        load_stage: name of the ledger stage of the load.
        on_loaded: called when all rows are in staging, before the transaction.
        before_checks: called in the transaction before the checks, with staging locked.
        checks: checks of the staged rows, run before the merges.
        in_transaction: called in the transaction after the merges.

    Returns:
        Counts of the first target, which are also recorded in the run.

    Raises:
        CheckFailed: a check failed; the message has its counts.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    with run.stage(load_stage):
        stagings = [_load(run, rows, number) for number, rows in enumerate(staged)]
        if on_loaded:
            on_loaded()
    with run.stage("merge"), run.connection.begin():
        run.connection.exec_driver_sql(f"SET LOCAL work_mem = '{MERGE_WORK_MEM}'")
        for staging in stagings:
            _prepare(run, staging)
        if before_checks:
            before_checks(run.connection)
        if checks:
            run_checks(run, checks)
        counts = []
        for staging in stagings:
            counts += [merge_staged(run, target, staging.name) for target in staging.targets]
        if in_transaction:
            in_transaction(run.connection)
        forget_old_rows(run)
        # in the transaction: a failed commit leaves staging to the clean-up of the run
        for staging in stagings:
            run.connection.exec_driver_sql(f"DROP TABLE {staging.name}")
        _record_success(run, counts[0])
    return counts[0]


def _record_success(run: Run, counts: MergeCounts) -> None:
    run.rows |= {
        "inserted": counts.inserted,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
    }
    run.status = "succeeded"
    # with the rows: a run whose rows are committed is never recorded as failed
    run.write(run.connection, finished=True)


def staging_name(run: Run, number: int | str) -> str:
    """Return the qualified name of a run's staging table; it is dropped when the run ends.

    Args:
        run: the run that owns the table.
        number: position of the staged rows, or a name of another table of the run.
    """
    return f"{OWN_SCHEMA}.staging_{run.run_id}_{number}"


def _load(run: Run, staged: StagedRows, number: int) -> _Staging:
    name = staging_name(run, number)
    with run.connection.begin():
        run.connection.exec_driver_sql(merge_sql.create_staging(name, staging_types(staged.schema)))
    sent = staged.load(name)
    return _Staging(name, staged.targets, double_columns(staged.schema), sent)


def _prepare(run: Run, staging: _Staging) -> None:
    # waits for loads that are still in flight (a speculative task) and keeps later ones out
    run.connection.exec_driver_sql(f"LOCK TABLE {staging.name} IN ACCESS EXCLUSIVE MODE")
    rows = _keep_last_attempts(run.connection, staging.name)
    # without statistics PostgreSQL plans the merge for a few rows
    run.connection.exec_driver_sql(f"ANALYZE {staging.name}")
    _check(run, staging, rows)


def _keep_last_attempts(connection: Connection, staging: str) -> int:
    """Delete the rows of earlier attempts of repeated tasks; return how many rows are left."""
    attempts = connection.exec_driver_sql(merge_sql.staged_attempts(staging)).all()
    # sorted: the highest attempt of a partition comes last and replaces the others
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
    """Raise CheckFailed if rows were lost or duplicated, or if a key or value is invalid."""
    # targets with the same key need one check
    first_of_key = {tuple(target.key): target for target in reversed(staging.targets)}
    name = f"{staging.targets[0].table.name}.staged_rows"
    results = [
        _result(name, rows - staging.sent_rows, f"{rows} in staging, {staging.sent_rows} sent")
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
        for fact, meaning in FACTS.items():
            failing = facts[fact]
            sample = failing_rows(run.connection, failures[fact])[1] if failing else None
            results.append(
                _result(f"{target.table.name}.{fact}", failing, f"{failing} {meaning}", sample)
            )
    run.checks += results
    failed = [str(result) for result in results if not result.passed]
    if failed:
        raise CheckFailed(
            f"the staged rows failed {'; '.join(failed)}. Nothing was written; `status` shows"
            " the run"
        )


def _result(
    name: str, failing: int, message: str, sample: list[dict[str, Any]] | None = None
) -> CheckResult:
    # more rows in staging than left Spark are as wrong as fewer
    return CheckResult(name, failing == 0, "fail", message, "batch", abs(failing), sample)


def _lost_rows(
    run: Run,
    target: MergeTarget,
    lost: int,
    sample: list[dict[str, Any]],
    staged: int,
    outcome: str,
) -> CheckFailed:
    """Record that staged rows are missing from the table after the merge; return the error."""
    name = f"{target.table.name}.merged_rows"
    run.checks.append(_result(name, lost, f"{staged} staged, {outcome}", sample))
    first = ""
    if sample:
        keys = " and ".join(f"{name} {key}" for name, key in sample[0].items())
        first = f", the first with {keys}"
    table = merge_sql.qualified(target.table)
    return CheckFailed(
        f"{table} did not take {lost} of {staged} staged rows{first}: {outcome}. Every staged row"
        " must be one of them, under its own key; nothing was written. A trigger of the table drops"
        f" rows or changes their key: `\\d {table}` shows it; let it pass YieldSpark's rows, then"
        " run again"
    )


_LOCK_REFUSED = ("55P03", "42501")
"""lock_not_available, insufficient_privilege."""


def _lock_if_empty(connection: Connection, table: Table) -> bool:
    """Keep other writers out of a table without rows until the transaction ends.

    Returns:
        False if the table has rows or triggers, or if another session uses it.
    """
    has_rows = f"SELECT EXISTS (SELECT FROM {merge_sql.qualified(table)})"
    if has_triggers(connection, table) or connection.exec_driver_sql(has_rows).scalar_one():
        return False
    lock = f"LOCK TABLE {merge_sql.qualified(table)} IN SHARE ROW EXCLUSIVE MODE NOWAIT"
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(lock)
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in _LOCK_REFUSED:
            raise
        return False
    # again: another session may have committed rows before the lock
    return not connection.exec_driver_sql(has_rows).scalar_one()


def _insert(
    connection: Connection, target: MergeTarget, staging: str, stored: Mapping[str, str]
) -> Mapping[str, Any]:
    """Insert the staged rows into an empty table; return the counts of `merge_sql.merge`."""
    written = connection.exec_driver_sql(merge_sql.insert(target, staging, stored)).rowcount
    staged = connection.exec_driver_sql(merge_sql.count_staged(target, staging)).scalar_one()
    return {"staged": staged, "written": written, "changed": 0, "equal": 0}


def _written_columns(target: MergeTarget) -> list[str]:
    return [*target.columns, *(target.provenance or {})]


def _begin_change(run: Run, target: MergeTarget, kind: Kind) -> int | None:
    """Begin the change of a target, unless its rows are kept by a comparison."""
    if target.table in COMPARED_TABLES:
        return None
    name = merge_sql.qualified(target.table)
    return begin_change(run, name, kind, target.key, _written_columns(target))


def _keep(target: MergeTarget, change_id: int, source: str, is_stored: str) -> str:
    key = [f"n.{merge_sql.quoted(name)}" for name in target.key]
    before = [f"t.{merge_sql.quoted(name)}" for name in _written_columns(target)]
    return insert_replaced(change_id, source, key, before, exists=is_stored)


def merge_staged(run: Run, target: MergeTarget, staging: str) -> MergeCounts:
    """Merge the rows of the table `staging` into a target, inside the run's transaction.

    Raises:
        CheckFailed: a row is neither inserted nor updated nor equal to the stored one.
    """
    columns = run.connection.exec_driver_sql(merge_sql.stored_types(target.table)).all()
    stored = {column.name: column.type for column in columns}
    is_empty = _lock_if_empty(run.connection, target.table)
    change_id = _begin_change(run, target, "filled" if is_empty else "written")
    if is_empty:
        merged = _insert(run.connection, target, staging, stored)
    else:
        keep = partial(_keep, target, change_id) if change_id is not None else None
        merge = merge_sql.merge(target, staging, stored, keep)
        merged = run.connection.exec_driver_sql(merge).one()._asdict()
    end_change(run, change_id, merged["written"])
    staged, written, equal = merged["staged"], merged["written"], merged["equal"]
    lost, sample = staged - written - equal, list[dict[str, Any]]()
    if lost:
        _, sample = failing_rows(run.connection, merge_sql.missing_rows(target, staging, stored))
    elif has_triggers(run.connection, target.table):
        # a trigger that changes the key of a row has written it, but in the wrong place
        lost, sample = failing_rows(
            run.connection, merge_sql.missing_rows(target, staging, stored, key_alone=True)
        )
    if lost:
        raise _lost_rows(
            run, target, lost, sample, staged, f"{written} inserted or updated, {equal} unchanged"
        )
    counts = MergeCounts(written - merged["changed"], merged["changed"], equal)
    log.info(
        "%s: %d inserted, %d updated, %d unchanged",
        target.table.name,
        counts.inserted,
        counts.updated,
        counts.unchanged,
    )
    return counts
