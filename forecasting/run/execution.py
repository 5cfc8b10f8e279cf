"""The work of a forecast run: fit or load the model, forecast, publish in one commit.

Reads the plan; writes `yieldspark.forecasts`, the forecast columns of the metrics table,
`yieldspark.forecast_evaluation` and the decision on a new model version. Units: APY percent, TVL
USD, UTC days.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from sqlalchemy import Connection, Engine

from config_spark import Settings
from database.connections.engine import checked_connection
from database.connections.snapshots import at_snapshot, exported_snapshot
from database.ledger.check_result import CheckResult
from database.ledger.runs import Run
from database.schema.metrics_table import metrics_table
from database.staging import commit_run
from forecasting.evaluation.backtest import backtest_rows
from forecasting.evaluation.model_roles import CHAMPION
from forecasting.evaluation.scores import score_table, summary_line, table_json
from forecasting.executors.executor import Executor
from forecasting.features.targets import Target, targets_of
from forecasting.publishing.fallbacks import apply_fallbacks, join_targets
from forecasting.publishing.forecast_history import (
    BACKTEST,
    PRODUCTION,
    history_by_target,
    scored_rows,
    to_past_rows,
)
from forecasting.publishing.intervals import relative_quantiles
from forecasting.publishing.past_forecasts import past_forecasts
from forecasting.publishing.publish import evaluation_rows, publish_days
from forecasting.registry.registry_state import registry_state
from forecasting.run.changes import record_inputs
from forecasting.run.dataset import active_pools, cached_dataset
from forecasting.run.forecast_rows import evaluation_to_stage, forecasts_to_stage
from forecasting.run.health_checks import forecast_explanations, model_health_checks
from forecasting.run.plan import ForecastPlan, refit_is_due
from forecasting.run.registration import model_checks, record_refit, register_versions
from forecasting.run.run_inputs import (
    MetricsDigest,
    RunInputs,
    code_versions,
    history_digest,
    other_digest,
    published_digest,
    result_settings,
)
from forecasting.run.serving_model import ServingModel, select_or_fit_model

log = logging.getLogger(__name__)

# target days of the score check, without the run's own forecasts
SCORED_DAYS = 30


def execute_run(
    executor: Executor,
    settings: Settings,
    database: Engine,
    plan: ForecastPlan,
    run: Run,
) -> Callable[[], None]:
    """Forecasts, and commits the rows with the run.

    Returns:
        Registers the versions of the outbox and records the inputs of the run; call it when the
        run is closed.

    Raises:
        EnvironmentNotReady: the engine's runtime is missing.
        CheckFailed: a check of the staged rows failed, nothing was written.
        DatabaseError: the database does not answer or refuses a statement.
    """
    outcome = _forecast(executor, settings, database, plan, run)

    def finish() -> None:
        register_versions(settings, database, plan)
        if inputs := _inputs(settings, plan, outcome):
            record_inputs(database, run.run_id, inputs)

    return finish


@dataclass(frozen=True)
class _Outcome:
    """What a committed run has read and written.

    Attributes:
        serving: the model of its forecasts.
        metrics: digest of the metrics that were read.
        tables: digests of the other rows, as of the read and after the writes.
        is_history_unchanged: no other command wrote the forecast history during the run.
    """

    serving: ServingModel
    metrics: MetricsDigest
    tables: Mapping[str, str]
    is_history_unchanged: bool


def _inputs(settings: Settings, plan: ForecastPlan, outcome: _Outcome) -> RunInputs | None:
    """The inputs for the ledger; None if the next run must not rely on this one."""
    serving, refit = plan.serving, outcome.serving.refit
    assert serving is not None, "a forecast plan has the model versions"
    registry = registry_state(settings, engine=plan.engine, horizon=plan.folds.horizon)
    if registry is None or serving.problems or serving.is_past:
        return None
    if not outcome.is_history_unchanged:
        return None
    # a version that is fitted now moves aliases; another process may have moved them since
    champion = serving.champion.card.version if serving.champion else None
    if refit and refit.promotion and refit.archive:
        champion = refit.promotion.serving_version(refit.archive.card.version, champion)
    if registry.aliases.get(CHAMPION) != champion:
        return None
    newest = plan.as_of if refit and refit.archive else serving.newest_as_of
    return RunInputs(
        as_of=plan.as_of.isoformat(),
        engine=plan.engine,
        settings=result_settings(settings),
        code=code_versions(settings),
        metrics=outcome.metrics.buckets,
        tables=outcome.tables,
        registry=registry.to_json(),
        refit_is_due=refit_is_due(newest, plan.as_of, plan.history_days, settings.refit_days),
    )


def _forecast(
    executor: Executor, settings: Settings, database: Engine, plan: ForecastPlan, run: Run
) -> _Outcome:
    engine = executor.engine(plan.engine)
    with exported_snapshot(settings) as snapshot:
        with cached_dataset(
            executor, settings, engine, plan.folds, run, snapshot, first_day=plan.first_day
        ) as (dataset, summary):
            serving = select_or_fit_model(dataset, summary, plan, engine, settings, run)
        pools = active_pools(settings, plan.as_of, snapshot)
        with at_snapshot(settings, snapshot) as connection:
            tables = other_digest(connection, settings, plan.first_day, plan.as_of)
    _record_checks(run, model_checks(plan, serving))
    with checked_connection(database) as connection:
        history_before = history_digest(connection, settings, plan.as_of, plan.engine)
    rows = _publish(settings, database, plan, run, serving, pools)
    metrics = metrics_table(settings.metrics_table)
    to_stage = [
        forecasts_to_stage(rows.forecasts, horizon=plan.folds.horizon, metrics=metrics),
        evaluation_to_stage(rows.evaluation, PRODUCTION),
        *(evaluation_to_stage(past, BACKTEST) for past in rows.backfill),
    ]
    is_history_unchanged = False

    def lock_history(connection: Connection) -> None:
        nonlocal is_history_unchanged
        # `evaluate` and `backtest` write there too: rows that they add now are in the digest below
        # and not in the forecasts
        connection.exec_driver_sql(
            "LOCK TABLE yieldspark.forecast_evaluation IN SHARE ROW EXCLUSIVE MODE"
        )
        history = history_digest(connection, settings, plan.as_of, plan.engine)
        is_history_unchanged = history == history_before

    def record(connection: Connection) -> None:
        record_refit(connection, plan=plan, serving=serving, run_id=run.run_id)
        # in the transaction: a later change of these rows by another writer is a change
        tables.update(published_digest(connection, settings, plan.as_of, plan.engine))

    commit_run(
        run,
        [executor.staged(part) for part in to_stage],
        on_loaded=executor.on_loaded,
        before_checks=lock_history,
        in_transaction=record,
    )
    return _Outcome(serving, summary.metrics, tables, is_history_unchanged)


def _record_checks(run: Run, results: Sequence[CheckResult]) -> None:
    """Adds the results to the run, and logs those that failed."""
    run.checks += results
    for result in results:
        if not result.passed:
            log.warning("%s", result)


@dataclass(frozen=True)
class _Publication:
    """The rows that a run writes.

    Attributes:
        forecasts: rows of `yieldspark.forecasts`.
        evaluation: their rows of `yieldspark.forecast_evaluation`.
        backfill: evaluation rows of past days, if the forecast history is too short.
    """

    forecasts: pd.DataFrame
    evaluation: pd.DataFrame
    backfill: list[pd.DataFrame]


def _publish(
    settings: Settings,
    database: Engine,
    plan: ForecastPlan,
    run: Run,
    serving: ServingModel,
    pools: pd.DataFrame,
) -> _Publication:
    with run.stage("publish"):
        backfill = _backfill(settings, plan, serving, run)
        history = _history(database, plan, backfill)
        published = _published(settings, plan, serving, history)
        evaluation = _evaluation(settings, plan, serving, published, run.run_id)
        forecasts = _forecasts(settings, plan, pools, published, history)
        forecasts = forecasts.assign(
            model_version=serving.sample.version(plan.as_of), run_id=run.run_id
        )
        reasons = forecasts["apy_fallback_reason"][forecasts["apy"].notna()].tolist()
        run.checks.append(_score_check(database, plan, backfill, settings.interval_level))
        _record_checks(run, model_health_checks(serving, pools, reasons, settings))
    with run.stage("explain"):
        apy, _ = published.values()
        explanations = forecast_explanations(serving, apy, settings)
        forecasts["explanation"] = forecasts["pool_id"].map(explanations).astype(object)
    return _Publication(forecasts, evaluation, backfill)


def _evaluation(
    settings: Settings,
    plan: ForecastPlan,
    serving: ServingModel,
    published: Mapping[Target, pd.DataFrame],
    run_id: str,
) -> pd.DataFrame:
    """Rows of `yieldspark.forecast_evaluation`, whose actual values are not known yet."""
    rows = [
        evaluation_rows(
            rows_of_target,
            serving.sample,
            target,
            engine=plan.engine,
            horizon=plan.folds.horizon,
            level=settings.interval_level,
            source=PRODUCTION,
            run_id=run_id,
        )
        for target, rows_of_target in published.items()
    ]
    return pd.concat(rows, ignore_index=True)


def _backfill(
    settings: Settings, plan: ForecastPlan, serving: ServingModel, run: Run
) -> list[pd.DataFrame]:
    """Evaluation rows of a refit's validation days, if the forecast history is too short."""
    if not serving.refit or not plan.backfills_history:
        return []
    return [backtest_rows(settings, plan.engine, serving.refit.sample, plan.folds, run)]


