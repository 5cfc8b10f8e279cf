"""A small database as the jobs leave it: pools with metrics, forecasts and their evaluation.

Values are generated from a seed.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from sqlalchemy import Engine, insert, text

from database.schema.own_tables import (
    forecast_evaluation,
    forecasts,
    pool_coverage,
    run_ledger,
    value_staleness,
)
from database.schema.owner_tables import pool_daily_metrics, pools
from tests.support.hostile_values import MARKUP

AS_OF = dt.date(2025, 10, 5)
TOMORROW = dt.date(2025, 10, 6)
DAYS = 100
SCORED_DAYS = 30
UNSAFE = MARKUP[0]
"""A pool's name that is a script in HTML and in mathematics of TeX."""

EXPLANATION = [
    {"feature": "apy_mean_gap_7", "points": -0.125},
    {"feature": "group_up_share", "points": 0.05},
]

EMPTY_STATUS = {
    "jobs": {},
    "data": {
        "pools": 0,
        "pool_days": 0,
        "first_day": None,
        "last_day": None,
        "forecasts_next_day": 0,
        "raw_age_seconds": None,
        "quarantine_open": 0,
    },
}
"""The payload of `status` for an empty database."""


def fill(engine: Engine, *, pool_count: int = 8, names: dict[int, str] | None = None) -> None:
    """Add pools p0, p1, ..; a higher number has a larger TVL. p0 has a carried value on the last
    day and a fallback as its forecast.
    """
    rows: dict[Any, list[dict[str, Any]]] = {
        table: []
        for table in (
            pools,
            pool_coverage,
            pool_daily_metrics,
            value_staleness,
            forecasts,
            forecast_evaluation,
            run_ledger,
        )
    }
    for number in range(pool_count):
        _add_pool(rows, number, (names or {}).get(number, f"USDC-T{number}"))
    rows[run_ledger].append(ledger_row("forecast_pools_1", "forecast_pools", "succeeded"))
    with engine.begin() as connection:
        for table, values in rows.items():
            if values:
                connection.execute(insert(table), values)


def ledger_row(run_id: str, job: str, status: str, **more: Any) -> dict[str, Any]:
    row = {
        "run_id": run_id,
        "job": job,
        "status": status,
        "mode": "incremental",
        "as_of": AS_OF,
        "engine": "lightgbm",
        "code_version": "test",
    }
    counts = {
        "read": 9,
        "quarantined": 1,
        "inserted": 5,
        "updated": 2,
        "unchanged": 1,
        "removed": 0,
    }
    return row | {"rows": counts, "stages": {"plan": 0.1}, "checks": [], "seconds": 1.5} | more


def decision(decision: str = "promoted", **more: Any) -> dict[str, Any]:
    """A row of `yieldspark.promotion`."""
    who = {"decided_by": "me@here", "engine": "lightgbm", "horizon_days": 1, "as_of": AS_OF}
    versions = {
        "challenger": "20250821-1a2b3c4d",
        "champion": None,
        "serving_version": "20250821-1a2b3c4d",
    }
    return (
        {"decision": decision, "reason": "0.90 of persistence", "numbers": {}}
        | who
        | versions
        | more
    )


