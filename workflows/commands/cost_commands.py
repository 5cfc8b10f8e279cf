"""`cost` of `python -m workflows`: what batches cost by Google's list prices, one, a day's or a
month's; and a month's bill by the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from cli.options import AsJson, edge_settings
from cli.terminal import format_value, print_json, print_pairs, print_table
from common.errors import ConfigurationError, DatabaseUnreachable
from config_spark import Settings
from workflows.batches.batch_monitor import facts, keep_cost
from workflows.clients.dataproc import TERMINAL, Batches, batch_id_of
from workflows.commands.app import app
from workflows.commands.batch_commands import opened, show_batch
from workflows.costs.bill_inputs import inputs_of
from workflows.costs.cost import actual_cost, prices
from workflows.costs.cost_ledger import past_runs
from workflows.costs.measured_inputs import with_measured
from workflows.costs.monthly_bill import MonthlyBill, monthly_bill
from workflows.costs.night_model import MODELLED_JOBS

YESTERDAY = "yesterday"


def _day_of(text: str) -> datetime:
    """The day's begin, without a zone; a schedule says `yesterday`."""
    if text == YESTERDAY:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return today - timedelta(days=1)
    try:
        return datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no day; allowed is YYYY-MM-DD, or {YESTERDAY}"
        ) from None


DayOption = Annotated[
    datetime | None,
    typer.Option(
        "--day", parser=_day_of, metavar="YYYY-MM-DD|yesterday", help="Batches of a day, UTC."
    ),
]
MonthOption = Annotated[
    datetime | None,
    typer.Option(
        "--month",
        formats=["%Y-%m"],
        metavar="YYYY-MM",
        help="Batches of a month; default: the current month.",
    ),
]


@app.command()
def cost(
    batch: Annotated[
        str | None,
        typer.Argument(
            metavar="BATCH", help="Id of a batch; default: all batches of a day or month."
        ),
    ] = None,
    of_day: DayOption = None,
    of_month: MonthOption = None,
    pools: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=("Estimate the monthly bill for this number of pools instead."),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show and record the cost of batches, by reported usage and list prices.

    With ENVIRONMENT=production, an unreachable database is a failure.

    Example: python -m workflows cost --month 2026-01 --json
    """
    if sum(value is not None for value in (batch, of_day, of_month, pools)) > 1:
        raise ConfigurationError("give one of BATCH, --day, --month and --pools")
    if pools is not None:
        _show_bill(edge_settings(), pools, as_json)
    elif batch is not None:
        show_batch(_cost_of(batch), as_json)
    else:
        _show_sum(_cost_between(edge_settings(), *_interval(of_day, of_month)), as_json)


def _cost_of(batch: str) -> dict[str, Any]:
    settings, batches, name = opened(batch)
    found = batches.get(name)
    if found["state"] in TERMINAL:
        found = batches.with_usage(name)
    keep_cost(settings, name, actual_cost(found))
    return facts(batches, found)


def _interval(of_day: datetime | None, of_month: datetime | None) -> tuple[datetime, datetime]:
    """[first, after the last), UTC."""
    if of_day:
        return of_day, of_day + timedelta(days=1)
    first = (of_month or datetime.now(UTC)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0, tzinfo=None
    )
    return first, (first + timedelta(days=31)).replace(day=1)


def _cost_between(settings: Settings, since: datetime, before: datetime) -> dict[str, Any]:
    """The batches that were created in the interval, and their sum. Raises: DatabaseUnreachable
    where the database is beside us, and costs did not reach it.
    """
    batches = Batches(settings)
    priced = [(batch, actual_cost(batch)) for batch in batches.list(since=since, before=before)]
    kept = [keep_cost(settings, batch_id_of(batch), found) for batch, found in priced]
    if settings.environment == "production" and not all(kept):
        raise DatabaseUnreachable(
            f"the costs of {kept.count(False)} batches of {since:%Y-%m-%d} and later are not in the"
            " ledger, for the reasons above; ask for them again when it answers"
        )
    return {
        "from": since.date(),
        "to": before.date(),
        "usd": round(sum(found.usd for _, found in priced if found), 4),
        "without_usage": sum(found is None for _, found in priced),
        "batches": [facts(batches, batch) for batch, _ in priced],
    }


def _show_sum(document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    columns = ["batch", "job", "state", "created", "cost_usd"]
    print_table(columns, [[one[column] for column in columns] for one in document["batches"]])
    print_pairs({name: value for name, value in document.items() if name != "batches"})


def _show_bill(settings: Settings, pools: int, as_json: bool) -> None:
    past = past_runs(settings)
    bill = monthly_bill(with_measured(*inputs_of(settings, pools), past.runs))
    if as_json:
        print_json(bill.document() | {"ledger": past.source})
        return
    _print_platforms(bill)
    known, inputs = bill.known, asdict(bill.known.inputs)
    print_table(
        ["input", "value", "source"],
        [[name, format_value(value), known.sources[name]] for name, value in inputs.items()],
    )
    print_pairs({"prices of": prices()["read_on"], "ledger": past.source})


def _print_platforms(bill: MonthlyBill) -> None:
    database = bill.database
    print_table(
        ["a month", *MODELLED_JOBS, "Cloud SQL", "USD", "caution"],
        [
            [
                one.platform,
                *(bill.known.inputs.nights * job.usd for job in one.jobs),
                one.database_usd,
                one.usd,
                one.caution,
            ]
            for one in bill.platforms
        ],
    )
    print_table(
        ["a night", "job", "rows", "seconds", "USD"],
        [
            [one.platform, job.job, job.rows, job.seconds, job.usd]
            for one in bill.platforms
            for job in one.jobs
        ],
    )
    print_pairs(
        {
            "Cloud SQL": (
                f"instance {database.instance_usd:.2f}, disk of {database.disk_gb:.0f} GB"
                f" {database.disk_usd:.2f}, backups of {database.backup_gb:.0f} GB"
                f" {database.backup_usd:.2f}; prices of {database.price_region},"
                f" {prices()['cloud_sql']['read_on']}"
            ),
            "PLATFORM=auto takes": f"{bill.choice.platform}: {bill.choice.reason}",
        }
    )
