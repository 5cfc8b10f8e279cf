"""Whether the transfer panel helps small panels: errors of models that are fitted on own rows
alone, and on own rows with those of the panel at TRANSFER_WEIGHT.

Fits and publishes by the product's functions; reads pool history of Parquet files, no database. The
small panels have no pool of the transfer panel. Of the transfer panel, only rows at least
PANEL_AGE_DAYS older than the first forecast are used, and they are moved further back by whole
weeks: a release is older than the days that its users forecast.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.forecast_data import SHARED_DATA, Panel, history_files
from common.horizons import NEXT_DAY
from forecasting.engines.engine import Objective
from forecasting.engines.folds import FoldPlan, backtest_folds
from forecasting.engines.lightgbm_engine import LightgbmEngine, LightgbmRows
from forecasting.engines.model_parameters import ModelParameters
from forecasting.evaluation.scores import score
from forecasting.features.feature_names import FEATURES, LABELS
from forecasting.features.feature_rows import complete_rows
from forecasting.features.labelled_features import FeatureSpec
from forecasting.features.pool_history import METRICS_SCHEMA
from forecasting.features.source_queries import LOOK_BACK_DAYS
from forecasting.features.targets import targets
from forecasting.features.transfer_panel import panel_metrics
from forecasting.features.transfer_rows import transfer_rows
from forecasting.models.stacked_model import can_fit, fit_stacked
from forecasting.publishing.past_forecasts import empty_history
from forecasting.publishing.persistence_gate import LOSS_LIMIT
from forecasting.publishing.publish import evaluation_rows, publish_days

LAST = dt.date(2025, 10, 5)
FORECAST_DAYS, REFIT_DAYS, TRAIN_DAYS = 120, 40, 365
GATE_DAYS = 45
"""First target days, from which gate and interval learn; the published scores are of the others."""
PANEL_AGE_DAYS, MOVED_WEEKS = 60, 104
LEVEL, MIN_HISTORY_DAYS = 0.8, 4
MIN_DRAWN_DAYS = 60
"""Days before the first forecast of a pool that is drawn."""
STABLE = {"USDC", "USDT", "DAI", "USDBC", "TUSD", "GHO", "USDE", "USDS", "DOLA"}
RATES = ("DGS10", "SOFR", "RRPONTSYD", "BAA10Y", "VIXCLS", "T10Y2Y", "T10Y3M")


@dataclass(frozen=True)
class SmallPanel:
    """Pools of a user.

    Attributes:
        history: pool_id, date, apy (percent) and tvl (USD).
        days: days of history before the first forecast.
    """

    name: str
    history: pd.DataFrame
    days: int = TRAIN_DAYS + LOOK_BACK_DAYS


def read_history(path: Path) -> pd.DataFrame:
    """Read the last snapshot of each pool and day."""
    raw = pq.read_table(path, columns=["pool_id", "timestamp", "apy", "tvl_usd"]).to_pandas()
    raw["date"] = pd.to_datetime(raw.pop("timestamp"), utc=True, format="ISO8601").dt.date
    last: pd.DataFrame = raw.groupby(["pool_id", "date"], as_index=False).last()
    return last.rename(columns={"tvl_usd": "tvl"})


def read_rates(path: Path) -> pd.DataFrame:
    """Read interest rates and yields (percent) as pools without TVL: unlike any DEX pool."""
    wide = pd.read_csv(path, usecols=["observation_date", *RATES])
    wide["date"] = pd.to_datetime(wide.pop("observation_date")).dt.date
    long = wide.melt("date", var_name="pool_id", value_name="apy").dropna(subset=["apy"])
    return long.assign(tvl=np.nan)


def generated_pools(seed: int) -> pd.DataFrame:
    """Return 20 generated pools: APY returns to its mean, half of them rarely change."""
    panel = Panel(20, TRAIN_DAYS + LOOK_BACK_DAYS + FORECAST_DAYS, LAST, seed)
    chunks = list(panel.chunks())
    metrics, stale = (
        pa.concat_tables([chunk[part] for chunk in chunks]).to_pandas() for part in (0, 1)
    )
    carried = pd.MultiIndex.from_frame(stale[["pool_id", "date"]])
    is_carried = pd.MultiIndex.from_frame(metrics[["pool_id", "date"]]).isin(carried)
    observed: pd.DataFrame = metrics[~is_carried]
    return observed.rename(columns={"actual_apy": "apy", "actual_tvl": "tvl"})


def small_panels(
    history: pd.DataFrame, pools: pd.DataFrame, rates: Path, folds: FoldPlan, seeds: int
) -> Iterator[SmallPanel]:
    """Yield the panels: stable pools, panels unlike the transfer panel, and random pools with all
    their days or few.
    """
    of_panel = set(panel_metrics()["pool_id"].to_pylist())
    history = history[~history["pool_id"].isin(of_panel)]
    lengths = history.loc[history["date"] < folds.forecast.start, "pool_id"].value_counts()
    own = sorted(lengths.index[lengths >= MIN_DRAWN_DAYS])
    tokens = pools.set_index("pool")["symbol"].str.upper().str.split("-")
    stable = [pool for pool in tokens.index if set(tokens[pool]) <= STABLE]
    longest = sorted(stable, key=lambda pool: (-lengths.get(pool, 0), pool))[:8]
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        ten, twenty = (
            history[history["pool_id"].isin(random.choice(own, size, replace=False))]
            for size in (10, 20)
        )
        yield SmallPanel(f"10 random pools, {seed}", ten)
        yield SmallPanel(f"20 random pools, {seed}", twenty)
        yield SmallPanel(f"20 random pools, 30 days, {seed}", twenty, 30)
        yield SmallPanel(f"20 random pools, 15 days, {seed}", twenty, 15)
    yield SmallPanel("8 stable pools", history[history["pool_id"].isin(longest)])
    yield SmallPanel("7 interest rates", read_rates(rates))
    yield SmallPanel("20 generated pools", generated_pools(seed=1))


def old_transfer_rows(folds: FoldPlan, moved_weeks: int) -> pa.Table:
    """Return the rows of the transfer panel up to PANEL_AGE_DAYS before the first forecast, with
    all days moved back.
    """
    last = folds.forecast.start - dt.timedelta(days=PANEL_AGE_DAYS)
    rows = transfer_rows(FeatureSpec(last, last, NEXT_DAY, LEVEL, MIN_HISTORY_DAYS))
    moved_days = pa.scalar(7 * moved_weeks, pa.int32())
    moved = pc.subtract(rows["date"].cast(pa.int32()), moved_days).cast(pa.date32())
    return rows.set_column(rows.column_names.index("date"), "date", moved)


def panel_folds() -> FoldPlan:
    return backtest_folds(
        LAST,
        days=FORECAST_DAYS,
        horizon=NEXT_DAY,
        train_days=TRAIN_DAYS,
        refit_days=REFIT_DAYS,
    )


@contextmanager
def untimed(name: str) -> Iterator[None]:
    yield


def feature_rows(panel: SmallPanel, folds: FoldPlan) -> pa.Table:
    """Compute the feature rows of the panel's days."""
    first = folds.forecast.start - dt.timedelta(days=panel.days)
    window = panel.history[(panel.history["date"] >= first) & (panel.history["date"] <= LAST)]
    complete = window.sort_values(["pool_id", "date"]).reindex(columns=METRICS_SCHEMA.names)
    plain = complete.astype(object).where(complete.notna(), None)
    metrics = pa.Table.from_pandas(plain, METRICS_SCHEMA, preserve_index=False)
    spec = FeatureSpec(max(first, folds.first_day), LAST, NEXT_DAY, LEVEL, MIN_HISTORY_DAYS)
    return complete_rows(metrics.to_batches(), spec, None)


