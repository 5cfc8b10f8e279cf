"""Competitor of the forecast benchmark: mlforecast with LightGBM on lags and rolling means, one
model for all pools, refitted every few days.

Reads Parquet of observed values (pool_id, date, apy percent, tvl USD; null if not observed) and
of requested forecasts (target, pool_id, as_of). Writes those rows with the next day as `level`
and `differences`, NaN where there is none, and prints seconds by stage as JSON. It imports
nothing of the product, so that any interpreter with mlforecast, lightgbm and pyarrow can run it:
`python -m benchmarks.peer_mlforecast`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd

VARIANTS = ("level", "differences")
KEY = ("target", "pool_id", "as_of")
DAY = pd.Timedelta(days=1)

LAGS, MEANS, DATE_FEATURES = (1, 2, 3, 7, 14), (7, 30), ("dayofweek",)

LIGHTGBM: Mapping[str, Any] = {
    "objective": "regression_l1",
    "n_estimators": 200,
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_child_samples": 60,
    "max_bin": 127,
    "subsample": 0.7,
    "subsample_freq": 1,
    "colsample_bytree": 0.5,
    "reg_lambda": 5.0,
    "random_state": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
"""The product's settings, repeated here. LightGBM's defaults, with squared loss, are worse in all
four cases.
"""


def values_up_to(values: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """Return one target's values up to `day`, in mlforecast's shape: unique_id, ds, y, sorted. All
    reads go through it, so that no later value leaks.

    Args:
        values: A row for each day and a column for each pool; NaN if not observed.
        day: Last day.
    """
    # mlforecast counts lags in rows, so a gap takes the value before it; a pool's rows begin with
    # its first observed day and end with its last
    past = values.loc[:day]
    filled = past.ffill().where(past.bfill().notna())
    # stacking drops missing values and keeps the order of the pools
    series = filled.rename_axis(index="ds", columns="unique_id").T.stack()
    return pd.DataFrame({"y": series}).reset_index()


def learnable(rows: pd.DataFrame, values: pd.DataFrame) -> pd.Series[bool]:
    """Return the rows to learn from: observed on the day and the day before, as in the product."""
    observed = values.notna()
    both = (observed & observed.shift(1, fill_value=False)).stack()
    keys = pd.MultiIndex.from_arrays([rows["ds"], rows["unique_id"]])
    return pd.Series(both.reindex(keys, fill_value=False).to_numpy(bool), index=rows.index)


def refit_days(days: Sequence[pd.Timestamp], every: int) -> set[pd.Timestamp]:
    """Return the first of the sorted days, and each that is `every` days or more after the
    last refit.
    """
    refits = [days[0]]
    for day in days:
        if (day - refits[-1]).days >= every:
            refits.append(day)
    return set(refits)


def by_day(history: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return observed values of one target, a row for each day and a column for each pool."""
    values = history.pivot(index="date", columns="pool_id", values=target).asfreq("D")
    return values.dropna(axis=1, how="all")


class Competitor:
    """One target and variant, fitted on the values up to a day."""

    def __init__(self, variant: str, threads: int) -> None:
        from lightgbm import LGBMRegressor
        from mlforecast import MLForecast
        from mlforecast.lag_transforms import RollingMean
        from mlforecast.target_transforms import Differences

        self.forecaster = MLForecast(
            models={"forecast": LGBMRegressor(**LIGHTGBM, n_jobs=threads)},
            freq="D",
            lags=list(LAGS),
            # a new pool with fewer days than the window still has a mean
            lag_transforms={1: [RollingMean(days, min_samples=1) for days in MEANS]},
            date_features=list(DATE_FEATURES),
            target_transforms=[Differences([1])] if variant == "differences" else None,
            num_threads=threads,
        )

    def fit(self, values: pd.DataFrame, day: pd.Timestamp) -> None:
        # missing lags stay missing, so that new pools are forecast too
        rows = self.forecaster.preprocess(
            values_up_to(values, day), static_features=[], dropna=False
        )
        rows = rows[learnable(rows, values)]
        self.forecaster.fit_models(rows.drop(columns=["unique_id", "ds", "y"]), rows["y"])

    def forecast(
        self, values: pd.DataFrame, day: pd.Timestamp, pools: Sequence[str]
    ) -> pd.Series[float]:
        """Return the day after `day` of pools that were observed on it."""
        past = values_up_to(values, day)
        with warnings.catch_warnings():
            # a new pool has no long lags, which LightGBM handles
            warnings.filterwarnings("ignore", message="Found null values")
            predictions = self.forecaster.predict(1, new_df=past[past["unique_id"].isin(pools)])
        by_pool: pd.Series[float] = predictions[predictions["ds"] == day + DAY].set_index(
            "unique_id"
        )["forecast"]
        return by_pool.reindex(list(pools))


def forecasts(
    history: pd.DataFrame,
    requested: pd.DataFrame,
    *,
    refit: int,
    threads: int,
    seconds: dict[str, float],
) -> pd.DataFrame:
    """Return the requested rows with a column for each of VARIANTS.

    Args:
        history: Observed values.
        asked: Requested forecasts.
        refit: Days between refits.
        threads: LightGBM threads.
        seconds: Collects the time of `fit` and `predict`.
    """
    parts = []
    for target, rows in requested.groupby("target"):
        values = by_day(history, str(target))
        days = sorted(rows["as_of"].unique())
        refits = refit_days(days, refit)
        competitors = {variant: Competitor(variant, threads) for variant in VARIANTS}
        for day in days:
            today = rows[rows["as_of"] == day]
            for variant, competitor in competitors.items():
                if day in refits:
                    with _timed(seconds, "fit"):
                        competitor.fit(values, day)
                with _timed(seconds, "predict"):
                    today = today.assign(
                        **{
                            variant: (
                                competitor.forecast(
                                    values, day, today["pool_id"].tolist()
                                ).to_numpy()
                            )
                        }
                    )
            parts.append(today)
    result: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return result


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = monotonic()
    yield
    seconds[name] += monotonic() - started


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peer_mlforecast",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    for name in ("history", "asked", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--refit", type=int, default=7, help="days between refits (default: 7)")
    parser.add_argument("--threads", type=int, default=2, help="LightGBM threads (default: 2)")
    options = parser.parse_args(argv)
    started = monotonic()
    seconds: dict[str, float] = defaultdict(float)
    predictions = forecasts(
        pd.read_parquet(options.history),
        pd.read_parquet(options.asked),
        refit=options.refit,
        threads=options.threads,
        seconds=seconds,
    )
    predictions[[*KEY, *VARIANTS]].to_parquet(options.out, index=False)
    summary = {
        "status": "succeeded",
        "seconds": round(monotonic() - started, 2),
        "stages": {name: round(duration, 2) for name, duration in seconds.items()},
        "rows": {
            "asked": len(predictions),
            "missing": int(predictions[list(VARIANTS)].isna().any(axis=1).sum()),
        },
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
