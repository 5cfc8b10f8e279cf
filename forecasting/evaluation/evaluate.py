"""Yesterday's forecasts beside today's values: what the forecast job does first every night, as a
command of its own.

In: the ledger of forecasts and the metrics table. Out: `actual` filled in, and the scores of the
newest days. SQL and pandas, no Spark.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import pandas as pd
from sqlalchemy import Engine

from config_spark import Settings
from database.connections.engine import make_engine
from database.ledger.runs import ledger_row, open_run
from forecasting.evaluation.scores import score_table, summary_line
from forecasting.evaluation.segments import segment_scores
from forecasting.publishing.forecast_history import (
    describe_pools,
    engine_to_score,
    newest_scored_day,
    scored_rows,
    update_actuals,
)

log = logging.getLogger(__name__)

JOB = "evaluate"


def evaluate(
    settings: Settings, *, days: int, end: dt.date | None = None, engine: str | None = None
) -> dict[str, Any]:
    """Take in what came true, and score the `days` target days that end with `end`, whether a night
    or a backtest made them.

    Args: end is by default the newest target day that has come true. engine is by default the one
    that has forecasts in those days, the settings' one where both have.

    Returns: the ledger row (updated: target days that came true or were corrected) with `targets`
    and `groups` as `backtest` has them.
    Raises: RunInProgress, DatabaseError.
    """
    database, horizon = make_engine(settings), settings.horizon_days
    with open_run(
        database,
        job=JOB,
        mode="evaluate",
        engine_name=engine or settings.engine,
        as_of=end,
        code_version=settings.code_version,
    ) as run:
        with run.stage("evaluate"), run.connection.begin():
            run.rows["updated"] = update_actuals(run.connection)
        with run.stage("score"):
            name = engine or engine_to_score(
                database, settings.engine, horizon=horizon, end=end, days=days
            )
            if name not in (engine, settings.engine):
                log.info(
                    "engine %s: the settings' engine, %s, has no forecasts in these days",
                    name,
                    settings.engine,
                )
            run.engine = name
            run.as_of = end or newest_scored_day(database, name, horizon=horizon)
            rows = scored_rows(database, name, horizon=horizon, last=run.as_of, days=days)
            scores = scores_of(database, rows, settings.interval_level)
        table = scores["targets"]
        run.checks.append(
            {
                "name": "scores",
                "passed": True,
                "severity": "info",
                "found": summary_line(table),
                "scores": table,
            }
        )
    return ledger_row(database, run.run_id) | scores


def scores_of(database: Engine, rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """Of evaluation rows that have come true: `targets` (scores by target and by restricted or all
    rows) and `groups`.
    """
    described = describe_pools(database, rows)
    return {"targets": score_table(described, level), "groups": segment_scores(described, level)}
