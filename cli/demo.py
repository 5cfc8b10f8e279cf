"""The demo: from a fresh clone to a forecast report of real pools.

Every step can be repeated, so a new run continues an interrupted demo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.context import JobContext
from cli.terminal import out, print_records, say, step
from common.errors import ConfigurationError
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.ingest.loading.load_files import load_files
from forecasting.forecast_pools_spark import run_forecast
from reporting.figures.forecasts import forecast_table
from reporting.report.report import write_report
from sample_data import SAMPLE_FILES

SHOWN_POOLS = 8

TRY_NEXT = """
Try next:
  python run_spark_local.py status
  python run_spark_local.py calculate_metrics --full-refresh --dry-run
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
    with step("1/5 database"):
        settings = context.settings
    with step("2/5 jars and sample"):
        forecast_settings = context.settings_with_available_engine()
        loaded = load_files(settings, SAMPLE_FILES, kind=None, symbol=None, progress=say)
    with step("3/5 calculate_metrics"):
        # both jobs share one JVM
        metrics = run_metrics(settings, session=context.session, prefers_spark=True)
    with step("4/5 forecast_pools"):
        forecast = run_forecast(forecast_settings, session=context.session)
    with step("5/5 report"):
        report = write_report(context.engine, settings.report_dir)
    return {
        "loaded": loaded,
        "metrics": metrics,
        "forecast": forecast,
        "forecasts": forecast_table(context.engine)[:SHOWN_POOLS],
        "report": report,
    }


def print_demo(summary: Mapping[str, Any]) -> None:
    """Print the forecasts of the largest pools, the report's path, and commands to try next."""
    columns = {
        "pool": "symbol",
        "protocol": "protocol",
        "APY %": "apy_today",
        "tomorrow %": "apy",
        "low": "apy_low",
        "high": "apy_high",
        "TVL $": "tvl",
        "fallback": "apy_fallback_reason",
    }
    pools = summary["forecasts"]
    as_of = summary["forecast"]["as_of"]
    title = f"As of {as_of}: the {len(pools)} largest pools, tomorrow"
    print_records(columns, pools, title=title)
    out.print(f"\nThe report: {summary['report']}", soft_wrap=True)
    out.print(TRY_NEXT, markup=False, soft_wrap=True)
