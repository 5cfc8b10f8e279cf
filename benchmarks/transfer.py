"""Whether rows of a public panel help small panels: errors of APY models that are trained on own
rows alone, and on own rows with those of other pools at a small weight.

Reads pool history of Parquet files, no database. Half of the pools are the public panel, with days
up to PUBLIC_AGE_DAYS before the first origin only, as a panel that comes with a release; the small
panels are drawn from the other half. Errors are those of the model's own move, before any gate, in
each pool's own scale.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.forecast_data import SHARED_DATA, history_files
from common.horizons import NEXT_DAY
from forecasting.engines.engine import Objective
from forecasting.engines.lightgbm_engine import native_parameters
from forecasting.engines.model_parameters import ModelParameters
from forecasting.engines.native import lightgbm
from forecasting.executors.in_process import METRICS_SCHEMA
from forecasting.features.feature_names import FEATURES
from forecasting.features.feature_rows import complete_rows
from forecasting.features.labelled_features import FeatureSpec
from forecasting.models.stacked_model import MIN_TRAINING_ROWS
from forecasting.publishing.persistence_gate import LOSS_LIMIT

WEIGHTS = (0.0, 0.02, 0.1)
"""Weights of a public row; an own row has 1, and 0 is the product's own way."""

SCORED_DAYS, PUBLIC_AGE_DAYS, TRAIN_DAYS, LOOK_BACK_DAYS = 45, 90, 365, 180
ORIGINS = (dt.date(2025, 8, 20), dt.date(2025, 7, 6), dt.date(2025, 5, 22))
PUBLIC_ROWS = 15_000
LABEL = "apy_label"
STABLE = {"USDC", "USDT", "DAI", "USDBC", "TUSD", "GHO", "USDE", "USDS", "DOLA"}

History = pd.DataFrame
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SmallPanel:
    """Pools of a user.

    Attributes:
        days: days of history that the user has before an origin.
    """

    name: str
    pools: tuple[str, ...]
    days: int = TRAIN_DAYS + LOOK_BACK_DAYS


def read_history(path: Path) -> History:
    """Read the last snapshot of each pool and day: the columns of METRICS_SCHEMA."""
    raw = pq.read_table(path, columns=["pool_id", "timestamp", "apy", "tvl_usd"]).to_pandas()
    raw["date"] = pd.to_datetime(raw.pop("timestamp"), utc=True, format="ISO8601").dt.date
    last = raw.groupby(["pool_id", "date"], as_index=False).last()
    columns: History = last.rename(columns={"tvl_usd": "tvl"}).assign(
        pool_group=None, apy_staleness_days=None, tvl_staleness_days=None
    )
    return columns


def is_public(pool: str) -> bool:
    """Return whether a pool belongs to the public half."""
    return zlib.crc32(pool.encode()) % 2 == 0


def small_panels(history: History, pools: pd.DataFrame, seeds: int) -> list[SmallPanel]:
    """Return the panels: stable pools, random pools, and random pools with few days."""
    first = ORIGINS[-1]
    before = history[history["date"] <= first]
    lengths = before["pool_id"].value_counts()
    own = sorted(pool for pool in lengths.index if not is_public(pool) and lengths[pool] >= 60)
    tokens = pools.set_index("pool")["symbol"].str.upper().str.split("-")
    stable = [pool for pool in tokens.index if set(tokens[pool]) <= STABLE]
    longest = sorted(stable, key=lambda pool: (-lengths.get(pool, 0), pool))[:8]
    panels = [SmallPanel("8 stable pools", tuple(longest))]
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        ten, twenty = (tuple(random.choice(own, size, replace=False)) for size in (10, 20))
        panels += [
            SmallPanel(f"10 random pools, {seed}", ten),
            SmallPanel(f"20 random pools, {seed}", twenty),
            SmallPanel(f"20 random pools, 60 days, {seed}", twenty, 60),
            SmallPanel(f"20 random pools, 30 days, {seed}", twenty, 30),
        ]
    return panels


