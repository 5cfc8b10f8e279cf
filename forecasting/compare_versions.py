"""Comparison of two model versions on the same rows, by the rule that promotes a challenger.

Reads both versions and the metrics up to the newest day; returns the decision and its numbers.
Adds a run to the ledger; moves no alias and records no decision.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from common.errors import NotEnoughHistory
from common.horizons import NEXT_DAY
from config_spark import Settings
from database.connections.engine import make_engine
from database.connections.snapshots import exported_snapshot
from database.ledger.runs import Run, open_run
from forecasting.engines.folds import ONE_DAY, DaySpan, FoldPlan
from forecasting.executors.choose import executor_of_engine, open_executor
from forecasting.executors.executor import Executor
from forecasting.features.feature_names import feature_names
from forecasting.models.stacked_model import OutOfSample, forecast_by
from forecasting.registry.model_archive import ModelArchive, require_features
from forecasting.registry.versions import load_version
from forecasting.run.as_of_day import first_read_day, newest_day, row_counts
from forecasting.run.dataset import cached_dataset
from forecasting.run.serving_model import decide_promotion, load_stacked_model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JOB = "compare_models"


def compare_versions(
    settings: Settings,
    first: str,
    second: str,
    *,
    horizon: int = NEXT_DAY,
    session: Callable[[int], SparkSession],
) -> dict[str, Any]:
    """Compares two model versions on days that neither was fitted on.

    Args:
        first: the challenger: a version's name, number or alias.
        second: the champion it is measured against.
        horizon: days from the as-of day to the target day, of both.
        session: makes the Spark session for a number of feature rows;
            called only if Spark compares them.

    Returns:
        first, second, first_day, last_day, decision and reason as a forecast run would record
        them, and `numbers` (see `PromotionDecision`).

    Raises:
        ModelRefused: a version is unknown, damaged or has other features than the code.
        RegistryUnreachable: the model registry does not answer.
        NotEnoughHistory: every day with metrics was used to fit one of the versions.
    """
    database = make_engine(settings)
    archives = [
        load_version(settings, database, name, horizon=horizon)[1] for name in (first, second)
    ]
    for archive in archives:
        require_features(archive.card, feature_names(market=settings.market_features))
    as_of = newest_day(settings, as_of=None, complete=dt.datetime.now(dt.UTC).date() - ONE_DAY)
    start = _first_common_day(settings, archives, as_of)
    folds = FoldPlan(as_of, horizon, (), (), DaySpan(start, as_of + ONE_DAY))
    rows, _ = row_counts(settings, first_read_day(folds), as_of)
    choice = executor_of_engine(settings, settings.engine, rows, prefers_spark=False)
    with open_run(
        database,
        job=JOB,
        mode="compare",
        engine_name=settings.engine,
        as_of=as_of,
        code_version=settings.code_version,
    ) as run:
        with open_executor(choice, settings, run, partial(session, rows)) as executor:
            challenger, champion = _forecast_by_versions(executor, settings, archives, folds, run)
        promotion = decide_promotion(challenger, champion, settings)
    return {
        "first": archives[0].card.version,
        "second": archives[1].card.version,
        "first_day": start,
        "last_day": as_of,
        "decision": promotion.decision,
        "reason": promotion.reason,
        "numbers": dict(promotion.numbers),
    }


def _forecast_by_versions(
    executor: Executor,
    settings: Settings,
    archives: Sequence[ModelArchive],
    folds: FoldPlan,
    run: Run,
) -> list[OutOfSample]:
    """The forecasts of each version for the plan's days, from the same features."""
    engine = executor.engine(settings.engine)
    with (
        exported_snapshot(settings) as snapshot,
        cached_dataset(executor, settings, engine, folds, run, snapshot) as (dataset, _),
    ):
        return [
            forecast_by(dataset, load_stacked_model(engine, archive, folds.forecast))
            for archive in archives
        ]


def _first_common_day(
    settings: Settings, archives: Sequence[ModelArchive], as_of: dt.date
) -> dt.date:
    """The first validation day that neither version was fitted on."""
    # a version has seen target days up to its origin: forecasts from that as-of day on are new to
    # it
    start = max(
        as_of - dt.timedelta(days=settings.validation_days),
        *(archive.card.origin for archive in archives),
    )
    if start >= as_of:
        raise NotEnoughHistory(
            f"one of the versions was fitted on data up to {start}, and the newest metrics are of"
            f" {as_of}: compare them after more days have been loaded"
        )
    return start
