"""Accuracy part of the forecast benchmark: backtests of both engines, and mlforecast on the same
rows. All methods are scored by `forecasting.evaluation.scores` on the rows of
`yieldspark.forecast_evaluation`.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import text

from benchmarks.forecast_data import Say, run_command
from benchmarks.peer_mlforecast import KEY, VARIANTS
from benchmarks.processes import PASSIVE_THREADS, PROJECT, Timing, measure
from config_spark import Settings
from database.connections.engine import make_engine
from forecasting.evaluation.scores import FORECASTS, investable, score
from forecasting.publishing.forecast_history import scored_rows

PEER = "mlforecast"
HORIZON = 1
ROW_KEY = ["target", "target_date", "pool_id"]
CLASSES = ("restricted", "all")

OBSERVED = """
SELECT m.pool_id, m.date,
    CASE WHEN coalesce(a.apy_staleness_days, 0) = 0 THEN m.actual_apy::float8 END AS apy,
    CASE WHEN coalesce(a.tvl_staleness_days, 0) = 0 THEN m.actual_tvl::float8 END AS tvl
FROM pool_daily_metrics AS m
LEFT JOIN yieldspark.value_staleness AS a ON a.pool_id = m.pool_id AND a.date = m.date
WHERE m.date <= :end
    AND (m.actual_apy IS NOT NULL OR m.actual_tvl IS NOT NULL)
ORDER BY m.pool_id, m.date
"""


@dataclass(frozen=True)
class Period:
    """Scores of `days` target days that end with `end`.

    Attributes:
        timings: Processes, by engine and PEER.
        scores: By target and class of rows: rows, pools, days, and `methods` with errors, `ratio`
            to persistence and `interval` (None without one).
        no_peer: Why the competitor is missing, else None.
    """

    end: dt.date
    days: int
    refit: int
    pools: int
    timings: Mapping[str, Timing]
    scores: Mapping[str, Mapping[str, Any]]
    no_peer: str | None


@dataclass(frozen=True)
class Peer:
    """Interpreter of the competitor; `missing` is the reason why it cannot run."""

    python: str
    missing: str | None

    @classmethod
    def of(cls, python: str) -> Peer:
        """Check an interpreter for the competitor's packages."""
        command = [python, "-c", "import mlforecast, lightgbm, pyarrow"]
        try:
            process = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return cls(python, f"{python} does not run: {error.strerror}")
        return cls(
            python,
            f"not installed: {process.stderr.strip().splitlines()[-1]}"
            if process.returncode
            else None,
        )


def run_period(
    settings: Settings,
    engines: Sequence[str],
    end: dt.date,
    days: int,
    refit: int,
    peer: Peer,
    say: Say,
) -> Period:
    """Backtest each engine, then run the competitor on the rows of the first.

    Raises:
        RuntimeError: A process failed, or the engines' rows differ.
    """
    timings, rows = {}, {}
    options = ["--days", str(days), "--refit", str(refit), "--end", end.isoformat()]
    for engine in engines:
        timings[engine] = run_command(
            f"backtest {engine} to {end}",
            settings,
            "backtest",
            *options,
            "--engine",
            engine,
            say=say,
        )
        rows[engine] = scored_rows(
            make_engine(settings), engine, horizon=HORIZON, last=end, days=days
        ).sort_values(ROW_KEY, ignore_index=True)
    if peer.missing is None:
        timings[PEER], competing = compete(settings, rows[engines[0]], end, refit, peer.python, say)
    else:
        competing = {}
    pools = rows[engines[0]]["pool_id"].nunique()
    return Period(
        end,
        days,
        refit,
        pools,
        timings,
        score_methods(rows, competing, settings.interval_level),
        peer.missing,
    )