def _history(
    database: Engine, plan: ForecastPlan, backfill: Sequence[pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """PAST_COLUMNS by target, of the forecast history and, for days it lacks, of the backfill."""
    history = history_by_target(database, plan.engine, horizon=plan.folds.horizon, as_of=plan.as_of)
    for rows in map(to_past_rows, backfill):
        for target, past in history.items():
            both = pd.concat([past, rows[rows["target"] == target]], ignore_index=True)
            history[target] = both.drop_duplicates(["pool_id", "target_day"]).sort_values(
                ["target_day", "pool_id"], ignore_index=True
            )
    return history


def _published(
    settings: Settings,
    plan: ForecastPlan,
    serving: ServingModel,
    history: Mapping[str, pd.DataFrame],
) -> dict[Target, pd.DataFrame]:
    """PUBLISHED_COLUMNS of the as-of day, by target; APY first."""
    return {
        target: publish_days(
            serving.sample.rows,
            target,
            [plan.as_of],
            horizon=plan.folds.horizon,
            level=settings.interval_level,
            history=history[target.name],
            is_shadow=serving.is_shadow,
        )
        for target in targets_of(settings)
    }


def _forecasts(
    settings: Settings,
    plan: ForecastPlan,
    pools: pd.DataFrame,
    published: Mapping[Target, pd.DataFrame],
    history: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Rows of `yieldspark.forecasts` without model_version, explanation and run_id."""
    rows = []
    for target, rows_of_target in published.items():
        relative = relative_quantiles(
            past_forecasts(target, history[target.name], plan.as_of), settings.interval_level
        )
        rows.append(apply_fallbacks(pools, rows_of_target, target, relative, plan.as_of))
    return join_targets(*rows).assign(
        target_date=plan.as_of + dt.timedelta(days=plan.folds.horizon),
        horizon_days=plan.folds.horizon,
        as_of=plan.as_of,
        interval_level=settings.interval_level,
        engine=plan.engine,
    )


def _score_check(
    database: Engine, plan: ForecastPlan, backfill: Sequence[pd.DataFrame], level: float
) -> CheckResult:
    """The score of the last SCORED_DAYS target days, as a check that never blocks."""
    scored = scored_rows(
        database, plan.engine, horizon=plan.folds.horizon, last=plan.as_of, days=SCORED_DAYS
    )
    first = plan.as_of - dt.timedelta(days=SCORED_DAYS - 1)
    recent = [rows[rows["target_date"] >= first] for rows in backfill]
    # stored rows come first: they win over the backfill of the same day
    rows = pd.concat([scored, *recent], ignore_index=True).drop_duplicates(
        ["pool_id", "target_date", "target"]
    )
    table = score_table(rows, level)
    line = summary_line(table)
    log.info("the last %d days: %s", SCORED_DAYS, line)
    figures = {"scores": table_json(table)}
    return CheckResult("rolling_origin_score", True, "info", line, figures=figures)
