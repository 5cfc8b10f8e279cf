"""The work of a forecast run: fit or load the model, forecast, publish in one commit.

Reads the plan; writes `yieldspark.forecasts`, the forecast columns of the metrics table,
`yieldspark.forecast_evaluation` and the decision on a new model version. Units: APY percent, TVL
USD, UTC days.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import pandas as pd
from sqlalchemy import Connection, Engine

from common.horizons import NEXT_DAY, at_horizon
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
from forecasting.executors.executor import Executor, RowsToStage
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
from forecasting.run.changes import record_inputs
from forecasting.run.dataset import active_pools, cached_dataset
from forecasting.run.forecast_rows import evaluation_to_stage, forecasts_to_stage
from forecasting.run.health_checks import forecast_explanations, model_health_checks
from forecasting.run.plan import HorizonPlan, RunPlan, refit_is_due
from forecasting.run.registration import model_checks, record_refit, register_versions
from forecasting.run.run_inputs import (
    MetricsDigest,
    RunInputs,
    code_versions,
    history_digest,
    other_digest,
    published_digest,
    read_registry,
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
    plan: RunPlan,
    run: Run,
) -> Callable[[], None]:
    """Forecasts all horizons, and commits the rows with the run.

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
        for horizon_plan in plan.horizons:
            register_versions(settings, database, horizon_plan)
        if inputs := _inputs(settings, plan, outcome):
            record_inputs(database, run.run_id, inputs)

    return finish


@dataclass(frozen=True)
class _Outcome:
    """What a committed run has read and written.

    Attributes:
        serving: the models of its forecasts, in the order of the plan's horizons.
        metrics: digest of the metrics that were read.
        tables: digests of the other rows, as of the read and after the writes.
        is_history_unchanged: no other command wrote the forecast history during the run.
    """

    serving: Sequence[ServingModel]
    metrics: MetricsDigest
    tables: Mapping[str, str]
    is_history_unchanged: bool


def _inputs(settings: Settings, plan: RunPlan, outcome: _Outcome) -> RunInputs | None:
    """The inputs for the ledger; None if the next run must not rely on this one."""
    registry = read_registry(settings, plan.engine)
    if registry is None or not outcome.is_history_unchanged:
        return None
    is_due = False
    for horizon_plan, model in zip(plan.horizons, outcome.serving, strict=True):
        versions, refit = horizon_plan.serving, model.refit
        assert versions is not None, "a forecast plan has the model versions"
        if versions.problems or versions.is_past:
            return None
        # a version that is fitted now moves aliases; another process may have moved them since
        champion = versions.champion.card.version if versions.champion else None
        if refit and refit.promotion and refit.archive:
            champion = refit.promotion.serving_version(refit.archive.card.version, champion)
        if registry[horizon_plan.horizon].aliases.get(CHAMPION) != champion:
            return None
        newest = plan.as_of if refit and refit.archive else versions.newest_as_of
        is_due |= refit_is_due(newest, plan.as_of, horizon_plan.history_days, settings.refit_days)
    return RunInputs(
        as_of=plan.as_of.isoformat(),
        engine=plan.engine,
        settings=result_settings(settings),
        code=code_versions(settings),
        metrics=outcome.metrics.buckets,
        tables=outcome.tables,
        registry={str(horizon): state.to_json() for horizon, state in registry.items()},
        refit_is_due=is_due,
    )


def _forecast(
    executor: Executor, settings: Settings, database: Engine, plan: RunPlan, run: Run
) -> _Outcome:
    engine = executor.engine(plan.engine)
    models, summaries = [], []
    with exported_snapshot(settings) as snapshot:
        # each horizon reads from its own first day: exponential means depend on it, so the rows of
        # a horizon do not depend on which others are published
        for part in plan.horizons:
            with cached_dataset(
                executor,
                settings,
                engine,
                part.folds,
                run,
                snapshot,
                first_day=part.first_day,
                transfer=part.transfers,
            ) as (dataset, summary):
                models.append(select_or_fit_model(dataset, summary, part, engine, settings, run))
            summaries.append(summary)
        pools = active_pools(settings, plan.as_of, snapshot)
        # its rows include those of the other horizons
        longest = min(summaries, key=lambda summary: summary.first_day)
        with at_snapshot(settings, snapshot) as connection:
            tables = other_digest(connection, settings, longest.first_day, plan.as_of)
    with checked_connection(database) as connection:
        history_before = history_digest(connection, settings, plan.as_of, plan.engine)
    publications = []
    for part, model in zip(plan.horizons, models, strict=True):
        _record_checks(run, model_checks(part, model), part.horizon)
        publications.append(_publish(settings, database, part, run, model, pools))
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
        for part, model in zip(plan.horizons, models, strict=True):
            record_refit(connection, plan=part, serving=model, run_id=run.run_id)
        # in the transaction: a later change of these rows by another writer is a change
        tables.update(published_digest(connection, settings, plan.as_of, plan.engine))

    commit_run(
        run,
        [executor.staged(part) for part in _rows_to_stage(settings, publications)],
        on_loaded=executor.on_loaded,
        before_checks=lock_history,
        in_transaction=record,
    )
    return _Outcome(models, longest.metrics, tables, is_history_unchanged)


