"""Commands to run, load data and inspect the result.

Each command parses its options, calls one function of a layer below, and prints the result; with
`--json` as one document.
"""

# Layers are imported inside the commands: `--help` and `status` must not wait for Spark and
# LightGBM.
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import DATA, MACHINE, RUN, app
from cli.context import JobContext
from cli.job_commands import job_command
from cli.options import (
    AsJson,
    Decimal,
    FileKind,
    Since,
    day,
    run_in_context,
)
from cli.terminal import (
    Lines,
    out,
    print_json,
    print_pairs,
    print_records,
    print_table,
    row_counts,
    say,
)
from common.errors import ConfigurationError
from common.jobs import JOBS
from common.quantities import duration

if TYPE_CHECKING:
    from cli.doctor.check import DoctorResult


@app.command(rich_help_panel=RUN)
def demo(as_json: AsJson = False) -> None:
    """Load the sample, run both jobs and write the report; a second run continues from the first.

    Example: python run_spark_local.py demo
    """
    from cli.demo import print_demo, run_demo

    summary = run_in_context(run_demo)
    print_json(summary) if as_json else print_demo(summary)


for _job in JOBS:
    app.command(_job.name, rich_help_panel=RUN)(job_command(_job))


@app.command(rich_help_panel=DATA)
def load(
    paths: Annotated[list[Path], typer.Argument(help="Parquet or CSV files.", show_default=False)],
    kind: Annotated[
        FileKind | None,
        typer.Option(help="Content of the files; default: detected from their columns."),
    ] = None,
    symbol: Annotated[
        str | None,
        typer.Option(help="Symbol for a price file without a symbol column, such as ETH."),
    ] = None,
    decimal: Decimal = None,
    as_json: AsJson = False,
) -> None:
    """Load pool history, prices, gas or pools from Parquet and CSV files; duplicates are skipped.

    Example: python run_spark_local.py load history.parquet ETHUSDT_1d.csv --json
    """
    from data_processing.ingest.loading.load_files import load_files

    summary = run_in_context(
        lambda context: load_files(
            context.settings,
            paths,
            kind=kind.value if kind else None,
            symbol=symbol,
            decimal=decimal,
            progress=say,
        )
    )
    if as_json:
        print_json(summary)
        return
    keys = [key for key in summary["files"][0] if key != "symbols_unread"]
    headings = {key.removeprefix("rows_").replace("_", " "): key for key in keys}
    files = [
        entry | {"path": Path(entry["path"]).name, "seconds": duration(entry["seconds"])}
        for entry in summary["files"]
    ]
    print_records(headings, files)


@app.command(rich_help_panel=DATA)
def ingest(
    pools: Annotated[Path | None, typer.Option(help="File with one pool id per line.")] = None,
    min_tvl: Annotated[
        float | None, typer.Option(help="Only pools with at least this TVL; USD.")
    ] = None,
    stablecoins: Annotated[
        bool, typer.Option("--stablecoins", help="Only stablecoin pools.")
    ] = False,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Fetch pools, their history and prices from DefiLlama; an interrupted run resumes.

    Example: python run_spark_local.py ingest --min-tvl 10000000 --stablecoins --since 2025-01-01
    """
    if pools and (min_tvl is not None or stablecoins):
        raise ConfigurationError(
            "--pools lists the pools, and --min-tvl and --stablecoins select them: give one or the"
            " other"
        )
    if not pools and min_tvl is None and not stablecoins:
        raise ConfigurationError(
            "no pools are selected: give --pools FILE, or --min-tvl USD and/or --stablecoins"
        )

    from data_processing.ingest.defillama import pull as defillama

    pool_ids = defillama.read_pool_file(pools) if pools else None

    def work(context: JobContext) -> dict[str, Any]:
        return defillama.ingest(
            context.settings,
            pool_ids=pool_ids,
            min_tvl_usd=min_tvl,
            stablecoins=stablecoins,
            since=day(since),
            progress=say,
        )

    summary = run_in_context(work)
    print_json(summary) if as_json else print_pairs(summary)
    if summary["failed"]:
        raise typer.Exit(1)


@app.command(rich_help_panel=RUN)
def status(as_json: AsJson = False) -> None:
    """Show the last run of each job and the data in the database.

    Example: python run_spark_local.py status --json
    """
    from reporting.figures.forecasts import status as read_status

    payload = run_in_context(lambda context: read_status(context.engine), changes=False)
    if as_json:
        print_json(payload)
        return
    print_table(
        ["job", "status", "mode", "as of", "rows", "duration", "error"],
        [_job_cells(name, row) for name, row in payload["jobs"].items()],
    )
    out.print()
    print_pairs(payload["data"])


def _job_cells(name: str, row: dict[str, Any]) -> list[object]:
    seconds = row["seconds"]
    return [
        name,
        row["status"],
        row["mode"],
        row["as_of"],
        row_counts(row["rows"]),
        duration(seconds) if seconds is not None else None,
        row["error"],
    ]


@app.command(rich_help_panel=RUN)
def report(as_json: AsJson = False) -> None:
    """Write the report as one self-contained HTML file.

    Example: python run_spark_local.py report
    """
    from reporting.report.report import write_report

    path = run_in_context(
        lambda context: write_report(context.engine, context.settings.report_dir), changes=False
    )
    if as_json:
        print_json({"report": path})
    else:
        out.print(str(path), markup=False, soft_wrap=True)


@app.command(rich_help_panel=MACHINE)
def doctor(as_json: AsJson = False) -> None:
    """Check Python, Java, jars, disk, memory, database and data, and suggest fixes.

    Example: python run_spark_local.py doctor
    """
    from cli.doctor.checks import run_checks
    from config_spark import load_settings

    # without a log file: that its folder cannot be written is a finding, not an error
    results = run_checks(load_settings())
    if as_json:
        print_json({"checks": [vars(result) for result in results]})
    else:
        print_table(
            ["check", "result", "finding"],
            [[result.name, result.result, _finding(result)] for result in results],
        )
    if any(result.result == "fail" for result in results):
        raise typer.Exit(1)


def _finding(result: DoctorResult) -> Lines:
    return Lines([result.found, *([f"Fix: {result.fix}"] if result.fix else [])])