def move_errors(rows: LightgbmRows, folds: FoldPlan) -> list[list[str]]:
    """Return, by target, the error of one model's moves relative to persistence's, in scales, of at
    most LOSS_LIMIT each: of all days, and of the first REFIT_DAYS days.
    """
    return [_move_errors(rows, label, folds) for label in ("apy_label", "tvl_label")]


def _move_errors(rows: LightgbmRows, label: str, folds: FoldPlan) -> list[str]:
    errors = []
    for fold in folds.apy:
        scored = rows.forecast(fold.forecast, [], (label,))[label]
        moves = np.zeros(len(scored))
        if can_fit(rows, label, fold.train):
            models = rows.fit([Objective(label)], fold.train)
            moves = rows.forecast(fold.forecast, models, ())["0"].to_numpy(float)
        actual = scored.to_numpy(float)
        losses = [np.minimum(np.abs(error), LOSS_LIMIT) for error in (actual - moves, actual)]
        errors.append([float(np.nansum(loss)) for loss in losses])
    return [_cell(*np.sum(errors, axis=0)), _cell(*errors[0])]


def _cell(model: float, persistence: float) -> str:
    return f"{model / persistence:.3f}" if persistence else ""


def published_errors(rows: LightgbmRows, folds: FoldPlan) -> list[list[str]]:
    """Return, by target, the MAE of what is published after GATE_DAYS days, relative to
    persistence's, and the coverage of its interval.
    """
    sample = fit_stacked(rows, folds, LEVEL, untimed)
    cells = []
    for target in targets(max_apy_percent=1e6, max_tvl_usd=1e12):
        published = publish_days(
            sample.rows,
            target,
            folds.forecast.days,
            horizon=NEXT_DAY,
            level=LEVEL,
            history=empty_history(),
        )
        evaluated = evaluation_rows(
            published[published["next"].notna()],
            sample,
            target,
            engine="lightgbm",
            horizon=NEXT_DAY,
            level=LEVEL,
            source="backtest",
            run_id="transfer",
        )
        first = LAST - dt.timedelta(days=FORECAST_DAYS - GATE_DAYS)
        result = score(evaluated[evaluated["target_date"] > first], LEVEL)
        figures = (result.ratio.mae, result.interval.coverage)
        cells.append(["" if figure is None else f"{figure:.3f}" for figure in figures])
    return cells


