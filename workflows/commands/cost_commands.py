"""`cost`: prices batches by usage and list prices, and estimates a month's bill."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import typer

from cli.options import AsJson, load_command_settings
from cli.terminal import format_value, print_json, print_pairs, print_table
from common.errors import ConfigurationError, DatabaseUnreachable
from config_spark import Settings
from workflows.batches.batch_monitor import (
    BatchSummary,
    batch_summary,
    record_cost_if_possible,
)
from workflows.clients.dataproc import TERMINAL, Batches, batch_id_of
from workflows.commands.app import app
from workflows.commands.batch_commands import open_batch, show_batch
from workflows.commands.tables import print_entries
from workflows.costs.bill_inputs import inputs_of
from workflows.costs.cost import actual_cost, prices
from workflows.costs.cost_ledger import past_runs
from workflows.costs.cost_points import JobCost, emit_day_costs
from workflows.costs.daily_cost import MODELLED_JOBS
from workflows.costs.measured_inputs import with_measured
from workflows.costs.monthly_bill import MonthlyBill, monthly_bill

YESTERDAY = "yesterday"


def _parse_day(value: str) -> datetime:
    """Return the start of a UTC day, without a zone. A schedule passes `yesterday`."""
    if value == YESTERDAY:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return today - timedelta(days=1)
    try:
        return datetime.strptime(value, "%Y-%m-%d")
    except ValueError:
        raise typer.BadParameter(
            f"{value!r} is no day; allowed: YYYY-MM-DD, or {YESTERDAY}"
        ) from None


DayOption = Annotated[
    datetime | None,
    typer.Option(
        "--day", parser=_parse_day, metavar="YYYY-MM-DD|yesterday", help="Batches of a day, UTC."
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


@dataclass(frozen=True)
class BatchCosts:
    """Costs of the batches that were created in `[start, end)`, UTC days.

    Attributes:
        start: First day.
        end: Day after the last one.
        usd: Sum of the costs that are reported.
        without_usage: Number of batches whose usage the service has not reported.
        batches: The batches, newest first.
    """

    start: date
    end: date
    usd: float
    without_usage: int
    batches: tuple[BatchSummary, ...]

    def of_jobs(self) -> list[JobCost]:
        """Return job and cost of each batch that has both."""
        return [
            (batch.job, batch.cost_usd)
            for batch in self.batches
            if batch.job is not None and batch.cost_usd is not None
        ]

    def totals(self) -> dict[str, Any]:
        """Return the `--json` payload without the batches."""
        return {
            "from": self.start,
            "to": self.end,
            "usd": self.usd,
            "without_usage": self.without_usage,
        }


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
        _show_bill(load_command_settings(), pools, as_json)
    elif batch is not None:
        show_batch(_cost_of(batch), as_json)
    else:
        settings, (start, end) = load_command_settings(), _interval(of_day, of_month)
        costs = _cost_between(settings, start, end)
        _show_sum(costs, as_json)
        if of_day:
            emit_day_costs(settings, costs.of_jobs(), end)


def _cost_of(batch: str) -> BatchSummary:
    settings, batches, name = open_batch(batch)
    current = batches.get(name)
    if current["state"] in TERMINAL:
        current = batches.with_usage(name)
    record_cost_if_possible(settings, name, actual_cost(current))
    return batch_summary(batches, current)


def _interval(of_day: datetime | None, of_month: datetime | None) -> tuple[datetime, datetime]:
    """Return `[start, end)` of the day or month, UTC."""
    if of_day:
        return of_day, of_day + timedelta(days=1)
    first = (of_month or datetime.now(UTC)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0, tzinfo=None
    )
    # 31 days later is in the next month, whatever the length of this one
    return first, (first + timedelta(days=31)).replace(day=1)


def _cost_between(settings: Settings, since: datetime, before: datetime) -> BatchCosts:
    """Price the batches that were created in the interval, and record their costs.

    Raises:
        DatabaseUnreachable: In production, the ledger did not take every cost.
    """
    batches = Batches(settings)
    priced = [(batch, actual_cost(batch)) for batch in batches.list(since=since, before=before)]
    recorded = [
        record_cost_if_possible(settings, batch_id_of(batch), batch_cost)
        for batch, batch_cost in priced
    ]
    # a schedule runs this in production, and nobody reads the messages of a success
    if settings.environment == "production" and not all(recorded):
        raise DatabaseUnreachable(
            f"the costs of {recorded.count(False)} batches of {since:%Y-%m-%d} and later are not"
            " in the ledger, for the reasons above; run this command again when the database"
            " answers"
        )
    return BatchCosts(
        start=since.date(),
        end=before.date(),
        usd=round(sum(batch_cost.usd for _, batch_cost in priced if batch_cost), 4),
        without_usage=sum(batch_cost is None for _, batch_cost in priced),
        batches=tuple(batch_summary(batches, batch) for batch, _ in priced),
    )


def _show_sum(costs: BatchCosts, as_json: bool) -> None:
    entries = [asdict(summary) for summary in costs.batches]
    if as_json:
        print_json(costs.totals() | {"batches": entries})
        return
    print_entries(["batch", "job", "state", "created", "cost_usd"], entries)
    print_pairs(costs.totals())


def _show_bill(settings: Settings, pools: int, as_json: bool) -> None:
    past = past_runs(settings)
    bill = monthly_bill(with_measured(*inputs_of(settings, pools), past.runs))
    if as_json:
        print_json(bill.document() | {"ledger": past.source})
        return
    _print_platforms(bill)
    basis, inputs = bill.basis, asdict(bill.basis.inputs)
    print_table(
        ["input", "value", "source"],
        [[name, format_value(value), basis.sources[name]] for name, value in inputs.items()],
    )
    print_pairs({"prices of": prices()["read_on"], "ledger": past.source})


def _print_platforms(bill: MonthlyBill) -> None:
    database = bill.database
    months, days = [], []
    for platform_bill in bill.platforms:
        name = platform_bill.platform
        job_costs = [bill.basis.inputs.nights * job.usd for job in platform_bill.jobs]
        totals = [platform_bill.database_usd, platform_bill.usd, platform_bill.caution]
        months.append([name, *job_costs, *totals])
        days += [[name, job.job, job.rows, job.seconds, job.usd] for job in platform_bill.jobs]
    print_table(["a month", *MODELLED_JOBS, "Cloud SQL", "USD", "caution"], months)
    print_table(["a daily run", "job", "rows", "seconds", "USD"], days)
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
