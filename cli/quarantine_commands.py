"""`quarantine list | show | replay | drop`: inspects and resolves rejected raw rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.app import DATA, app
from cli.options import AsJson, Decimal, QuarantinedSince, day, run_in_context
from cli.terminal import out, print_json, print_pairs, print_records, print_run, print_table
from common.errors import ConfigurationError
from common.local_user import user_at_host
from common.quantities import count

quarantine_app = typer.Typer(
    no_args_is_help=True,
    help="Rejected raw rows: list, show, replay or drop them.",
)
app.add_typer(quarantine_app, name="quarantine", rich_help_panel=DATA)

# Of a document; a document may have megabytes
SHOWN_CHARACTERS = 4_000
# below the largest bigint of PostgreSQL, 2**63 - 1
MAX_ID = 10**18

RowId = Annotated[
    int,
    typer.Argument(
        metavar="ID", min=1, max=MAX_ID, help="Id of a quarantined row.", show_default=False
    ),
]
RowIds = Annotated[
    list[int] | None,
    typer.Argument(
        metavar="[ID]...", min=1, max=MAX_ID, help="Ids of quarantined rows.", show_default=False
    ),
]
Reason = Annotated[
    str | None, typer.Option(help="Rows with this reason, such as apy_beyond_limit.")
]
Pool = Annotated[str | None, typer.Option(help="Rows of this pool.")]
Everything = Annotated[bool, typer.Option("--all", help="All open rows.")]


@quarantine_app.command("list")
def list_rows(
    reason: Reason = None,
    pool: Pool = None,
    since: QuarantinedSince = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include rows that were replayed, dropped or accepted.")
    ] = False,
    limit: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="Maximum number of rows to show; counts include all rows."
        ),
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List open rows, newest first, and count them by reason.

    Example: python run_spark_local.py quarantine list --reason apy_beyond_limit --since 2025-08-01
    """
    from data_processing.quarantine import queries

    selection = queries.Selection(
        reason=reason, pool_id=pool, since=day(since), resolved=everything
    )
    listing = run_in_context(
        lambda context: queries.list_rows(context.engine, selection, limit=limit), changes=False
    )
    if as_json:
        print_json(listing)
        return
    if not listing["total"]:
        if reason or pool or since:
            out.print("no such rows")
        else:
            out.print("no rows" if everything else "no open rows")
        return
    print_table(
        ["source", "reason", "resolution", "rows"],
        [list(count.values()) for count in listing["counts"]],
    )
    columns = ["id", "reason", "pool_id", "timestamp", "source_id", "quarantined_at", "resolution"]
    if listing["rows"]:
        out.print()
        print_records(columns, listing["rows"])
    if listing["total"] > len(listing["rows"]):
        out.print(
            f"{len(listing['rows']):,} of {count(listing['total'], 'row')}; --limit shows more",
            style="dim",
        )


@quarantine_app.command()
def show(row_id: RowId, as_json: AsJson = False) -> None:
    """Show a row: its JSON, why it was rejected, and whether it passes today's limits.

    Example: python run_spark_local.py quarantine show 7
    """
    from data_processing.quarantine.queries import show_row

    row = run_in_context(
        lambda context: show_row(context.engine, context.settings, row_id), changes=False
    )
    if as_json:
        print_json(row)
    else:
        print_pairs(
            {
                name: value
                for name, value in (
                    row | {"raw_json_data": _shown_document(row["raw_json_data"])}
                ).items()
                if value is not None
            }
        )


def _shown_document(document: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]} .. ({len(text):,} characters; --json has all of them)"


@quarantine_app.command()
def replay(
    row_ids: RowIds = None,
    reason: Reason = None,
    pool: Pool = None,
    everything: Everything = False,
    file: Annotated[
        Path | None,
        typer.Option(help="Corrected rows: .jsonl or .csv with id and apy, tvlUsd, ..."),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Corrected values of a single row, such as '{\"apy\": 4.2}'."
        ),
    ] = None,
    decimal: Decimal = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show which rows would pass, without changing anything."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Validate rows again, with today's limits or corrected values; valid rows become new raw rows.

    Exit code 1: a row that was named explicitly is still invalid.

    Example: python run_spark_local.py quarantine replay 7 --value '{"apy": 4.2}'
    """
    from data_processing.quarantine.corrections import correction_of_value, read_corrections
    from data_processing.quarantine.queries import Selection
    from data_processing.quarantine.replay import Replay, replay_rows

    _require_one_filter({**_filters(row_ids, reason, pool, everything), "--file": file is not None})
    if value is not None and len(row_ids or ()) != 1:
        raise ConfigurationError("--value corrects one row: give its id, or use --file for several")
    corrections = {}
    if file:
        corrections = read_corrections(file, decimal)
    elif value is not None and row_ids:
        corrections = {row_ids[0]: correction_of_value(value)}
    selection = Selection(tuple(row_ids or corrections), reason, pool)
    request = Replay(selection, user_at_host(), corrections)
    result = run_in_context(
        lambda context: replay_rows(context.settings, context.engine, request, dry_run=dry_run),
        changes=not dry_run,
    )
    print_json(result) if as_json else _print_replay(result)
    # a script that names rows has to learn that they were not used
    if selection.ids and set(result["outcomes"]) & {"still_failing", "not_replayable"}:
        raise typer.Exit(1)


@quarantine_app.command()
def drop(
    row_ids: RowIds = None,
    reason: Reason = None,
    pool: Pool = None,
    everything: Everything = False,
    note: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Reason, recorded with the rows and in the run ledger."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Close rows without using them; they stay on record and no later run opens them again.

    Example: python run_spark_local.py quarantine drop --reason tvl_negative --note scraper --yes
    """
    from data_processing.quarantine.queries import Selection
    from data_processing.quarantine.replay import drop_rows

    _require_one_filter(_filters(row_ids, reason, pool, everything))
    if not (note or "").strip():
        raise ConfigurationError(
            "`quarantine drop` needs --note TEXT: who dropped the rows, and why, is recorded"
        )
    # a script has nobody who could answer
    if not yes and not (
        sys.stdin.isatty() and typer.confirm("Drop these rows for good?", err=True)
    ):
        raise ConfigurationError(
            "nothing was dropped: answer `quarantine drop` with yes, or give --yes"
        )
    selection = Selection(tuple(row_ids or ()), reason, pool)
    row = run_in_context(
        lambda context: drop_rows(
            context.settings, context.engine, selection, by=user_at_host(), note=str(note).strip()
        )
    )
    print_json(row) if as_json else print_run(row)


def _require_one_filter(filters: Mapping[str, bool]) -> None:
    """Raise ConfigurationError if the options select no rows, or select them in two ways."""
    used = [name for name, is_used in filters.items() if is_used]
    if len(used) != 1:
        problem = f"{' and '.join(used)} exclude each other" if used else "no rows are selected"
        raise ConfigurationError(f"{problem}: give {', or '.join(filters)}")


def _filters(
    row_ids: Sequence[int] | None, reason: str | None, pool: str | None, everything: bool
) -> dict[str, bool]:
    return {
        "ids": bool(row_ids),
        "--reason and/or --pool": bool(reason or pool),
        "--all": everything,
    }


def _print_replay(result: dict[str, Any]) -> None:
    print_run({name: value for name, value in result.items() if name != "details"})
    if result["details"]:
        print_records(["id", "pool_id", "timestamp", "outcome", "message"], result["details"])
