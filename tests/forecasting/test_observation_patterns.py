"""Pools that are observed in other ways than once a day, from raw history through both jobs: each
gets a forecast, or a reason that docs/forecasts.md explains.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from sqlalchemy import Engine, text

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from forecasting.forecast_pools_spark import run_forecast
from tests.support.forecast_panels import SHORT
from tests.support.metrics_store import rows_of, without_jvm
from tests.support.processes import PROJECT

FRIDAY = dt.date(2024, 6, 28)
SUNDAY = FRIDAY + dt.timedelta(days=2)
DAYS = 230
"""Days up to FRIDAY. The jobs read 225 of them with the settings of SHORT."""
ORDINARY_POOLS = 12
"""The gate needs ten pools in the forecast history, the model 300 rows."""

Snapshot = tuple[float | None, float | None]
"""APY in percent and TVL in USD, None for a null."""
Pattern = Callable[[int], list[Snapshot]]
"""The snapshots of the day that is so many days before FRIDAY; negative after it."""

BY_MODEL = frozenset({"model", "gate"})
"""The model had its say: its forecast, or the gate's choice of persistence."""
COLD, STALE, NO_VALUE = (frozenset({name}) for name in ("cold_start", "stale", "no_value"))


def apy_of(ago: int) -> float:
    """Return values that revert to 6 percent, so that a model beats persistence."""
    return 6.0 + float(np.random.default_rng(ago + 10).standard_normal())


def tvl_of(ago: int) -> float:
    return 1e6 * float(np.exp(0.1 * np.sin(ago / 9.0)))


def usual(ago: int) -> list[Snapshot]:
    return [(apy_of(ago), tvl_of(ago))]


def on_days(is_observed: Callable[[int], bool]) -> Pattern:
    return lambda ago: usual(ago) if is_observed(ago) else []


def is_weekday(ago: int) -> bool:
    return (FRIDAY - dt.timedelta(days=ago)).weekday() < 5


# pattern, reasons of APY and of TVL on FRIDAY, when every regular pool is observed
PATTERNS: dict[str, tuple[Pattern, frozenset[str], frozenset[str]]] = {
    "every day": (usual, BY_MODEL, BY_MODEL),
    "weekdays": (on_days(is_weekday), BY_MODEL, BY_MODEL),
    "every 2nd day": (on_days(lambda ago: ago % 2 == 0), BY_MODEL, BY_MODEL),
    "every 3rd day": (on_days(lambda ago: ago % 3 == 0), BY_MODEL, BY_MODEL),
    "every 7th day": (on_days(lambda ago: ago % 7 == 0), BY_MODEL, BY_MODEL),
    "every 30th day": (on_days(lambda ago: ago % 30 == 0), BY_MODEL, BY_MODEL),
    "daily, then every 7th day": (
        on_days(lambda ago: ago > 120 or ago % 7 == 0),
        BY_MODEL,
        BY_MODEL,
    ),
    "bursts": (on_days(lambda ago: ago % 25 < 5), BY_MODEL, BY_MODEL),
    "bursts of one day": (on_days(lambda ago: ago in (0, 1, 90, 91, 180)), BY_MODEL, BY_MODEL),
    "one long gap": (on_days(lambda ago: not 40 <= ago < 160), BY_MODEL, BY_MODEL),
    "back today": (on_days(lambda ago: ago <= 0 or ago > 100), BY_MODEL, BY_MODEL),
    "constant APY": (lambda ago: [(5.0, tvl_of(ago))], BY_MODEL, BY_MODEL),
    "constant, every 2nd day": (
        lambda ago: [(5.0, 1e6)] if ago % 2 == 0 else [],
        BY_MODEL,
        BY_MODEL,
    ),
    "zero TVL": (lambda ago: [(apy_of(ago), 0.0)], BY_MODEL, BY_MODEL),
    "zero APY and TVL": (lambda _: [(0.0, 0.0)], BY_MODEL, BY_MODEL),
    "negative APY": (lambda ago: [(-apy_of(ago), tvl_of(ago))], BY_MODEL, BY_MODEL),
    "null APY": (lambda ago: [(None, tvl_of(ago))], NO_VALUE, BY_MODEL),
    "null TVL": (lambda ago: [(apy_of(ago), None)], BY_MODEL, NO_VALUE),
    "APY and TVL in turn": (
        lambda ago: [(apy_of(ago), None) if ago % 2 == 0 else (None, tvl_of(ago))],
        BY_MODEL,
        STALE,
    ),
    "null APY lately": (
        lambda ago: [(apy_of(ago) if ago > 20 else None, tvl_of(ago))],
        STALE,
        BY_MODEL,
    ),
    "one day, today": (on_days(lambda ago: ago == 0), COLD, COLD),
    "one day, long ago": (on_days(lambda ago: ago == 100), STALE, STALE),
    "three days": (on_days(lambda ago: 0 <= ago < 3), COLD, COLD),
    "duplicates": (lambda ago: usual(ago) * 3, BY_MODEL, BY_MODEL),
    "twenty snapshots a day": (
        lambda ago: [(apy_of(ago) + n, tvl_of(ago)) for n in range(19, -1, -1)],
        BY_MODEL,
        BY_MODEL,
    ),
}


def ordinary(seed: int) -> Pattern:
    random = np.random.default_rng(seed)
    mean, spread = random.uniform(2.0, 30.0), random.uniform(0.1, 2.0)
    noise = random.standard_normal(DAYS + 2)
    return lambda ago: [(max(mean + spread * noise[ago], 0.0), tvl_of(ago + seed))]


