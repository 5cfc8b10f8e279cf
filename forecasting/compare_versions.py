"""Two versions judged on the same rows: days that neither was fitted on, up to the newest that has
come true.

In: two versions, a Spark session. Out: the numbers of `promotion.judge`, the first as challenger
and the second as champion. It moves nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession

from common.errors import NotEnoughHistory
from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import exported_snapshot
from database.ledger.runs import open_run
from forecasting.engines.choose import choose_engine
from forecasting.engines.folds import ONE_DAY, DaySpan, FoldPlan
from forecasting.features.feature_frame import feature_names
from forecasting.models.stacked_model import forecast_by
from forecasting.registry.model_archive import require_features
from forecasting.registry.versions import load_version
from forecasting.run.dataset import cached_dataset
from forecasting.run.plan import newest_day
from forecasting.run.serving_model import decide_promotion, load_stacked_model
from spark.interrupt import interruptible

JOB = "compare_models"


def compare_versions(
    settings: Settings, first: str, second: str, *, session: Callable[[], SparkSession]
) -> dict[str, Any]:
    """Returns: first, second, first_day, last_day, decision and reason as a night would have them,
    and `numbers`.

    Raises: ModelRefused, RegistryUnreachable; NotEnoughHistory where no day has come that neither
    had seen.
    """
    database = make_engine(settings)
    archives = [load_version(settings, database, name)[1] for name in (first, second)]
    for archive in archives:
        require_features(archive.card, feature_names(market=settings.market_features))
    as_of = newest_day(settings, as_of=None, complete=dt.datetime.now(dt.UTC).date() - ONE_DAY)
    start = max(
        as_of - dt.timedelta(days=settings.validation_days),
        *(archive.card.origin for archive in archives),
    )
    if start >= as_of:
        raise NotEnoughHistory(
            f"both versions know everything up to {start}, and the newest metrics are of {as_of}:"
            " compare them some days later"
        )
    span = DaySpan(start, as_of + ONE_DAY)
    folds = FoldPlan(as_of, settings.horizon_days, (), (), span)
    with open_run(
        database,
        job=JOB,
        mode="compare",
        engine_name=settings.engine,
        as_of=as_of,
        code_version=settings.code_version,
    ) as run:
        spark = session()
        run.jvm_started = True
        engine = choose_engine(settings.engine, settings, spark)
        with (
            interruptible(spark),
            exported_snapshot(settings) as snapshot,
            cached_dataset(spark, settings, engine, folds, run, snapshot) as (dataset, _),
        ):
            one, other = (
                forecast_by(dataset, load_stacked_model(engine, archive, span))
                for archive in archives
            )
        promotion = decide_promotion(one, other, settings)
    names = {
        "first": archives[0].card.version,
        "second": archives[1].card.version,
        "first_day": start,
        "last_day": as_of,
    }
    return {
        **names,
        "decision": promotion.decision,
        "reason": promotion.reason,
        "numbers": dict(promotion.numbers),
    }
