"""Scores of past forecasts against their actual values, as a command of its own.

Reads the forecast history and the metrics table; writes newly observed actual values. Uses SQL and
pandas, no Spark.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from sqlalchemy import Engine

from common.horizons import at_horizon
from config_spark import Settings
from database.connections.engine import make_engine
from database.ledger.check_result import CheckResult
from database.ledger.run_records import read_run
from database.ledger.runs import open_run
from forecasting.evaluation.scores import ScoreTable, score_table, summary_line, table_json
from forecasting.evaluation.segments import SegmentScore, segment_scores
from forecasting.publishing.actuals import update_actuals
from forecasting.publishing.forecast_history import (
    describe_pools,
    engine_to_score,
    newest_scored_day,
    scored_rows,
)

log = logging.getLogger(__name__)

JOB = "evaluate"


def evaluate(
    settings: Settings,
    *,
    days: int,
    end: dt.date | None = None,
    engine: str | None = None,
    horizon: int | None = None,
) -> dict[str, Any]:
    """Updates actual values and scores the forecasts of the last target days.

    Args:
        days: number of target days that are scored.
        end: last of them; default: the newest target day with an actual value.
        engine: forecasting engine whose forecasts are scored; default: the one that has forecasts
            in these days, or the setting ENGINE if both have.
        horizon: days from an as-of day to its target day; default: each of HORIZONS.

    Returns:
        The row of the run ledger (`updated`: actual values that were added or corrected) with
        `targets`, `groups` and `further_horizons` as `backtest` has them.

    Raises:
        RunInProgress: another run of the job is active.
        DatabaseError: the database does not answer or refuses a statement.
    """
    database = make_engine(settings)
    horizons = (horizon,) if horizon else settings.horizons
    shortest = horizons[0]
    with open_run(
        database,
        job=JOB,
        mode="evaluate",
        engine_name=engine or settings.engine,
        as_of=end,
        code_version=settings.code_version,
    ) as run:
        # committed before the scores, which read the actual values on connections of their own
        with run.stage("evaluate"), run.connection.begin():
            run.rows["updated"] = update_actuals(run.connection)
        with run.stage("score"):
            name = engine or _engine_with_forecasts(database, settings, shortest, end, days)
            run.engine = name
            run.as_of = end or newest_scored_day(database, name, horizon=shortest)
            scores = {}
            for days_ahead in horizons:
                rows = scored_rows(database, name, horizon=days_ahead, last=run.as_of, days=days)
                scores[days_ahead] = scores_of(database, rows, settings.interval_level)
        run.checks += [
            _scores_check(days_ahead, of_horizon.targets)
            for days_ahead, of_horizon in scores.items()
        ]
    return read_run(database, run.run_id).to_json() | scores_json(scores)


def _engine_with_forecasts(
    database: Engine, settings: Settings, horizon: int, end: dt.date | None, days: int
) -> str:
    """The engine to score if none is named; the log says if it is not the settings' one."""
    name = engine_to_score(database, settings.engine, horizon=horizon, end=end, days=days)
    if name != settings.engine:
        log.info(
            "scoring engine %s: engine %s of the settings has no forecasts in these days",
            name,
            settings.engine,
        )
    return name


def _scores_check(horizon: int, targets: ScoreTable) -> CheckResult:
    """The scores as a check that always passes: the ledger keeps them with the run."""
    scores = {"scores": table_json(targets)}
    return CheckResult(
        at_horizon("scores", horizon), True, "info", summary_line(targets), figures=scores
    )


@dataclass(frozen=True)
class EvaluationScores:
    """Scores of past forecasts, by target and by segment of pools."""

    targets: ScoreTable
    segments: list[SegmentScore]

    def to_json(self) -> dict[str, Any]:
        """Returns `targets` and `groups`, as `evaluate` and `backtest` print them."""
        return {
            "targets": table_json(self.targets),
            "groups": [asdict(segment) for segment in self.segments],
        }


def scores_json(scores: Mapping[int, EvaluationScores]) -> dict[str, Any]:
    """Returns scores as `evaluate` and `backtest` print them.

    Args:
        scores: by horizon, the shortest first; at least one.

    Returns:
        Those of the shortest horizon; `further_horizons` has those of the others, each with its
        `horizon_days`, if there are any.
    """
    first, *others = scores.items()
    further = [{"horizon_days": horizon, **of_horizon.to_json()} for horizon, of_horizon in others]
    return first[1].to_json() | ({"further_horizons": further} if further else {})


def scores_of(database: Engine, rows: pd.DataFrame, level: float) -> EvaluationScores:
    """Scores evaluation rows that have actual values.

    Args:
        level: nominal coverage of the intervals, 0 to 1.
    """
    described = describe_pools(database, rows)
    return EvaluationScores(score_table(described, level), segment_scores(described, level))
