"""The commands of the batch jobs, one function for each, named as the job.

`run_spark_local.py`, a script, spark-submit and a container run the same function. It parses the
options, runs the job in a context, and prints the job's ledger row or plan.
"""

# The jobs are imported inside their command: `--help` must not wait for Spark and LightGBM.
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import PREFERS_SPARK, JobContext
from cli.options import (
    AsJson,
    AsOf,
    BatchId,
    DryRun,
    End,
    Engine,
    Pools,
    Start,
    day,
    run_in_context,
)
from cli.output import OUTPUT
from common.jobs import CALCULATE_METRICS, FORECAST_POOLS, JobSpec
from common.local_user import user_at_host
from database.ledger.run_json import failed_run

if TYPE_CHECKING:
    import sqlalchemy

    from monitoring.lineage import Lineage

FullRefresh = Annotated[
    bool, typer.Option("--full-refresh", help="Recompute every day of every pool.")
]
RetireMissing = Annotated[
    bool, typer.Option("--retire-missing", help="Remove metrics whose raw rows no longer exist.")
]
ForecastAgain = Annotated[
    bool, typer.Option("--full-refresh", help="Forecast even if nothing has changed.")
]
Retry = Annotated[
    str | None,
    typer.Option(
        metavar="RUN_ID", help="Repeat the request of a failed run; `last` is the newest run."
    ),
]
AcceptCheck = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Accept a failing check for this run; repeatable, requires --reason."
    ),
]
AcceptReason = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Reason, recorded in the run ledger with your user name."),
]


def calculate_metrics(
    full_refresh: FullRefresh = False,
    retire_missing: RetireMissing = False,
    start: Start = None,
    end: End = None,
    pools: Pools = None,
    retry: Retry = None,
    accept_check: AcceptCheck = None,
    reason: AcceptReason = None,
    dry_run: DryRun = False,
    batch: BatchId = None,
    as_json: AsJson = False,
) -> None:
    """Compute rolling metrics of the pools that changed since the last successful run.

    Example: python run_spark_local.py calculate_metrics --start 2025-08-01 --end 2025-09-01
    """
    from data_processing.checks.catalogue import parse_acceptance
    from data_processing.planning.run_request import parse_request

    request = parse_request(
        full_refresh=full_refresh,
        start=day(start),
        end=day(end),
        pools=pools,
        retire_missing=retire_missing,
    )
    acceptance = parse_acceptance(accept_check or [], reason, user_at_host())

    def work(context: JobContext) -> dict[str, Any]:
        from data_processing.calculate_pool_metrics_spark import run_metrics

        return run_metrics(
            context.settings,
            request,
            retry=retry,
            dry_run=dry_run,
            acceptance=acceptance,
            session=context.session,
            prefers_spark=PREFERS_SPARK.get(),
        )

    row = run_in_context(emitting(work), changes=not dry_run, job=CALCULATE_METRICS, batch_id=batch)
    _print_row(row, as_json)


def forecast_pools(
    full_refresh: ForecastAgain = False,
    as_of: AsOf = None,
    engine: Engine = None,
    dry_run: DryRun = False,
    batch: BatchId = None,
    as_json: AsJson = False,
) -> None:
    """Forecast the next day's APY and TVL of every active pool, with intervals.

    Example: python run_spark_local.py forecast_pools --as-of 2025-09-30 --engine lightgbm
    """

    def work(context: JobContext) -> dict[str, Any]:
        from forecasting.forecast_pools_spark import run_forecast

        # a plan runs no model, so it works on a machine without the engine
        if not dry_run:
            context.require_engine()
        return run_forecast(
            context.settings,
            as_of=day(as_of),
            full_refresh=full_refresh,
            dry_run=dry_run,
            session=context.forecast_session,
            prefers_spark=PREFERS_SPARK.get(),
        )

    row = run_in_context(
        emitting(work),
        changes=not dry_run,
        job=FORECAST_POOLS,
        engine=engine.value if engine else None,
        batch_id=batch,
    )
    _print_row(row, as_json)


def emitting(
    work: Callable[[JobContext], dict[str, Any]],
) -> Callable[[JobContext], dict[str, Any]]:
    """Return the work of a job that also writes the time series and sends the lineage events of its
    run, also of a failed one.

    A dry run opens no run. An interrupted run writes none, and its lineage has no end: its process
    must end within seconds.
    """

    def work_and_emit(context: JobContext) -> dict[str, Any]:
        from database.ledger.runs import OPENED

        events: list[Lineage] = []

        def begin(engine: sqlalchemy.Engine, run_id: str) -> None:
            from monitoring.lineage import Lineage

            events.append(Lineage(context.settings))
            events[0].begin(engine, run_id)

        token = OPENED.set(begin)
        try:
            row = work(context)
        except Exception as error:
            if failed := failed_run(error):
                _emit(context, *failed, events)
            raise
        finally:
            OPENED.reset(token)
        if "run_id" in row:
            _emit(context, context.engine, row["run_id"], events)
        return row

    return work_and_emit


def _emit(
    context: JobContext, engine: sqlalchemy.Engine, run_id: str, events: Sequence[Lineage]
) -> None:
    # loads SQL libraries, which the run has loaded and `--help` must not
    from monitoring.emission import emit_run

    emit_run(context.settings, engine, run_id)
    for lineage in events:
        lineage.end(engine, run_id)


def job_command(job: JobSpec) -> Callable[..., None]:
    """Return the command of a job: the function of this module that has the job's name."""
    command: Callable[..., None] = globals()[job.name]
    return command


def _print_row(row: dict[str, Any], as_json: bool) -> None:
    output = OUTPUT.get()
    output.print_json(row) if as_json else output.print_run(row)
