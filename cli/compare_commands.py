"""`compare`: compares another metrics table, such as the pandas job's, with YieldSpark's."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.app import DATA, app
from cli.options import AsJson, DayAfter, FirstDay, Pools, day, run_in_context
from cli.terminal import out, print_json, print_pairs, print_records


@app.command(rich_help_panel=DATA)
def compare(
    table: Annotated[
        str, typer.Option(help="Table to compare with, NAME or SCHEMA.NAME.", show_default=False)
    ],
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help=(
                "Largest difference of equal values, in the unit of the column; "
                "default: one unit of the last common decimal."
            ),
        ),
    ] = None,
    pools: Pools = None,
    start: FirstDay = None,
    end: DayAfter = None,
    limit: Annotated[
        int, typer.Option(min=0, max=100_000, help="Maximum number of unexplained values to list.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare another metrics table with YieldSpark's, and explain each difference.

    Exit code 1: a difference has no known reason.

    Example: python run_spark_local.py compare --table pool_daily_metrics --json
    """
    from data_processing.comparison.compare_tables import Comparison, compare_tables
    from data_processing.planning.run_request import parse_pools

    comparison = Comparison(table, tolerance, parse_pools(pools), day(start), day(end), limit)
    result = run_in_context(
        lambda context: compare_tables(context.engine, comparison), changes=False
    )
    print_json(result) if as_json else _print(result)
    # a script that compares every day must notice a new kind of difference
    if result["unexplained"]:
        raise typer.Exit(1)


def _print(result: dict[str, Any]) -> None:
    rows = result["rows"]
    print_pairs(
        {
            "ours": result["ours"],
            "theirs": result["theirs"],
            "rows in both": rows["both"],
            "rows only in ours": rows["only_ours"],
            "rows only in theirs": rows["only_theirs"],
            "unexplained": f"{result['unexplained']:,}",
        }
    )
    out.print()
    keys = ("column", "equal", "both_null", "different", "only_ours", "only_theirs", "rules")
    headings = {key.replace("_", " "): key for key in keys}
    print_records(
        headings, ({**counts, "column": column} for column, counts in result["columns"].items())
    )
    if result["not_compared"]:
        out.print()
        print_pairs({"not compared": ", ".join(result["not_compared"])})
    if result["rules"]:
        out.print()
        print_pairs(result["rules"])
    if result["examples"]:
        out.print()
        print_records(
            ["pool_id", "date", "column", "ours", "theirs"],
            result["examples"],
            title=f"unexplained: {result['unexplained']:,}",
        )