MOVES, PUBLISHED = ("all days", f"first {REFIT_DAYS} days"), ("MAE", "coverage")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED_DATA)
    parser.add_argument("--seeds", type=int, default=3, help="random panels of each size")
    parser.add_argument(
        "--moved-weeks", type=int, default=MOVED_WEEKS, help="weeks that the panel is moved back"
    )
    parser.add_argument("--only", default="", help="panels whose name contains this text")
    parser.add_argument(
        "--published", action="store_true", help="the whole stack, its gate and interval: slow"
    )
    options = parser.parse_args(arguments)
    files = history_files(options.data)
    history, pools = read_history(files[0]), pq.read_table(files[1]).to_pandas()
    folds = panel_folds()
    transfer = old_transfer_rows(folds, options.moved_weeks)
    days = folds.forecast
    print(f"{len(transfer):,} rows of the transfer panel; as-of days {days.start} to {days.end}")
    columns, errors = (PUBLISHED, published_errors) if options.published else (MOVES, move_errors)
    header = ("panel", "target", *columns, *(f"{name}, with the panel" for name in columns))
    print(f"| {' | '.join(header)} |")
    print("|---" * len(header) + "|")
    engine = LightgbmEngine(ModelParameters(seed=1, threads=2))
    rates = options.data / "fred_daily.csv"
    for panel in small_panels(history, pools, rates, folds, options.seeds):
        if options.only not in panel.name:
            continue
        rows = feature_rows(panel, folds)
        without, with_panel = (
            errors(engine.prepare(rows, FEATURES, LABELS, part), folds) for part in (None, transfer)
        )
        for name, own, both in zip(("APY", "TVL"), without, with_panel, strict=True):
            print(f"| {panel.name} | {name} | {' | '.join([*own, *both])} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
