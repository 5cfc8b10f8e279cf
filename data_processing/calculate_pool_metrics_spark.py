"""The metrics job: raw history in PostgreSQL in, the metrics table (metric columns) and
`yieldspark.value_staleness` out, one commit a run.

`plan` decides in SQL, `run` executes; where nothing changed no Spark session starts. Run it as a
script, by spark-submit from the zip, or through the command line. Exit codes: 0 good, 1 the job
failed, 2 wrong use or configuration, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__" and (Path(__file__).resolve().parents[1] / "config_spark.py").is_file():
    # started by path in the checkout, Python puts this folder on the path and not the root that
    # absolute imports begin at
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyspark.sql import Observation, SparkSession
from sqlalchemy import Connection, Engine

from cli.job_script import run_job_script
from common.errors import ConfigurationError
from common.jobs import CALCULATE_METRICS
from config_spark import Settings
from data_processing.checks.catalogue import changed_severities
from data_processing.checks.row_checks import raw_row_checks
from data_processing.commit import rejected_rows
from data_processing.commit.metrics_checks import commit_checks
from data_processing.commit.provisional_days import keep_provisional_days, retire_provisional_days
from data_processing.commit.resolution import settle
from data_processing.commit.row_accounting import counting_columns, record_counts
from data_processing.metrics.market_columns import market_columns
from data_processing.metrics.pool_metrics import AGES, SCHEMA, Provenance, by_pool, pool_days
from data_processing.metrics.raw_rows import parse_raw_rows
from data_processing.planning.plan import JOB, plan_metrics, refuse_wrong_use
from data_processing.planning.plan_sql import CALENDAR_COLUMNS
from data_processing.planning.plan_statistics import count_rows_to_read
from data_processing.planning.run_plan import Plan
from data_processing.planning.run_request import Request, request_of_run
from data_processing.planning.unread_rows import store_day_counts
from data_processing.raw.history import TABLE, rows_to_read, stored_rows
from data_processing.raw.market_series import forget_market_series, store_market_series
from data_processing.raw.observed_days import FORGET_RETIRED, RETIRED_INSIDE, keep_observed
from data_processing.raw.pool_coverage import keep_calendars
from data_processing.raw.rows_without_pool import quarantine_rows_without_pool
from database.connections.engine import checked_connection, make_engine
from database.db_utils_spark import (
    LastStep,
    MergeTarget,
    StagedFrame,
    commit_run,
    exported_snapshot,
    get_spark_session,
    read_table_spark,
)
from database.ledger.runs import Acceptance, Run, ledger_row, open_run
from database.schema.metrics_table import metrics_table
from database.schema.tables import METRIC_COLUMNS, OWN_SCHEMA, value_staleness
from database.staging import staging_name
from spark.interrupt import interruptible
from spark.session import stop_session

log = logging.getLogger(__name__)

KEY = {"pool_id": "pool_id", "date": "date"}

IS_DAY = "reason IS NULL"


def merge_targets(settings: Settings) -> tuple[MergeTarget, ...]:
    """Where a run's rows go, the metrics first."""
    metrics = metrics_table(settings.metrics_table)
    return (
        MergeTarget(metrics, KEY, {name: name for name in METRIC_COLUMNS}, rows=IS_DAY),
        MergeTarget(
            value_staleness,
            KEY,
            {name: name for name in AGES},
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
) -> dict[str, Any]:
    """Bring the metrics up to date, or recompute what the request names.

    Args: settings name a migrated database. retry is the id of a failed run, or `last`: its request
    is taken again, with its days. acceptance lets this run through checks that would block it.
    session makes the Spark session for a number of rows to read, when one is needed (default: the
    product's own, stopped at the end). now (UTC) stands in for this machine's clock.
    Returns: the run's ledger row; for a dry run `{"job", "status": "planned", "plan": ..}`.
    Raises: ConfigurationError, RunInProgress, CheckFailed, DatabaseError.
    """
    # wrong use is no run
    changed_severities(settings)
    engine = make_engine(settings)
    if retry is not None and request not in (None, Request()):
        raise ConfigurationError(
            "--retry takes mode, days and pools from the run that failed: leave the other"
            " options out"
        )
    asked = request_of_run(engine, JOB, retry) if retry is not None else request or Request()
    refuse_wrong_use(settings, engine, asked, now)
    if dry_run:
        plan = plan_metrics(
            settings, engine, asked, table=f"{OWN_SCHEMA}.plan_of_a_dry_run", now=now, dry_run=True
        )
        return {"job": JOB, "status": "planned", "plan": plan.public()}
    opened = {"request": asked.public()}
    with open_run(
        engine,
        job=JOB,
        mode=asked.mode,
        start=asked.start,
        end=asked.end,
        plan=opened,
        code_version=settings.code_version,
        batch_id=settings.batch_id,
    ) as run:
        run.acceptance = acceptance
        with run.stage("plan"):
            plan = plan_metrics(settings, engine, asked, table=staging_name(run, "plan"), now=now)
        run.mode, run.start, run.end, run.watermark, run.plan = (
            plan.mode,
            plan.start,
            plan.end,
            plan.watermark,
            plan.public(),
        )
        if plan.is_empty:
            _nothing_to_compute(engine, settings, run, plan)
        else:
            _execute(
                settings,
                run,
                plan,
                session or (lambda rows: get_spark_session(settings, JOB, rows_to_read=rows)),
                stop=session is None,
            )
    return ledger_row(engine, run.run_id)


def _nothing_to_compute(engine: Engine, settings: Settings, run: Run, plan: Plan) -> None:
    """A bad price or a row without a pool changes no metric; it still belongs into quarantine. Rows
    of a day that is not over go, where this run does not include it.
    """
    with checked_connection(engine) as connection:
        _quarantine_by_sql(connection, settings, run, plan)
        if not plan.is_partial:
            run.rows["removed"] = retire_provisional_days(connection)
    if not run.rows["removed"]:
        run.nothing_to_do()


def _quarantine_by_sql(connection: Connection, settings: Settings, run: Run, plan: Plan) -> None:
    """What no pool's calendar is made of."""
    rejected_rows.quarantine_market_rows(connection, settings, run.run_id, plan.now)
    if not plan.is_partial:
        quarantine_rows_without_pool(connection, settings, run)


def _execute(
    settings: Settings, run: Run, plan: Plan, session: Callable[[int], SparkSession], *, stop: bool
) -> None:
    with run.stage("session"):
        spark = session(plan.rows_to_read)
        run.jvm_started = True
    try:
        with interruptible(spark), ExitStack() as reading:
            _compute_and_commit(spark, settings, run, plan, reading)
    finally:
        if stop:
            stop_session(spark)


def _compute_and_commit(
    spark: SparkSession, settings: Settings, run: Run, plan: Plan, reading: ExitStack
) -> None:
    """Read, transform and load are one pass over the rows: the first two only say what the third
    will do.
    """
    snapshot = reading.enter_context(exported_snapshot(settings))
    checks = raw_row_checks(settings, plan.now)
    counted = Observation("raw rows")
    stored = stored_rows(plan.table, retire_missing=plan.request.retire_missing)
    with run.stage("read"):
        raw = read_table_spark(
            spark,
            settings,
            f"{rows_to_read(plan.table, plan.impossible_rows)} UNION ALL {stored}",
            partition_by="pool_id",
            snapshot=snapshot,
        )
        calendar = read_table_spark(
            spark, settings, f"SELECT {CALENDAR_COLUMNS} FROM {plan.table}", snapshot=snapshot
        )
    with run.stage("transform"):
        # counted behind the shuffle: there a task that is done again, its executor lost, counts
        # once
        snapshots = by_pool(parse_raw_rows(raw, checks), calendar).observe(
            counted, *counting_columns(checks)
        )
        days = pool_days(
            settings.max_fill_days, market_columns(plan.market), Provenance(TABLE, run.run_id)
        )

    def loaded() -> None:
        counts = counted.get
        planned = plan.rows_to_read
        if counts["read"] < planned:
            # deleted since the plan was made, or lost on the way
            planned = _rows_in_snapshot(settings, plan, snapshot)
        # not earlier: a lost executor's partitions are read again. Not later: a merge needs no
        # snapshot that may be cut, or that holds up VACUUM
        reading.close()
        record_counts(run, settings, counts, checks, planned)

    commit_run(
        run,
        settings,
        [StagedFrame(snapshots.drop("warning"), merge_targets(settings), LastStep(days, SCHEMA))],
        loaded=loaded,
        checks=commit_checks(settings, plan, staging_name(run, 0)),
        also=lambda connection: _also(connection, settings, run, plan),
    )


def _rows_in_snapshot(settings: Settings, plan: Plan, snapshot: str) -> int:
    """How many of the rows to read the run's own snapshot has."""
    engine = make_engine(settings).execution_options(isolation_level="REPEATABLE READ")
    with checked_connection(engine) as connection:
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        return count_rows_to_read(connection, plan.table, plan.impossible_rows)


def _also(connection: Connection, settings: Settings, run: Run, plan: Plan) -> None:
    """What belongs to the run's commit besides the merges."""
    removed = keep_calendars(connection, staging_name(run, 0))
    connection.exec_driver_sql(keep_observed(staging_name(run, 0)))
    if plan.request.retire_missing:
        inside = f"SELECT count(*) FROM ({RETIRED_INSIDE}) AS inside"
        removed += connection.exec_driver_sql(inside).scalar_one()
        connection.exec_driver_sql(FORGET_RETIRED)
    removed += keep_provisional_days(connection, run, plan, staging_name(run, 0))
    if removed:
        log.warning("%d days have lost their metrics", removed)
    run.rows["removed"] = removed
    rejected_rows.add_raw_json(connection)
    settle(connection, settings, plan, run.run_id, staging=staging_name(run, 0))
    _quarantine_by_sql(connection, settings, run, plan)
    store_day_counts(connection, plan.known_snapshots, is_partial=plan.is_partial)
    if not plan.is_partial:
        store_market_series(connection, plan.complete_market)
    elif plan.start:
        # it used the series for its own days and pools only: the others still have to notice what
        # changed, and these, should it change back
        forget_market_series(connection, plan.market, plan.start)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the job's command line and exit with its code."""
    run_job_script(CALCULATE_METRICS, arguments)


if __name__ == "__main__":
    main()
