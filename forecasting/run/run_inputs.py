"""The inputs of a forecast run as digests: everything that decides what it publishes.

Reads metrics, `pools`, forecast history, published forecasts and the model registry by SQL, the
settings, and the files of the code. Two runs with equal inputs publish equal forecasts. A digest
sees every changed value, whoever wrote it, except the model files of a registry in a bucket.
Imports neither Spark nor pandas. Days are UTC.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text

from common.horizons import NEXT_DAY
from common.settings.forecast import ForecastSettings
from common.settings.models import ModelSettings
from config_spark import Settings
from database.connections.engine import checked_connection
from database.schema.metrics_table import metrics_name
from database.schema.own_tables import model_outbox
from forecasting.engines.model_parameters import model_parameters
from forecasting.features.source_queries import active_pools_query, market_query, metrics_query
from forecasting.publishing.history_window import PAST_DAYS
from forecasting.registry.registry_state import RegistryState, registry_state
from forecasting.run.as_of_day import first_read_day, training_folds

CODE = Path(__file__).parents[2]
SOURCES = ("common", "database", "forecasting", "spark")
TRANSFER_PANEL = "sample_data/pool_history.parquet"
PACKAGES = ("lightgbm", "numpy", "pandas", "pyarrow", "pyspark")
# the engine and the as-of day are inputs of their own; a backtest's days do not concern a forecast
OTHER_SETTINGS = {"engine", "backtest_days"}
# limits of published values, and what names the tables
SETTINGS_OF_OTHER_SECTIONS = {
    "max_apy_percent",
    "max_tvl_usd",
    "metrics_table",
    "db_schema",
    "db_name",
}

# pools whose ids fall into one bucket share a digest: the ledger keeps 256 digests, not one a pool
BUCKETS = 256

# a sum does not depend on the order of the rows, which PostgreSQL does not promise
_BY_BUCKET = f"""
SELECT (hashtextextended(r.pool_id, 0) & {BUCKETS - 1})::text AS bucket,
    count(*) AS rows,
    sum(hashtextextended(r::text, 0)) AS hash
FROM ({{query}}) AS r
GROUP BY 1
"""
_DIGEST = """
SELECT count(*) || ':' || coalesce(sum(hashtextextended(r::text, 0)), 0)
FROM ({query}) AS r
"""
_HISTORY = """
SELECT *
FROM yieldspark.forecast_evaluation
WHERE engine = :engine
    AND horizon_days = :horizon
    AND target_date > CAST(:as_of AS date) - :days
"""
_FORECASTS = """
SELECT *
FROM yieldspark.forecasts
WHERE target_date = :target
    AND horizon_days = :horizon
"""
_FORECAST_COLUMNS = """
SELECT pool_id, forecasted_apy, forecasted_tvl
FROM {metrics}
WHERE date = :target
    AND (forecasted_apy IS NOT NULL OR forecasted_tvl IS NOT NULL)
"""


@dataclass(frozen=True)
class MetricsDigest:
    """The metrics rows of some days.

    Attributes:
        rows: number of pool-days.
        buckets: 16 hexadecimal digits of all values of the pools of a bucket, by bucket. The order
            of the rows does not change them.
    """

    rows: int
    buckets: Mapping[str, str]

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of all values."""
        return _hexadecimal(sum(int(digest, 16) for digest in self.buckets.values()))


def metrics_digest(connection: Connection, first_day: dt.date, as_of: dt.date) -> MetricsDigest:
    """Digests the metrics of `[first_day, as_of]` that a run reads, in the caller's transaction."""
    query = metrics_query(metrics_name(connection), first_day, as_of)
    rows = connection.execute(text(_BY_BUCKET.format(query=query))).all()
    return MetricsDigest(
        sum(row.rows for row in rows), {row.bucket: _hexadecimal(int(row.hash)) for row in rows}
    )


def _hexadecimal(number: int) -> str:
    # PostgreSQL sums signed hashes; 64 bits of the sum identify the values
    return f"{number % 2**64:016x}"


def other_digest(
    connection: Connection, settings: Settings, first_day: dt.date, as_of: dt.date
) -> dict[str, str]:
    """Digests the other rows that a run reads: `pools` (active pools with their last values) and,
    if prices are features, `market`.
    """
    metrics = metrics_name(connection)
    digests = {"pools": _digest(connection, active_pools_query(metrics), {"as_of": as_of})}
    if settings.market_features:
        digests["market"] = _digest(connection, market_query(metrics, first_day, as_of), {})
    return digests


def published_digest(
    connection: Connection, settings: Settings, as_of: dt.date, engine: str
) -> dict[str, str]:
    """Digests what the runs of an engine have written: `history` and `forecasts`, of all HORIZONS.

    Args:
        as_of: as-of day of the run; `forecasts` are those of its target days.
        engine: name of the forecasting engine, for the history.
    """
    columns = _FORECAST_COLUMNS.format(metrics=metrics_name(connection))
    forecasts = []
    for horizon in settings.horizons:
        target = {"target": as_of + dt.timedelta(days=horizon)}
        forecasts.append(_digest(connection, _FORECASTS, target | {"horizon": horizon}))
        # only forecasts of the next day are published there too
        if horizon == NEXT_DAY:
            forecasts.append(_digest(connection, columns, target))
    return {
        "history": history_digest(connection, settings, as_of, engine),
        "forecasts": " ".join(forecasts),
    }


