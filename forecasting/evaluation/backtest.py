"""The loop of a backtest: what would have been published on each of the last days.

Reads an out-of-sample run; returns evaluation rows. Publishes by the same function as the forecast
job and imports no Spark.
"""

from __future__ import annotations

import pandas as pd

from config_spark import Settings
from database.ledger.runs import Run
from forecasting.engines.folds import FoldPlan
from forecasting.features.targets import targets_of
from forecasting.models.stacked_model import OutOfSample
from forecasting.publishing.forecast_history import BACKTEST
from forecasting.publishing.past_forecasts import empty_history
from forecasting.publishing.publish import evaluation_rows, publish_days


def backtest_rows(
    settings: Settings, engine: str, sample: OutOfSample, folds: FoldPlan, run: Run
) -> pd.DataFrame:
    """Publishes every day of an out-of-sample run and compares it with the actual values.

    Gate and interval learn from the run's own earlier days; they start without a history.

    Args:
        engine: name of the forecasting engine that fitted the sample.
        folds: its plan; gives the days and the horizon.

    Returns:
        Rows of `yieldspark.forecast_evaluation` for both targets, of target days with an actual
        value.
    """
    rows = []
    for target in targets_of(settings):
        published = publish_days(
            sample.rows,
            target,
            folds.forecast.days,
            horizon=folds.horizon,
            level=settings.interval_level,
            history=empty_history(),
        )
        rows.append(
            evaluation_rows(
                # a day without an actual value can neither be scored nor teach gate and interval
                published[published["next"].notna()],
                sample,
                target,
                engine=engine,
                horizon=folds.horizon,
                level=settings.interval_level,
                source=BACKTEST,
                run_id=run.run_id,
            )
        )
    return pd.concat(rows, ignore_index=True)