def _record_checks(run: Run, results: Sequence[CheckResult], horizon: int) -> None:
    """Adds the results to the run under the horizon's names, and logs those that failed."""
    for result in results:
        renamed = replace(result, name=at_horizon(result.name, horizon))
        run.checks.append(renamed)
        if not renamed.passed:
            log.warning("%s", renamed)


@dataclass(frozen=True)
class _Publication:
    """The rows that a run writes for one horizon.

    Attributes:
        forecasts: rows of `yieldspark.forecasts`.
        evaluation: their rows of `yieldspark.forecast_evaluation`.
        backfill: evaluation rows of past days, if the forecast history is too short.
    """

    forecasts: pd.DataFrame
    evaluation: pd.DataFrame
    backfill: list[pd.DataFrame]


def _rows_to_stage(settings: Settings, publications: Sequence[_Publication]) -> list[RowsToStage]:
    """The rows of all horizons: each table is loaded and merged once."""
    forecasts = pd.concat([part.forecasts for part in publications], ignore_index=True)
    evaluation = pd.concat([part.evaluation for part in publications], ignore_index=True)
    backfill = list(chain.from_iterable(part.backfill for part in publications))
    return [
        forecasts_to_stage(forecasts, metrics=metrics_table(settings.metrics_table)),
        evaluation_to_stage(evaluation, PRODUCTION),
        *(
            [evaluation_to_stage(pd.concat(backfill, ignore_index=True), BACKTEST)]
            if backfill
            else []
        ),
    ]


def _publish(
    settings: Settings,
    database: Engine,
    plan: HorizonPlan,
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
        # without the pools that never had an APY, of which nothing is forecast
        reasons = forecasts["apy_fallback_reason"][forecasts["apy"].notna()].tolist()
        run.checks.append(_score_check(database, plan, backfill, settings.interval_level))
        _record_checks(run, model_health_checks(serving, pools, reasons, settings), plan.horizon)
    with run.stage("explain"):
        apy, _ = published.values()
        explanations = forecast_explanations(serving, apy, settings)
        forecasts["explanation"] = forecasts["pool_id"].map(explanations).astype(object)
    return _Publication(forecasts, evaluation, backfill)


def _evaluation(
    settings: Settings,
    plan: HorizonPlan,
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
            horizon=plan.horizon,
            level=settings.interval_level,
            source=PRODUCTION,
            run_id=run_id,
        )
        for target, rows_of_target in published.items()
    ]
    return pd.concat(rows, ignore_index=True)


def _backfill(
    settings: Settings, plan: HorizonPlan, serving: ServingModel, run: Run
) -> list[pd.DataFrame]:
    """Evaluation rows of a refit's validation days, if the forecast history is too short."""
    if not serving.refit or not plan.backfills_history:
        return []
    return [backtest_rows(settings, plan.engine, serving.refit.sample, plan.folds, run)]


def _history(
    database: Engine, plan: HorizonPlan, backfill: Sequence[pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """PAST_COLUMNS by target, of the forecast history and, for days it lacks, of the backfill."""
    history = history_by_target(database, plan.engine, horizon=plan.horizon, as_of=plan.as_of)
    for rows in map(to_past_rows, backfill):
        for target, past in history.items():
            # the stored row of a day comes first, and is the one that stays
            both = pd.concat([past, rows[rows["target"] == target]], ignore_index=True)
            history[target] = both.drop_duplicates(["pool_id", "target_day"]).sort_values(
                ["target_day", "pool_id"], ignore_index=True
            )
    return history


def _published(
    settings: Settings,
    plan: HorizonPlan,
    serving: ServingModel,
    history: Mapping[str, pd.DataFrame],
) -> dict[Target, pd.DataFrame]:
    """PUBLISHED_COLUMNS of the as-of day, by target; APY first."""
    return {
        target: publish_days(
            serving.sample.rows,
            target,
            [plan.as_of],
            horizon=plan.horizon,
            level=settings.interval_level,
            history=history[target.name],
            is_shadow=serving.is_shadow,
        )
        for target in targets_of(settings)
    }


def _forecasts(
    settings: Settings,
    plan: HorizonPlan,
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
        target_date=plan.as_of + dt.timedelta(days=plan.horizon),
        horizon_days=plan.horizon,
        as_of=plan.as_of,
        interval_level=settings.interval_level,
        engine=plan.engine,
    )


def _score_check(
    database: Engine, plan: HorizonPlan, backfill: Sequence[pd.DataFrame], level: float
) -> CheckResult:
    """The score of the last SCORED_DAYS target days, as a check that never blocks."""
    scored = scored_rows(
        database, plan.engine, horizon=plan.horizon, last=plan.as_of, days=SCORED_DAYS
    )
    first = plan.as_of - dt.timedelta(days=SCORED_DAYS - 1)
    recent = [rows[rows["target_date"] >= first] for rows in backfill]
    # stored rows come first: they win over the backfill of the same day
    rows = pd.concat([scored, *recent], ignore_index=True).drop_duplicates(
        ["pool_id", "target_date", "target"]
    )
    table = score_table(rows, level)
    line = summary_line(table)
    ahead = "" if plan.horizon == NEXT_DAY else f", {plan.horizon} days ahead"
    log.info("the last %d days%s: %s", SCORED_DAYS, ahead, line)
    figures = {"scores": table_json(table)}
    name = at_horizon("rolling_origin_score", plan.horizon)
    return CheckResult(name, True, "info", line, figures=figures)
