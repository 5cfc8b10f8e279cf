"""`compare`: the metrics of another table, such as the pandas job's, beside ours."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.app import DATA, app
from cli.options import AsJson, DayAfter, FirstDay, Pools, day, run_in_context
from cli.terminal import out, print_json, print_pairs, print_table


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
    from data_processing.planning.run_request import pools_option

    asked = Comparison(table, tolerance, pools_option(pools), day(start), day(end), limit)
    found = run_in_context(lambda context: compare_tables(context.engine, asked), changes=False)
    print_json(found) if as_json else _print(found)
    if found["unexplained"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    rows = found["rows"]
    print_pairs(
        {
            "ours": found["ours"],
            "theirs": found["theirs"],
            "rows in both": rows["both"],
            "rows in ours alone": rows["only_ours"],
            "rows in theirs alone": rows["only_theirs"],
            "unexplained": f"{found['unexplained']:,}",
        }
    )
    out.print()
    names = ["equal", "both_null", "different", "only_ours", "only_theirs", "rules"]
    print_table(
        ["column", *(name.replace("_", " ") for name in names)],
        [
            [column, *(counts[name] for name in names)]
            for column, counts in found["columns"].items()
        ],
    )
    if found["not_compared"]:
        out.print()
        print_pairs({"not compared": ", ".join(found["not_compared"])})
    if found["rules"]:
        out.print()
        print_pairs(found["rules"])
    if found["examples"]:
        out.print()
        columns = ["pool_id", "date", "column", "ours", "theirs"]
        print_table(
            columns,
            [[example[name] for name in columns] for example in found["examples"]],
            title=f"unexplained: {found['unexplained']:,}",
        )