def feature_table(history: History, first: dt.date, last: dt.date) -> pd.DataFrame:
    """Return key, features, labels and scales of the as-of days [first, last]."""
    ordered = history.sort_values(["pool_id", "date"])
    table = pa.Table.from_pandas(
        ordered[METRICS_SCHEMA.names], METRICS_SCHEMA, preserve_index=False
    )
    spec = FeatureSpec(first, last, NEXT_DAY, level=0.8, min_history_days=4)
    rows: pd.DataFrame = complete_rows(table.to_batches(), spec, None).to_pandas()
    return rows


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows[LABEL].notna()]


def fitted_moves(train: Sequence[tuple[pd.DataFrame, float]], scored: pd.DataFrame) -> Values:
    """Fit on weighted rows and return the moves of the scored rows, in scales: zero (persistence)
    with too few rows to fit.
    """
    rows = pd.concat([part for part, weight in train if weight > 0.0])
    if len(rows) < MIN_TRAINING_ROWS:
        return np.zeros(len(scored))
    weights = np.concatenate([np.full(len(part), weight) for part, weight in train if weight > 0.0])
    parameters = ModelParameters(seed=1, threads=1)
    data = lightgbm.Dataset(
        rows[list(FEATURES)].to_numpy(np.float32), rows[LABEL].to_numpy(), weight=weights
    )
    native = native_parameters(parameters, Objective(LABEL))
    model = lightgbm.train(dict(native), data, parameters.rounds)
    matrix = scored[list(FEATURES)].to_numpy(np.float32)
    return np.asarray(model.predict(matrix, num_threads=parameters.threads))


def errors_of_panel(
    panel: SmallPanel, history: History, public: pd.DataFrame
) -> Mapping[float, tuple[float, float]]:
    """Return the summed capped errors of the model and of persistence, by weight."""
    own_history = history[history["pool_id"].isin(panel.pools)]
    sums = {weight: np.zeros(2) for weight in WEIGHTS}
    for origin in ORIGINS:
        begin = origin - dt.timedelta(days=panel.days)
        last = origin + dt.timedelta(days=SCORED_DAYS)
        window = own_history[(own_history["date"] > begin) & (own_history["date"] <= last)]
        if window.empty:
            continue
        first = max(begin, origin - dt.timedelta(days=TRAIN_DAYS))
        rows = labelled(feature_table(window, first, last))
        # the target of an as-of day is the next day: it must be known at the origin
        is_known = rows["date"] < origin
        scored = rows[rows["date"] >= origin]
        label = scored[LABEL].to_numpy(float)
        persistence = np.minimum(np.abs(label), LOSS_LIMIT).sum()
        for weight in WEIGHTS:
            moves = fitted_moves([(rows[is_known], 1.0), (public, weight)], scored)
            loss = np.minimum(np.abs(label - moves), LOSS_LIMIT).sum()
            sums[weight] += (loss, persistence)
    return {weight: (float(pair[0]), float(pair[1])) for weight, pair in sums.items()}


def public_rows(history: History) -> pd.DataFrame:
    """Return training rows of the public half, at most PUBLIC_ROWS of them."""
    last = ORIGINS[-1] - dt.timedelta(days=PUBLIC_AGE_DAYS)
    first = last - dt.timedelta(days=TRAIN_DAYS)
    is_used = (
        history["pool_id"].map(is_public)
        & (history["date"] <= last)
        & (history["date"] > first - dt.timedelta(days=LOOK_BACK_DAYS))
    )
    rows = labelled(feature_table(history[is_used], first, last))
    return rows.sample(min(PUBLIC_ROWS, len(rows)), random_state=1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED_DATA)
    parser.add_argument("--seeds", type=int, default=2, help="random panels of each size")
    parser.add_argument("--only", default="", help="panels whose name contains this text")
    options = parser.parse_args(arguments)
    files = history_files(options.data)
    history, pools = read_history(files[0]), pq.read_table(files[1]).to_pandas()
    public = public_rows(history)
    print(f"{len(public):,} public rows; origins {', '.join(map(str, reversed(ORIGINS)))}")
    print("| panel | " + " | ".join(f"weight {weight:g}" for weight in WEIGHTS) + " |")
    print("|---" * (len(WEIGHTS) + 1) + "|")
    for panel in small_panels(history, pools, options.seeds):
        if options.only not in panel.name:
            continue
        sums = errors_of_panel(panel, history, public).values()
        ratios = " | ".join(f"{loss / persistence:.3f}" for loss, persistence in sums)
        print(f"| {panel.name} | {ratios} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
