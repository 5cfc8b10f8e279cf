"""The forecast job: APY and TVL of every active pool on the next day and on the days of HORIZONS.

Reads the metrics table, the staleness of its values, `pools`, the forecast history and the model
registry. Writes `yieldspark.forecasts`, the forecast columns of the metrics table at (pool, D + 1),
`yieldspark.forecast_evaluation` and the decision on a new model version in one commit. Units: APY
percent, TVL USD, UTC days.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if __name__ == "__main__" and (Path(__file__).resolve().parents[1] / "config_spark.py").is_file():
    # a script that is started by its path has its own folder on the path, not the checkout's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli.job_script import run_job_script
from common.horizons import NEXT_DAY
from common.jobs import FORECAST_POOLS
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.ledger.run_records import read_run
from database.ledger.runs import open_run
from forecasting.publishing.actuals import count_new_actuals, update_actuals
from forecasting.run.as_of_day import age_days, day_summary, forecast_as_of_day
from forecasting.run.changes import INPUTS, find_changes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from sqlalchemy import Engine

    from database.ledger.runs import Run
    from forecasting.run.plan import RunPlan

log = logging.getLogger(__name__)

JOB = FORECAST_POOLS.name


def run_forecast(
    settings: Settings,
    *,
    as_of: dt.date | None = None,
    engine: str | None = None,
    full_refresh: bool = False,
    dry_run: bool = False,
    session: Callable[[int], SparkSession],
    prefers_spark: bool = False,
) -> dict[str, Any]:
    """Forecasts the days HORIZONS after the as-of day, if anything changed since the last run.

    Args:
        as_of: last day whose values may be used; default: the last complete UTC day, or the newest
            day with data before it.
        engine: overrides the setting ENGINE.
        full_refresh: forecast also if nothing has changed since the last run.
        dry_run: returns the plan and writes nothing.
        session: makes the Spark session for a number of feature rows;
            called only if there is work for Spark.
        prefers_spark: whether EXECUTOR=auto is Spark, whatever the number of rows.

    Returns:
        The row of the run ledger; of a dry run `job`, `status` and `plan`.

    Raises:
        NotEnoughHistory: no metrics exist, or none of the as-of day.
        EnvironmentNotReady: the engine's runtime is missing.
        RunInProgress: another run of the job is active.
        DatabaseError: the database does not answer or refuses a statement.
    """
    request = _Request(
        as_of=as_of,
        engine=engine or settings.engine,
        today=settings.now().date(),
        full_refresh=full_refresh,
        prefers_spark=prefers_spark,
    )
    database = make_engine(settings)
    if dry_run:
        return _dry_run(settings, database, request)
    with open_run(
        database,
        job=JOB,
        mode="as_of" if as_of else "daily",
        engine_name=request.engine,
        as_of=as_of,
        code_version=settings.code_version,
        batch_id=settings.batch_id,
    ) as run:
        run.undo_days = settings.undo_days
        finish = _run(settings, database, request, run, session)
    # not inside the run: a slow registry must not keep the job's lock
    if finish:
        finish()
    return read_run(database, run.run_id).to_json()


@dataclass(frozen=True)
class _Request:
    """What a run is asked for; see `run_forecast`."""

    as_of: dt.date | None
    engine: str
    today: dt.date
    full_refresh: bool
    prefers_spark: bool


def _run(
    settings: Settings,
    database: Engine,
    request: _Request,
    run: Run,
    session: Callable[[int], SparkSession],
) -> Callable[[], None] | None:
    """Plan and execute; returns the function to call when the run is closed, if there was work."""
    # before the plan: gate and interval learn from the newest actual values
    with run.stage("evaluate"), run.connection.begin():
        updated_actuals = update_actuals(run.connection, run)
    with run.stage("plan"):
        run.as_of = day = forecast_as_of_day(settings, as_of=request.as_of, today=request.today)
        age = age_days(day, request.today)
        _warn_of_age(day, age)
        changes = find_changes(
            settings,
            database,
            as_of=day,
            engine=request.engine,
            new_actuals=updated_actuals,
            full_refresh=request.full_refresh,
            run_id=run.run_id,
        )
    if changes.inputs:
        run.plan = {
            **day_summary(day, age, request.engine, NEXT_DAY),
            **changes.summary(),
            INPUTS: changes.inputs.to_json(),
        }
        run.nothing_to_do()
        log.info("%s", changes.summary()["reasons"][0])
        return None
    with run.stage("plan"):
        plan = _plan(settings, day, request)
    run.plan = plan.summary(changes) | {"updated_actuals": updated_actuals}
    return _execute(settings, database, plan, run, session)


def _plan(settings: Settings, as_of: dt.date, request: _Request) -> RunPlan:
    # loads pandas and MLflow, which takes longer than a run without work
    from forecasting.run.plan import plan_forecast

    return plan_forecast(
        settings,
        as_of=as_of,
        engine=request.engine,
        today=request.today,
        prefers_spark=request.prefers_spark,
    )


def _execute(
    settings: Settings,
    database: Engine,
    plan: RunPlan,
    run: Run,
    session: Callable[[int], SparkSession],
) -> Callable[[], None]:
    """Execute the plan; returns the function to call when the run is closed."""
    # loads pandas, which takes longer than a run without work
    from forecasting.executors.choose import open_executor
    from forecasting.run.execution import execute_run

    with open_executor(plan.executor, settings, run, partial(session, plan.rows)) as executor:
        return execute_run(executor, settings, database, plan, run)


def _dry_run(settings: Settings, database: Engine, request: _Request) -> dict[str, Any]:
    day = forecast_as_of_day(settings, as_of=request.as_of, today=request.today)
    plan = _plan(settings, day, request)
    with checked_connection(database) as connection:
        new_actuals = count_new_actuals(connection)
    changes = find_changes(
        settings,
        database,
        as_of=day,
        engine=request.engine,
        new_actuals=new_actuals,
        full_refresh=request.full_refresh,
    )
    return {"job": JOB, "status": "planned", "plan": plan.summary(changes)}


def _warn_of_age(as_of: dt.date, age: int) -> None:
    if age:
        log.warning(
            "the newest metrics are of %s: %d days behind the last complete day", as_of, age
        )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the job's command line and exit with its code."""
    run_job_script(FORECAST_POOLS, arguments)


if __name__ == "__main__":
    main()