def raw_rows(pool: str, pattern: Pattern) -> list[dict[str, Any]]:
    """Snapshots of one day that are equal have one moment, others are an hour apart."""
    rows = []
    for ago in range(DAYS - 1, (FRIDAY - SUNDAY).days - 1, -1):
        day = dt.datetime.combine(FRIDAY - dt.timedelta(days=ago), dt.time(1), dt.UTC)
        snapshots = pattern(ago)
        step = dt.timedelta(hours=1 if len(set(snapshots)) > 1 else 0)
        rows += [
            {
                "pool": pool,
                "timestamp": day + number * step,
                "document": json.dumps({"apy": apy, "tvlUsd": tvl}),
            }
            for number, (apy, tvl) in enumerate(snapshots)
        ]
    return rows


def put_history(engine: Engine) -> None:
    rows = []
    for name, (pattern, _, _) in PATTERNS.items():
        rows += raw_rows(name, pattern)
    for seed in range(ORDINARY_POOLS):
        rows += raw_rows(f"ordinary {seed}", ordinary(seed))
    insert = """
        INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
        VALUES (:pool, :timestamp, :document)
    """
    with engine.begin() as connection:
        connection.execute(text(insert), rows)


def reasons_of_the_documentation() -> set[str]:
    """The first column of the table of fallbacks."""
    page = (PROJECT / "docs" / "forecasts.md").read_text(encoding="utf-8")
    section = page.partition("## Fallbacks")[2].partition("## ")[0]
    return set(re.findall(r"(?m)^\| `(\w+)` \|", section))


def forecasts_of(engine: Engine, as_of: dt.date) -> Any:
    """One row a pool; null reasons are `model`, as the documentation counts them."""
    query = """
        SELECT pool_id, apy::float8, apy_low::float8, apy_high::float8, tvl::float8,
            tvl_low::float8, tvl_high::float8, coalesce(apy_fallback_reason, 'model') AS apy_reason,
            coalesce(tvl_fallback_reason, 'model') AS tvl_reason
        FROM yieldspark.forecasts WHERE as_of = :as_of
    """
    return pd.DataFrame(rows_of(engine, query, as_of=as_of)).set_index("pool_id")


def assert_each_has_a_value_or_a_reason(forecasts: Any) -> None:
    """A forecast is a finite number inside its interval, or null with the reason `no_value`."""
    assert set(forecasts.index) >= set(PATTERNS)
    assert {*forecasts["apy_reason"], *forecasts["tvl_reason"]} <= {
        "model"
    } | reasons_of_the_documentation()
    for target, reason in (("apy", "apy_reason"), ("tvl", "tvl_reason")):
        numbers = forecasts[[f"{target}_low", target, f"{target}_high"]].astype(float)
        is_absent = forecasts[reason] == "no_value"
        assert numbers[is_absent].isna().all(axis=None), target
        values = numbers[~is_absent].to_numpy()
        assert np.isfinite(values).all(), numbers[~is_absent]
        assert (np.diff(values, axis=1) >= 0.0).all(), numbers[~is_absent]


def test_each_pattern_of_observations_has_a_forecast_or_a_reason(
    database: Settings, engine: Engine, spark: SparkSession
) -> None:
    """A regular pool is forecast by the model on each day on which it is observed, and `stale` on
    the others. Over 20 s: a whole metrics job, and two forecast jobs of which one fits the models.
    """
    put_history(engine)
    settings = database.model_copy(update=SHORT | {"refit_days": 30})
    noon_after = dt.datetime.combine(SUNDAY + dt.timedelta(days=1), dt.time(12), dt.UTC)
    run_metrics(without_jvm(settings), Request(), now=noon_after)
    reasons = {}
    for as_of in (FRIDAY, SUNDAY):
        row = run_forecast(settings, as_of=as_of, engine="lightgbm", session=lambda: spark)
        assert row["status"] == "succeeded"
        forecasts = forecasts_of(engine, as_of)
        assert_each_has_a_value_or_a_reason(forecasts)
        reasons[as_of] = forecasts[["apy_reason", "tvl_reason"]].apply(tuple, axis=1).to_dict()
        assert (forecasts["tvl_low"].dropna() >= 0.0).all()

    unexpected = {
        name: reasons[FRIDAY][name]
        for name, (_, apy, tvl) in PATTERNS.items()
        if reasons[FRIDAY][name][0] not in apy or reasons[FRIDAY][name][1] not in tvl
    }
    assert unexpected == {}
    on_sunday = {name: reasons[SUNDAY][name] for name in ("weekdays", "every 7th day")}
    assert on_sunday == dict.fromkeys(on_sunday, ("stale", "stale"))
    assert {*reasons[SUNDAY]["every 2nd day"]} <= BY_MODEL
    forecasts = forecasts_of(engine, FRIDAY)
    assert (forecasts["apy_reason"] == "model").sum() > ORDINARY_POOLS / 2
    for name in ("duplicates", "twenty snapshots a day"):
        pd.testing.assert_series_equal(
            forecasts.loc[name], forecasts.loc["every day"], check_names=False
        )
    assert forecasts.loc["negative APY", "apy"] < 0.0
    assert (
        forecasts.loc["zero APY and TVL", ["apy", "tvl", "apy_low", "tvl_low"]].abs().max() < 0.01
    )