def drift(
    *, passed: bool = False, features: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Checks of a forecast run's ledger row."""
    check = {"level": "batch", "severity": "warn"}
    drifted = features or [{"feature": "apy_std_30", "psi": 0.41, "ks": 0.3}]
    return [
        check
        | {
            "name": "feature_drift",
            "passed": passed,
            "found": "1 feature drifted",
            "features": drifted,
        },
        check
        | {
            "name": "fallback_share",
            "passed": True,
            "found": "1 of 8 APY forecasts are fallbacks",
            "share": 0.125,
        },
        check | {"name": "staged_rows", "passed": True, "found": "8 in staging"},
    ]


def _add_pool(rows: dict[Any, list[dict[str, Any]]], number: int, symbol: str) -> None:
    rng = random.Random(number)
    pool_id, tvl = f"p{number}", 100_000.0 * 4**number
    apy = [max(0.1, 4.0 + number + rng.gauss(0, 0.6)) for _ in range(DAYS)]
    first = AS_OF - dt.timedelta(days=DAYS - 1)
    rows[pools].append(
        {
            "pool_id": pool_id,
            "name": symbol,
            "symbol": symbol,
            "protocol": "curve-dex",
            "chain": "Ethereum",
            "is_active": True,
        }
    )
    rows[pool_coverage].append(
        {
            "pool_id": pool_id,
            "first_day": first,
            "last_day": AS_OF,
            "last_observed_day": AS_OF - dt.timedelta(days=number == 0),
        }
    )
    for offset, value in enumerate(apy):
        day = first + dt.timedelta(days=offset)
        carried = number == 0 and day == AS_OF
        rows[pool_daily_metrics].append(
            {"pool_id": pool_id, "date": day, "actual_apy": value, "actual_tvl": tvl}
        )
        if carried:
            rows[value_staleness].append(
                {"pool_id": pool_id, "date": day, "apy_staleness_days": 1, "tvl_staleness_days": 1}
            )
        if offset >= DAYS - SCORED_DAYS:
            rows[forecast_evaluation] += _evaluated(
                pool_id, day, {"apy": (value, apy[offset - 1]), "tvl": (tvl, tvl * 1.01)}, rng
            )
    rows[forecasts].append(_forecast(pool_id, apy[-1], tvl, rule="stale" if number == 0 else None))


def _evaluated(
    pool_id: str, day: dt.date, values: dict[str, tuple[float, float]], rng: random.Random
) -> list[dict[str, Any]]:
    return [
        {
            "pool_id": pool_id,
            "target_date": day,
            "horizon_days": 1,
            "target": target,
            "engine": "lightgbm",
            "as_of": day - dt.timedelta(days=1),
            "actual": actual,
            "forecast": (forecast := actual * (1 + rng.gauss(0, 0.1))),
            "low": forecast * 0.9,
            "high": forecast * 1.1,
            "persistence": before,
            "median_7d": before * 1.02,
            "tvl_usd": values["tvl"][1],
            "apy_percent": values["apy"][1],
            "volatility_scale": 0.5 if target == "apy" else 0.02,
            "model_change": 0.1,
            "interval_level": 0.8,
            "model_version": "m1",
            "run_id": "forecast_pools_1",
        }
        for target, (actual, before) in values.items()
    ]


def _forecast(pool_id: str, apy: float, tvl: float, *, rule: str | None) -> dict[str, Any]:
    return {
        "pool_id": pool_id,
        "target_date": TOMORROW,
        "horizon_days": 1,
        "as_of": AS_OF,
        "apy": apy * 1.01,
        "apy_low": apy * 0.9,
        "apy_high": apy * 1.1,
        "tvl": tvl * 1.01,
        "tvl_low": tvl * 0.95,
        "tvl_high": tvl * 1.05,
        "interval_level": 0.8,
        "engine": "lightgbm",
        "model_version": "apy-m1.tvl-m1",
        "apy_fallback_reason": rule,
        "explanation": None if rule else EXPLANATION,
        "run_id": "forecast_pools_1",
    }


def add_horizon(engine: Engine, horizon: int) -> None:
    """Copies the forecasts of the next day and their history to another horizon; its models are
    `far`.
    """
    copies = (
        (forecasts, "as_of + :horizon", "as_of"),
        (forecast_evaluation, "target_date", "target_date - :horizon"),
    )
    with engine.begin() as connection:
        for table, target_date, as_of in copies:
            changed = {
                "horizon_days": ":horizon",
                "target_date": target_date,
                "as_of": as_of,
                "model_version": "'far'",
            }
            names = [column.name for column in table.columns]
            values = ", ".join(changed.get(name, name) for name in names)
            statement = f"""
                INSERT INTO yieldspark.{table.name} ({", ".join(names)})
                SELECT {values}
                FROM yieldspark.{table.name}
                WHERE horizon_days = 1
            """
            connection.execute(text(statement), {"horizon": horizon})
