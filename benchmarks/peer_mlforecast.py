"""Competitor of the forecast benchmark: mlforecast with LightGBM on lags and rolling means, one
model of all pools, refitted every few days.

In: Parquet of observed values (pool_id, date, apy percent, tvl USD; null where not observed) and of
the forecasts asked for (target, pool_id, as_of).
Out: Parquet of those rows with the day after as `level` (fitted on raw values) and `differences`
(on first differences), NaN where it says nothing; seconds by stage as one JSON document on standard
output. It fits and forecasts in a process of its own, under any interpreter that has mlforecast,
lightgbm and pyarrow, and imports nothing of the product: `python -m benchmarks.peer_mlforecast`.

Nothing leaks: `known` is the only way to the values. A fit sees the days up to its own, a forecast
those up to its as-of day.
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
"""The product's own settings, written here again. LightGBM's defaults, squared loss among them,
made worse forecasts on all four cases.
"""


def known(values: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """What was known of one target at the end of `day`, in mlforecast's shape: unique_id, ds, y,
    sorted.

    Args: values has a row for each day and a column for each pool, NaN where nothing was observed.
    A gap takes the value before it, because mlforecast counts lags in rows; a pool begins with its
    first observed day and ends with its last.
    """
    past = values.loc[:day]
    filled = past.ffill().where(past.bfill().notna())
    # stacking leaves out what is missing, and keeps the order of the pools
    series = filled.rename_axis(index="ds", columns="unique_id").T.stack()
    return pd.DataFrame({"y": series}).reset_index()


def learnable(rows: pd.DataFrame, values: pd.DataFrame) -> pd.Series[bool]:
    """Rows to learn from: the day and the day before it were observed. A filled day's value is no
    news, and the product learns from none either.
    """
    observed = values.notna()
    both = (observed & observed.shift(1, fill_value=False)).stack()
    keys = pd.MultiIndex.from_arrays([rows["ds"], rows["unique_id"]])
    return pd.Series(both.reindex(keys, fill_value=False).to_numpy(bool), index=rows.index)


def refit_days(days: Sequence[pd.Timestamp], every: int) -> set[pd.Timestamp]:
    """The first of these sorted days, and each that lies `every` days or more after the
    last refit.
    """
    refits = [days[0]]
    for day in days:
        if (day - refits[-1]).days >= every:
            refits.append(day)
    return set(refits)


def by_day(history: pd.DataFrame, target: str) -> pd.DataFrame:
    """Observed values of one target, a row for each day without a gap and a column for each
    pool.
    """
    values = history.pivot(index="date", columns="pool_id", values=target).asfreq("D")
    return values.dropna(axis=1, how="all")


class Competitor:
    """One target and variant: fitted on what was known at one day, asked on that and later days."""

    def __init__(self, variant: str, threads: int) -> None:
        from lightgbm import LGBMRegressor
        from mlforecast import MLForecast
        from mlforecast.lag_transforms import RollingMean
        from mlforecast.target_transforms import Differences

        self.forecaster = MLForecast(
            models={"forecast": LGBMRegressor(**LIGHTGBM, n_jobs=threads)},
            freq="D",
            lags=list(LAGS),
            # with fewer days than the window a young pool still has a mean
            lag_transforms={1: [RollingMean(days, min_samples=1) for days in MEANS]},
            date_features=list(DATE_FEATURES),
            target_transforms=[Differences([1])] if variant == "differences" else None,
            num_threads=threads,
        )

    def fit(self, values: pd.DataFrame, day: pd.Timestamp) -> None:
        # missing lags stay missing: LightGBM learns what they mean, and young pools are forecast
        # too
        rows = self.forecaster.preprocess(known(values, day), static_features=[], dropna=False)
        rows = rows[learnable(rows, values)]
        self.forecaster.fit_models(rows.drop(columns=["unique_id", "ds", "y"]), rows["y"])

    def forecast(
        self, values: pd.DataFrame, day: pd.Timestamp, pools: Sequence[str]
    ) -> pd.Series[float]:
        """The day after `day` of these pools, which were all observed on it."""
        past = known(values, day)
        with warnings.catch_warnings():
            # a young pool has no far lags, and LightGBM has learnt what that means
            warnings.filterwarnings("ignore", message="Found null values")
            found = self.forecaster.predict(1, new_df=past[past["unique_id"].isin(pools)])
        by_pool: pd.Series[float] = found[found["ds"] == day + DAY].set_index("unique_id")[
            "forecast"
        ]
        return by_pool.reindex(list(pools))


def forecasts(
    history: pd.DataFrame,
    asked: pd.DataFrame,
    *,
    refit: int,
    threads: int,
    seconds: dict[str, float],
) -> pd.DataFrame:
    """The asked rows with a column for each of VARIANTS. Args: seconds collects the time of `fit`
    and `predict`.
    """
    parts = []
    for target, rows in asked.groupby("target"):
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
    together: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return together


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = monotonic()
    yield
    seconds[name] += monotonic() - began


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
    began = monotonic()
    seconds: dict[str, float] = defaultdict(float)
    found = forecasts(
        pd.read_parquet(options.history),
        pd.read_parquet(options.asked),
        refit=options.refit,
        threads=options.threads,
        seconds=seconds,
    )
    found[[*KEY, *VARIANTS]].to_parquet(options.out, index=False)
    document = {
        "status": "succeeded",
        "seconds": round(monotonic() - began, 2),
        "stages": {name: round(taken, 2) for name, taken in seconds.items()},
        "rows": {
            "asked": len(found),
            "missing": int(found[list(VARIANTS)].isna().any(axis=1).sum()),
        },
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
