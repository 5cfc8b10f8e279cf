"""Calculates the rolling metrics of every pool and day from raw history in PostgreSQL.

`plan_metrics` decides in SQL what to recompute, and whether Spark or processes of this machine
compute it; PySpark is imported for Spark only. A run without changes starts neither. The run writes
the metrics table and YieldSpark's own tables in one commit. The job runs as a script, by
spark-submit from the zip, or through the command line. Exit codes: 0 success, 1 the job failed, 2
wrong use or configuration, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if __name__ == "__main__" and (Path(__file__).resolve().parents[1] / "config_spark.py").is_file():
    # a script started by its path has its own folder on the path, not the root of the checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlalchemy import Connection, Engine

from cli.job_script import run_job_script
from common.errors import ConfigurationError
from common.jobs import CALCULATE_METRICS
from config_spark import Settings
from data_processing.checks.catalogue import changed_severities
from data_processing.checks.row_checks import raw_row_checks
from data_processing.commit import rejected_rows
from data_processing.commit.metrics_checks import commit_checks
from data_processing.commit.own_tables import quarantine_unread_rows, update_own_tables
from data_processing.commit.provisional_days import remove_provisional_days
from data_processing.commit.row_accounting import record_counts
from data_processing.commit.staged_changes import stage_changes
from data_processing.executors.computed_rows import ComputedRows
from data_processing.executors.executor_inputs import ExecutorInputs
from data_processing.metrics.pool_metrics import STALENESS, Provenance
from data_processing.planning.dry_run import plan_dry_run
from data_processing.planning.plan import JOB, plan_metrics, validate_request
from data_processing.planning.plan_statistics import count_rows_to_read
from data_processing.planning.run_plan import Plan
from data_processing.planning.run_request import Request, request_from_run
from data_processing.raw.history import TABLE, select_rows_to_read, select_stored_rows
from database.connections.engine import make_engine
from database.connections.snapshots import at_snapshot, exported_snapshot
from database.ledger.check_result import Acceptance
from database.ledger.run_records import read_run
from database.ledger.runs import Run, open_run
from database.schema.merge_sql import MergeTarget
from database.schema.metrics_table import metrics_table
from database.schema.own_tables import value_staleness
from database.schema.owner_tables import METRIC_COLUMNS
from database.staging import commit_run, staging_name
from database.undo.replaced_rows import copy_compared_tables, keep_differences

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

KEY = {"pool_id": "pool_id", "date": "date"}

IS_DAY = "reason IS NULL"
"""Condition for staged rows that are days; the others are rejected snapshots."""


def merge_targets(settings: Settings) -> tuple[MergeTarget, ...]:
    """Return the tables that the staged rows are merged into, the metrics table first."""
    metrics = metrics_table(settings.metrics_table)
    return (
        MergeTarget(metrics, KEY, {name: name for name in METRIC_COLUMNS}, rows=IS_DAY),
        MergeTarget(
            value_staleness,
            KEY,
            {name: name for name in STALENESS},
            # a day without a row counts as observed: staleness 0 for both values
            rows=f"{IS_DAY} AND (apy_staleness_days, tvl_staleness_days) IS DISTINCT FROM (0, 0)",
        ),
        rejected_rows.MERGE,
    )


def run_metrics(
    settings: Settings,
    request: Request | None = None,
    *,
    retry: str | None = None,
    dry_run: bool = False,
    acceptance: Acceptance | None = None,
    session: Callable[[int], SparkSession] | None = None,
    now: datetime | None = None,
    prefers_spark: bool = False,
) -> dict[str, Any]:
    """Bring the metrics up to date, or recompute what the request names.

    Args:
        settings: names a migrated database.
        request: mode, days and pools; default is an incremental run.
        retry: id of a failed run, or `last`. Its request is repeated, with its days.
        dry_run: return the plan and write nothing.
        acceptance: checks that may fail in this run, by whom and why.
        session: creates the Spark session for a number of raw rows, if one is needed. The default
            session is stopped at the end.
        now: clock of the run, UTC; default is this machine's.
        prefers_spark: whether EXECUTOR=auto is Spark, whatever the number of rows.

    Returns:
        The run's ledger row; for a dry run `{"job", "status": "planned", "plan": ..}`.

    Raises:
        ConfigurationError: the request or a setting is wrong.
        RunInProgress: another run of the job holds the lock.
        CheckFailed: a check failed, nothing was written.
        DatabaseError: the database refused a statement or the connection was lost.
        SparkLost, ProcessLost: the JVM or a process of the run was killed.
    """
    # wrong use is rejected before it becomes a run of the ledger
    changed_severities(settings)
    engine = make_engine(settings)
    request = _request(engine, request, retry)
    validate_request(settings, engine, request, now)
    if dry_run:
        plan = plan_dry_run(settings, engine, request, now, prefers_spark=prefers_spark)
        return {"job": JOB, "status": "planned", "plan": plan.to_json()}
    with open_run(
        engine,
        job=JOB,
        mode=request.mode,
        start=request.start,
        end=request.end,
        plan={"request": request.to_json()},
        code_version=settings.code_version,
        batch_id=settings.batch_id,
    ) as run:
        run.acceptance, run.undo_days = acceptance, settings.undo_days
        plan = _plan(engine, settings, request, run, now, prefers_spark=prefers_spark)
        if plan.is_empty:
            _commit_without_rows(settings, run, plan)
        else:
            with ExitStack() as reads:
                _commit(settings, run, plan, session, reads)
    return read_run(engine, run.run_id).to_json()


def _request(engine: Engine, request: Request | None, retry: str | None) -> Request:
    if retry is None:
        return request or Request()
    if request not in (None, Request()):
        raise ConfigurationError(
            "--retry takes mode, days and pools from the run that failed: leave the other"
            " options out"
        )
    return request_from_run(engine, JOB, retry)


def _plan(
    engine: Engine,
    settings: Settings,
    request: Request,
    run: Run,
    now: datetime | None,
    *,
    prefers_spark: bool,
) -> Plan:
    """Plan the run, and record the plan in it."""
    with run.stage("plan"):
        # named like staging, so that it is dropped with the run
        table = staging_name(run, "plan")
        plan = plan_metrics(
            settings, engine, request, table=table, now=now, prefers_spark=prefers_spark
        )
    # before the work: `--retry` of a failed run needs its days
    run.mode = plan.decision.mode
    run.start, run.end = plan.statistics.start, plan.decision.end
    run.watermark = plan.decision.watermark
    run.plan = plan.to_json()
    return plan


def _commit_without_rows(settings: Settings, run: Run, plan: Plan) -> None:
    """Commit a run without changed pools: quarantine bad rows, remove provisional days."""
    with run.connection.begin():
        copy_compared_tables(run)
        quarantine_unread_rows(run.connection, settings, run, plan)
        if not plan.is_partial:
            run.rows["removed"] = remove_provisional_days(run)
        keep_differences(run)
    if not run.rows["removed"]:
        run.nothing_to_do()


def _commit(
    settings: Settings,
    run: Run,
    plan: Plan,
    session: Callable[[int], SparkSession] | None,
    reads: ExitStack,
) -> None:
    """Compute the planned days with the plan's executor, load, check and merge them.

    Args:
        settings: the run's settings.
        run: the open run.
        plan: its plan, which has work.
        session: as in `run_metrics`.
        reads: closes the read snapshot.
    """
    assert plan.executor is not None
    if plan.executor.name == "inprocess":
        from data_processing.executors.in_process import compute_in_process

        _compute_and_commit(settings, run, plan, reads, compute_in_process)
        return
    from data_processing.executors.on_spark import compute_on_spark, job_session

    with job_session(settings, run, plan.statistics.rows_to_read, session) as spark:
        _compute_and_commit(settings, run, plan, reads, partial(compute_on_spark, spark))


def _compute_and_commit(
    settings: Settings,
    run: Run,
    plan: Plan,
    reads: ExitStack,
    compute: Callable[[ExecutorInputs], ComputedRows],
) -> None:
    """Read, parse, group, compute, load, check and merge; `reads` closes the read snapshot."""
    snapshot = reads.enter_context(exported_snapshot(settings))
    checks = raw_row_checks(settings, plan.decision.now)
    table = plan.decision.table
    stored = select_stored_rows(table, retire_missing=plan.request.retire_missing)
    computed = compute(
        ExecutorInputs(
            settings=settings,
            plan=plan,
            checks=checks,
            targets=merge_targets(settings),
            rows=f"{select_rows_to_read(table, plan.out_of_range_rows)} UNION ALL {stored}",
            snapshot=snapshot,
            provenance=Provenance(TABLE, run.run_id),
        )
    )

    def on_loaded() -> None:
        counts = computed.raw_row_counts()
        planned = plan.statistics.rows_to_read
        if counts["read"] < planned:
            # rows were deleted since the plan was made, or lost on the way
            planned = _rows_in_snapshot(settings, plan, snapshot)
        # Not earlier: partitions of a lost executor are read again. Not later: the merge needs no
        # snapshot that may be lost, or that holds up VACUUM.
        reads.close()
        record_counts(run, settings, counts, checks, planned)

    staging = staging_name(run, 0)

    def prepare(connection: Connection) -> None:
        # before anything is merged
        copy_compared_tables(run)
        stage_changes(connection, settings=settings, plan=plan, staging=staging)

    commit_run(
        run,
        [computed.staged],
        load_stage="compute_and_load",
        on_loaded=on_loaded,
        before_checks=prepare,
        checks=commit_checks(settings, plan, staging),
        in_transaction=partial(
            update_own_tables, settings=settings, run=run, plan=plan, staging=staging
        ),
    )


def _rows_in_snapshot(settings: Settings, plan: Plan, snapshot: str) -> int:
    """Return how many of the rows to read are visible in the run's own snapshot."""
    with at_snapshot(settings, snapshot) as connection:
        return count_rows_to_read(connection, plan.decision.table, plan.out_of_range_rows)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the job's command line and exit with its code."""
    run_job_script(CALCULATE_METRICS, arguments)


if __name__ == "__main__":
    main()
