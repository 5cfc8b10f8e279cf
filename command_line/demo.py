"""The demo: from a fresh clone to a forecast report of real pools. Every step can be repeated, so an interrupted demo goes on with the next run."""

from __future__ import annotations

from typing import Any

from command_line.terminal import err, out, print_table, say, step
from command_line.workplace import Workplace
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.ingest.load_files import load_files
from forecasting.forecast_pools_spark import run_forecast
from reporting.figures import forecast_table
from reporting.report import write_report
from sample_data.make_sample import SAMPLE_FILES

SHOWN_POOLS = 8

TRY_NEXT = """
try next:
  python run_spark_local.py status
  python run_spark_local.py calculate_metrics --full-refresh --dry-run
  python run_spark_local.py db psql -c "select * from yieldspark.forecasts limit 5"
"""


def run_demo(place: Workplace) -> dict[str, Any]:
    """Returns {loaded, metrics: ledger row, forecast: ledger row, report: path}; progress goes to stderr."""
    with step("1/5 jars"):
        settings = place.with_an_engine_that_runs()
    with step("2/5 database and sample"):
        loaded = load_files(place.settings, SAMPLE_FILES, kind=None, symbol=None, progress=say)
    with step("3/5 calculate_metrics"):
        metrics = run_metrics(place.settings, session=place.session)
    with step("4/5 forecast_pools"):
        forecast = run_forecast(settings, session=place.session)
    with step("5/5 report"):
        report = write_report(place.engine, place.settings.report_dir)
    return {"loaded": loaded, "metrics": metrics, "forecast": forecast, "report": report}
