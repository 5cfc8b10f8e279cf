"""The demo: from a fresh clone to a forecast report of real pools.

Every step can be repeated, so a new run continues an interrupted demo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cli.context import JobContext
from cli.terminal import out, print_table, row_counts, say, step
from common.errors import ConfigurationError
from common.quantities import count
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.ingest.loading.load_files import load_files
from forecasting.forecast_pools_spark import run_forecast
from reporting.figures.forecasts import forecast_table
from reporting.report.formatting import percent, points, share, usd
from reporting.report.report import write_report
from sample_data import SAMPLE_FILES

SHOWN_POOLS = 8

TRY_NEXT = """
Try next:
  python run_spark_local.py status                   # the last runs, and the data
  python run_spark_local.py evaluate                 # past forecasts against actual values
  python run_spark_local.py calculate_metrics --full-refresh --dry-run   # a plan; changes nothing
  python run_spark_local.py db psql -c "select * from yieldspark.forecasts limit 5"
"""


def run_demo(context: JobContext) -> dict[str, Any]:
    """Load the sample, run both jobs and write the report. Progress goes to standard error.

    Returns:
        `loaded`: files and rows; `metrics` and `forecast`: ledger rows; `forecasts`: forecasts of
        the largest pools; `report`: path of the report.

    Raises:
        ConfigurationError: DB_HOST is set. The sample must not get into your own database.
    """
    if context.base_settings.db_host:
        raise ConfigurationError(
            "the demo loads its sample into a database of its own, and DB_HOST is set"
            f" ({context.base_settings.db_host}): unset it for the demo, or run calculate_metrics"
            " and forecast_pools on your data"
        )
    with step("1/5 database: start the embedded PostgreSQL"):
        # the first use starts the embedded server
        settings = context.settings
    with step("2/5 jars and sample: fetch missing jars of Spark, load 72 pools"):
        # the first run of a machine without SynapseML's jars still ends with forecasts
        forecast_settings = context.settings_with_available_engine()
        loaded = load_files(settings, SAMPLE_FILES, kind=None, symbol=None, progress=say)
    with step("3/5 calculate_metrics: rolling metrics of every pool and day"):
        # both jobs share one JVM
        metrics = run_metrics(settings, session=context.session, prefers_spark=True)
        say(f"rows: {row_counts(metrics['rows'])}")
    with step("4/5 forecast_pools: tomorrow's APY and TVL of every pool"):
        forecast = run_forecast(
            forecast_settings, session=context.forecast_session, prefers_spark=True
        )
        say(f"rows: {row_counts(forecast['rows'])}")
    with step("5/5 report: one HTML page"):
        report = write_report(context.engine, settings.report_dir)
    return {
        "loaded": loaded,
        "metrics": metrics,
        "forecast": forecast,
        "forecasts": [asdict(row) for row in forecast_table(context.engine)[:SHOWN_POOLS]],
        "report": report,
    }


def print_demo(summary: Mapping[str, Any]) -> None:
    """Print the forecasts of the largest pools, the report's path, and commands to try next."""
    pools = summary["forecasts"]
    if pools:
        level = share(pools[0]["interval_level"])
        columns = ["pool", "protocol", "APY now", "forecast", f"{level} interval", "TVL", "by"]
        title = (
            f"Forecasts for {pools[0]['target_date']}, from data up to {pools[0]['as_of']}, of the"
            f" {count(len(pools), 'largest pool')}"
        )
        print_table(columns, [_forecast_cells(pool) for pool in pools], title=title)
    out.print(f"\nThe report: {summary['report']}", soft_wrap=True)
    out.print(TRY_NEXT, markup=False, soft_wrap=True)


def _forecast_cells(pool: Mapping[str, Any]) -> list[object]:
    # a pool without enough past forecasts has no interval
    has_interval = pool["apy_low"] is not None and pool["apy_high"] is not None
    reason = pool["apy_fallback_reason"]
    return [
        pool["symbol"] or pool["pool_id"],
        pool["protocol"],
        percent(pool["apy_today"]),
        percent(pool["apy"]),
        f"{points(pool['apy_low'])} to {points(pool['apy_high'])}" if has_interval else None,
        usd(pool["tvl"]),
        f"fallback ({reason})" if reason else "model",
    ]