def history_digest(connection: Connection, settings: Settings, as_of: dt.date, engine: str) -> str:
    """Digests the forecast history of an engine that a run at `as_of` reads, of all HORIZONS."""
    spans = (
        {"engine": engine, "horizon": horizon, "as_of": as_of, "days": PAST_DAYS}
        for horizon in settings.horizons
    )
    return " ".join(_digest(connection, _HISTORY, span) for span in spans)


def _digest(connection: Connection, query: str, parameters: Mapping[str, Any]) -> str:
    return str(connection.execute(text(_DIGEST.format(query=query)), parameters).scalar_one())


def pending_versions(connection: Connection, *, engine: str, horizons: Sequence[int]) -> int:
    """Returns the number of versions and decisions that wait for the registry."""
    waiting = (
        select(func.count())
        .select_from(model_outbox)
        .where(model_outbox.c.engine == engine, model_outbox.c.horizon_days.in_(horizons))
    )
    return int(connection.execute(waiting).scalar_one())


def result_settings(settings: Settings) -> dict[str, Any]:
    """Returns the settings that a forecast depends on, as plain JSON values by name.

    All settings of the sections on forecasts and models are among them: a new one makes a run, not
    a wrong `nothing_to_do`. Those of other sections are SETTINGS_OF_OTHER_SECTIONS.
    """
    names = {*ForecastSettings.model_fields, *ModelSettings.model_fields} - OTHER_SETTINGS
    values = settings.model_dump(mode="json", include=names | SETTINGS_OF_OTHER_SECTIONS)
    # the file's content counts, not only its path
    return values | {"model_parameters": asdict(model_parameters(settings))}


def code_versions(settings: Settings) -> dict[str, str]:
    """Returns the versions that a forecast depends on, by name."""
    return {
        "code": settings.code_version,
        "sources": sources_digest(),
        "python": platform.python_version(),
        **{name: _package_version(name) for name in PACKAGES},
    }


@cache
def _package_version(name: str) -> str:
    """The installed version; empty for a package that the platform brings without metadata."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@cache
def sources_digest() -> str:
    """Returns a hash of the source files of a checkout, whose code changes under one version, and
    of the transfer panel; the same one in the whole life of a process.

    Empty in a release: its zip is no folder, and its version is its commit.
    """
    digest = hashlib.sha256()
    for name in SOURCES:
        for file in sorted((CODE / name).rglob("*.py")):
            digest.update(f"{file.relative_to(CODE)}\n".encode())
            digest.update(file.read_bytes())
    for panel in CODE.glob(TRANSFER_PANEL):
        digest.update(panel.read_bytes())
    return digest.hexdigest()[:16] if CODE.is_dir() else ""


@dataclass(frozen=True)
class RunInputs:
    """The inputs of one run, as the run ledger stores them.

    Attributes:
        as_of: as-of day.
        engine: name of the forecasting engine.
        settings: `result_settings`.
        code: `code_versions`.
        metrics: buckets of `MetricsDigest`, of the horizon that reads the most days.
        tables: `other_digest` before and `published_digest` after the run's commit.
        registry: `RegistryState` as JSON, by horizon.
        refit_is_due: the next run of the same as-of day fits a version of a horizon.
    """

    as_of: str
    engine: str
    settings: Mapping[str, Any]
    code: Mapping[str, str]
    metrics: Mapping[str, str]
    tables: Mapping[str, str]
    registry: Mapping[str, Mapping[str, Any]]
    refit_is_due: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self)


def read_inputs(
    settings: Settings, database: Engine, *, as_of: dt.date, engine: str
) -> RunInputs | None:
    """Reads the inputs of a run; None if the model registry does not answer.

    Args:
        as_of: as-of day of the run.
        engine: name of the forecasting engine.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    first_day = first_day_of_inputs(settings, as_of)
    # one snapshot: a commit between two digests must not be in one of them only
    with checked_connection(
        database.execution_options(isolation_level="REPEATABLE READ")
    ) as connection:
        metrics = metrics_digest(connection, first_day, as_of)
        tables = other_digest(connection, settings, first_day, as_of) | published_digest(
            connection, settings, as_of, engine
        )
    registry = read_registry(settings, engine)
    if registry is None:
        return None
    return RunInputs(
        as_of=as_of.isoformat(),
        engine=engine,
        settings=result_settings(settings),
        code=code_versions(settings),
        metrics=metrics.buckets,
        tables=tables,
        registry={str(horizon): state.to_json() for horizon, state in registry.items()},
    )


def first_day_of_inputs(settings: Settings, as_of: dt.date) -> dt.date:
    """Returns the first day of metrics that a run at `as_of` reads for any of HORIZONS."""
    return min(
        first_read_day(training_folds(settings, as_of, horizon)) for horizon in settings.horizons
    )


def read_registry(settings: Settings, engine: str) -> dict[int, RegistryState] | None:
    """Returns the state of the registry by horizon; None if it does not answer.

    Args:
        engine: name of the forecasting engine.
    """
    states: dict[int, RegistryState] = {}
    for horizon in settings.horizons:
        state = registry_state(settings, engine=engine, horizon=horizon)
        if state is None:
            return None
        states[horizon] = state
    return states
