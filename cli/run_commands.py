"""`runs list | show | diff`, `validate` and `undo`: the run ledger, and what to do with a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from cli.app import RUN, app
from cli.options import AsJson, day, run_in_context
from cli.terminal import out, print_json, print_pairs, print_records, print_run, print_table
from common.local_user import user_at_host
from common.quantities import count, duration

runs_app = typer.Typer(
    no_args_is_help=True, help="The run ledger: list runs, show one, and what it changed."
)
app.add_typer(runs_app, name="runs", rich_help_panel=RUN)

RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN_ID", help="Id of a run; `runs list` shows them.", show_default=False
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of runs to show.")]
Job = Annotated[str | None, typer.Option(help="Runs of this job, such as calculate_metrics.")]


@runs_app.command("list")
def list_runs(job: Job = None, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List runs, newest first.

    Example: python run_spark_local.py runs list --job calculate_metrics --limit 5
    """
    from database.undo.run_history import list_runs as read_runs

    rows = run_in_context(
        lambda context: read_runs(context.engine, job=job, limit=limit), changes=False
    )
    if as_json:
        print_json({"runs": rows})
        return
    if not rows:
        out.print("no runs")
        return
    print_table(
        ["run", "status", "mode", "rows", "duration", "undoable"],
        [_cells_of_run(row) for row in rows],
    )


def _cells_of_run(row: Mapping[str, Any]) -> list[object]:
    seconds = row["seconds"]
    return [
        row["run_id"],
        row["status"],
        row["mode"],
        {name: number for name, number in row["rows"].items() if number},
        duration(seconds) if seconds is not None else None,
        row["is_undoable"],
    ]


@runs_app.command("show")
def show_run(run_id: RunId, as_json: AsJson = False) -> None:
    """Show a run: its plan, stages, checks, and the tables that it changed.

    Example: python run_spark_local.py runs show calculate_metrics_20250901t020000_1a2b3c
    """
    from database.undo.run_history import show_run as read_run

    row = run_in_context(lambda context: read_run(context.engine, run_id), changes=False)
    if as_json:
        print_json(row)
        return
    hidden = {"plan", "changes"}
    print_run({name: value for name, value in row.items() if name not in hidden})
    if row["plan"]:
        out.print()
        simple = str | int | float
        print_pairs({key: value for key, value in row["plan"].items() if isinstance(value, simple)})
    if row["changes"]:
        out.print()
        print_records(["table", "kind", "rows"], row["changes"])


@runs_app.command("diff")
def diff_run(
    run_id: RunId,
    largest: Annotated[
        int, typer.Option(min=0, max=1000, help="Largest changes to show for each column.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Show what a run changed: rows by table, and by column how many values and the largest.

    Example: python run_spark_local.py runs diff calculate_metrics_20250901t020000_1a2b3c
    """
    from database.undo.run_diff import diff_run as read_diff

    difference = run_in_context(
        lambda context: read_diff(context.engine, run_id, largest=largest), changes=False
    )
    if as_json:
        print_json(difference)
        return
    if not difference["tables"]:
        out.print("the run changed no row")
    for table in difference["tables"]:
        rows = {name: table[name] for name in ("inserted", "updated", "deleted") if table[name]}
        title = ", ".join(f"{count(number, 'row')} {name}" for name, number in rows.items())
        out.print(f"{table['table']}: {title}", markup=False)
        if table["columns"]:
            print_records(["column", "changed", "set", "removed"], table["columns"])
        if table["largest"]:
            print_records(["column", "key", "before", "after"], table["largest"])
        out.print()


@app.command(rich_help_panel=RUN)
def validate(
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Last day to validate, UTC; default: the last complete day.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Validate the last 7 days: records, rolling values, source against target, and forecasts.

    The exit code is 1 if a check of severity `fail` failed.

    Example: python run_spark_local.py validate --as-of 2025-10-05
    """
    from reporting.validation.validate import validate as validate_tables

    row = run_in_context(
        lambda context: validate_tables(context.settings, context.engine, as_of=day(as_of))
    )
    if as_json:
        print_json(row)
    else:
        print_table(
            ["check", "result", "finding"],
            [[check["name"], _check_result(check), check["found"]] for check in row["checks"]],
        )
    if row["status"] != "succeeded":
        raise typer.Exit(1)


def _check_result(check: dict[str, Any]) -> str:
    return "ok" if check["passed"] else str(check["severity"])


@app.command(rich_help_panel=RUN)
def undo(
    run_id: RunId,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also undo later runs that used what it wrote.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be restored; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Undo a run: restore the rows that it replaced; the next run continues from the run before.

    Model decisions stay: `models rollback` takes a promotion back.

    Example: python run_spark_local.py undo calculate_metrics_20250901t020000_1a2b3c --dry-run
    """
    from database.undo.undo import undo_run

    result = run_in_context(
        lambda context: undo_run(
            context.engine, run_id, by=user_at_host(), cascade=cascade, dry_run=dry_run
        ),
        changes=not dry_run,
    )
    print_json(result) if as_json else print_pairs(result)