def compete(
    settings: Settings, rows: pd.DataFrame, end: dt.date, refit: int, python: str, say: Say
) -> tuple[Timing, dict[str, pd.Series[float]]]:
    """Run the competitor on these rows.

    Returns:
        Its timing and its forecasts in the rows' order; persistence where it has none.

    Raises:
        RuntimeError: Its process failed.
    """
    folder = settings.yieldspark_home / PEER
    folder.mkdir(exist_ok=True)
    files = {name: folder / f"{name}.parquet" for name in ("history", "asked", "out")}
    with make_engine(settings).connect() as connection:
        history = pd.read_sql(text(OBSERVED), connection, params={"end": end})
    _with_days(history, "date").to_parquet(files["history"], index=False)
    requested = _with_days(rows[list(KEY)], "as_of")
    requested.to_parquet(files["asked"], index=False)
    command = [
        python,
        "-m",
        "benchmarks.peer_mlforecast",
        "--refit",
        str(refit),
        "--threads",
        str(settings.model_threads),
    ]
    variables = os.environ | PASSIVE_THREADS | {"PYTHONPATH": str(PROJECT)}
    timing = measure(f"{PEER} to {end}", [*command, *_options(files)], variables, folder=folder)
    if timing.error:
        raise RuntimeError(f"{PEER} failed, {timing.error}")
    say(
        f"{PEER} to {end}: {timing.seconds:.1f} s, {timing.rows['missing']} of"
        f" {timing.rows['asked']} rows without a forecast"
    )
    merged = requested.merge(
        pd.read_parquet(files["out"]), on=list(KEY), how="left", validate="one_to_one"
    )
    return timing, {
        f"{PEER} {variant}": merged[variant].fillna(rows["persistence"]) for variant in VARIANTS
    }


def _with_days(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    return rows.assign(**{name: pd.to_datetime(rows[name])})


def _options(files: Mapping[str, Path]) -> list[str]:
    return list(chain.from_iterable((f"--{name}", str(path)) for name, path in files.items()))


def score_methods(
    rows: Mapping[str, pd.DataFrame], competing: Mapping[str, pd.Series[float]], level: float
) -> dict[str, Any]:
    """Score all methods on the same rows.

    Args:
        rows: Evaluation rows of each engine.
        competing: Competitor's forecasts of them.
        level: Level of the intervals.

    Returns:
        As `Period.scores`.

    Raises:
        RuntimeError: The engines did not forecast the same rows.
    """
    first = next(iter(rows.values()))
    for engine, engine_rows in rows.items():
        if not engine_rows[[*ROW_KEY, "actual"]].equals(first[[*ROW_KEY, "actual"]]):
            raise RuntimeError(
                f"{engine} forecast {len(engine_rows)} rows and the first engine {len(first)}:"
                " scores need the same rows"
            )
    naive = first.assign(
        forecast=first["persistence"], low=first["naive_low"], high=first["naive_high"]
    )
    without = first.assign(low=float("nan"), high=float("nan"))
    others = {
        name: first[column]
        for name, column in FORECASTS.items()
        if name not in ("model", "persistence")
    } | dict(competing)
    methods = {
        **rows,
        "persistence": naive,
        **{name: without.assign(forecast=forecast) for name, forecast in others.items()},
    }
    masks = {"restricted": investable(first), "all": pd.Series(True, index=first.index)}
    scores: dict[str, Any] = {}
    for target in sorted(first["target"].unique()):
        is_target = first["target"] == target
        scores[str(target)] = {
            name: _scores(methods, masks[name] & is_target, level) for name in CLASSES
        }
    return scores


def _scores(
    methods: Mapping[str, pd.DataFrame], mask: pd.Series[bool], level: float
) -> dict[str, Any]:
    scores = {name: score(rows[mask], level).to_json() for name, rows in methods.items()}
    counts = {name: next(iter(scores.values()))[name] for name in ("rows", "pools", "days")}
    if not counts["rows"]:
        return counts | {"methods": {}}
    parts = {
        name: {
            **method_scores["model"],
            "ratio": method_scores["ratio"],
            "interval": method_scores["interval"],
        }
        for name, method_scores in scores.items()
    }
    return counts | {
        "methods": {
            name: part if part["interval"]["rows"] else part | {"interval": None}
            for name, part in parts.items()
        }
    }
