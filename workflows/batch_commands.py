"""`submit`, `wait`, `status`, `list`, `cancel`, `cost` and `logs` of `python -m workflows`: one batch on Dataproc Serverless at a time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Annotated, Any

import typer

from command_line.options import AsJson, AsOf, End, Engine, Start, day, edge_settings
from command_line.terminal import err, out, print_json, print_pairs, print_table, say
from config_spark import Settings
from data_processing.plan_request import Request
from database.connection import with_database
from product_errors import CloudRefused, CloudUnavailable, ConfigurationError, DatabaseError
from workflows.app import app
from workflows.batch_request import batch_id, build_batch, request_id
from workflows.batch_rows import rows_of
from workflows.batch_watch import duration, facts, keep_cost, see_through
from workflows.cost import actual_cost, estimate
from workflows.cost_ledger import past_seconds
from workflows.dataproc import TERMINAL, Batches, batch_id_of
from workflows.driver_output import DriverOutput
from workflows.platforms import FORECAST_JOB, METRICS_JOB, platform_for
from workflows.release import released
from workflows.run_commands import FullRefresh, Version
from workflows.waiting import wait_or_ask

FOLLOW_SECONDS = 5.0


class Job(StrEnum):
    calculate_pool_metrics = METRICS_JOB
    forecast_pools = FORECAST_JOB


class State(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id, such as metrics-4f1c... .")]
Wait = Annotated[bool, typer.Option(help="Wait for the end, and fail with the batch.")]


@app.command()
def submit(
    job: Job,
    engine: Engine = None,
    version: Version = None,
    start: Start = None,
    end: End = None,
    full_refresh: FullRefresh = False,
    as_of: AsOf = None,
    rows: Annotated[int | None, typer.Option(min=0, help="Rows to size the batch for; default: the plan's, or NIGHTLY_ROWS.")] = None,
    wait: Wait = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request as JSON, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one job as a batch. With --start and --end, or --full-refresh, it is a backfill of the metrics.

    Example: python -m workflows submit calculate_pool_metrics --start 2025-08-01 --end 2025-09-01
    """
    settings = edge_settings(engine=engine.value if engine else None)
    arguments = job_arguments(job, start, end, full_refresh=full_refresh, as_of=as_of)
    request = submission(settings, job, arguments, version=version, rows=rows)
    if dry_run:
        print_json(request)
        return
    batches, name = Batches(settings), request["batchId"]
    say(f"{name}: sized for {request['rows']:,} rows, by {request['rows_from']}{_dearest(request)}")

    def send() -> dict[str, Any]:
        batch = batches.submit(request["batch"], name, request["requestId"])
        say(f"{name}: submitted, {batches.console_url(name)}")
        return see_through(settings, batches, name) if wait else facts(batches, batch)

    _show(_until_ended(batches, name, send), as_json)


def job_arguments(job: str, start: datetime | None, end: datetime | None, *, full_refresh: bool, as_of: datetime | None) -> list[str]:
    """What the job is given on its command line. Raises: ConfigurationError for an option that it has not, or days that are no interval."""
    if job == METRICS_JOB:
        if as_of:
            raise ConfigurationError(f"--as-of is an option of {FORECAST_JOB}; {METRICS_JOB} has --start with --end, and --full-refresh")
        asked = Request(full_refresh, day(start), day(end))
        days = ["--start", str(asked.start), "--end", str(asked.end)] if asked.start else []
        return [*days, *(["--full-refresh"] if full_refresh else [])]
    if start or end or full_refresh:
        raise ConfigurationError(f"--start, --end and --full-refresh are options of {METRICS_JOB}; {FORECAST_JOB} has --as-of")
    return ["--as-of", str(day(as_of))] if as_of else []


def submission(settings: Settings, job: str, arguments: list[str], *, version: str | None = None, rows: int | None = None) -> dict[str, Any]:
    """What would be sent: ids, body, and how its size and price were come by. The ids are random: the same for every try of this one.

    Raises: ConfigurationError, CloudRefused, CloudUnavailable where the release can't be read.
    """
    engine = settings.engine if job == FORECAST_JOB else None
    warning = platform_for(job, engine, today=datetime.now(UTC).date()).warning
    if warning:
        err.print(f"  {warning}", style="yellow", markup=False, soft_wrap=True)
    release = released(settings, version)
    size = rows_of(settings, job, [*arguments, *(["--engine", engine] if engine else [])], rows)
    execution = str(uuid.uuid4())
    name = batch_id(job, execution)
    batch = build_batch(settings, release, job, engine=engine, rows=size.number, arguments=[*arguments, "--batch", name])
    seconds = _usual_seconds(settings, job)
    return {
        "batchId": name,
        "requestId": request_id(job, execution),
        "parent": f"projects/{settings.project_id}/locations/{settings.region}",
        "rows": size.number,
        "rows_from": size.source,
        "usual_seconds": seconds,
        "usd_at_most": round(estimate(batch, seconds, region=settings.region).usd, 4) if seconds else None,
        "batch": batch,
    }


@app.command()
def wait(batch: BatchId, as_json: AsJson = False) -> None:
    """Wait for a batch's end and what it cost; fail with the batch.

    Example: python -m workflows wait metrics-0b2c7d1e-6f0a-4c2b-9a55-3f3f0f8f2b11
    """
    settings, batches, name = _opened(batch)
    _show(_until_ended(batches, name, lambda: see_through(settings, batches, name)), as_json)


@app.command("list")
def list_batches(
    job: Annotated[Job | None, typer.Option(help="Of this job only.")] = None,
    state: Annotated[State | None, typer.Option(help="In this state only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest batches of this product.

    Example: python -m workflows list --state RUNNING
    """
    batches = Batches(edge_settings())
    found = [facts(batches, batch) for batch in batches.list(_filter(job=job, state=state), limit)]
    if as_json:
        print_json({"batches": found})
        return
    columns = ["batch", "job", "state", "created", "seconds", "cost_usd"]
    print_table(columns, [[one[column] for column in columns] for one in found])


@app.command()
def cancel(batch: BatchId, as_json: AsJson = False) -> None:
    """Cancel a batch, and wait until it has ended.

    Example: python -m workflows cancel metrics-0b2c7d1e-6f0a-4c2b-9a55-3f3f0f8f2b11
    """
    _, batches, name = _opened(batch)
    before = batches.get(name)["state"]
    if before in TERMINAL:
        say(f"{name} is {before} already: there is nothing to cancel")
    ended = batches.cancel(name)
    if before not in TERMINAL and ended["state"] != "CANCELLED":
        say(f"{name} was faster: it is {ended['state']}")
    _show(facts(batches, ended), as_json)


@app.command()
def cost(
    batch: Annotated[str | None, typer.Argument(metavar="BATCH", help="One batch; default: all of a day or a month.")] = None,
    of_day: Annotated[datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Batches of this day, UTC.")] = None,
    month: Annotated[datetime | None, typer.Option(formats=["%Y-%m"], metavar="YYYY-MM", help="Of this month, UTC; default: this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """What batches cost by Google's list prices, from what the service says they used; into the ledger too, where DB_HOST names one.

    Example: python -m workflows cost --month 2026-01 --json
    """
    if sum(value is not None for value in (batch, of_day, month)) > 1:
        raise ConfigurationError("give one of BATCH, --day and --month")
    if batch is not None:
        settings, batches, name = _opened(batch)
        found = batches.get(name)
        found = batches.with_usage(name) if found["state"] in TERMINAL else found
        keep_cost(settings, name, actual_cost(found))
        _show(facts(batches, found), as_json)
        return
    settings = edge_settings()
    document = _cost_between(settings, *(_day_after(of_day) if of_day else _month_after(month or datetime.now(UTC))))
    if as_json:
        print_json(document)
        return
    columns = ["batch", "job", "state", "created", "cost_usd"]
    print_table(columns, [[one[column] for column in columns] for one in document["batches"]])
    print_pairs({name: value for name, value in document.items() if name != "batches"})


@app.command()
def logs(batch: BatchId, follow: Annotated[bool, typer.Option("--follow", help="Go on until the batch has ended.")] = False) -> None:
    """What a batch's driver wrote, from the staging bucket.

    Example: python -m workflows logs metrics-0b2c7d1e-6f0a-4c2b-9a55-3f3f0f8f2b11 --follow
    """
    settings, batches, name = _opened(batch)
    output = None
    while True:
        found = batches.get(name)
        uri = found.get("runtimeInfo", {}).get("outputUri")
        output = output or (DriverOutput(settings, uri) if uri else None)
        if output:
            out.out(output.read_on(), end="", highlight=False)
        if not follow or found["state"] in TERMINAL:
            break
        time.sleep(FOLLOW_SECONDS)
    if output is None:
        say(f"{name} is {found['state']} and has written nothing yet")


def _opened(batch: str) -> tuple[Settings, Batches, str]:
    """Args: batch is an id, or the full name that the console shows."""
    settings = edge_settings()
    return settings, Batches(settings), batch.rpartition("/")[2]


def _until_ended(batches: Batches, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return wait_or_ask(work, lambda: batches.cancel(name), f"batch {name}", f"python -m workflows cancel {name}")


def _show(found: dict[str, Any], as_json: bool) -> None:
    print_json(found) if as_json else print_pairs({name: value for name, value in found.items() if value is not None})


def _filter(*, job: Job | None = None, state: State | None = None, since: datetime | None = None, before: datetime | None = None) -> str:
    """https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches/list"""
    clauses = {
        "labels.app = {}": "yieldspark",
        "labels.job = {}": job,
        "state = {}": state,
        'create_time >= "{}"': since and since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        'create_time < "{}"': before and before.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return " AND ".join(clause.format(value) for clause, value in clauses.items() if value)


def _cost_between(settings: Settings, since: datetime, before: datetime) -> dict[str, Any]:
    """The batches that were created in the interval, [since, before), and their sum."""
    batches = Batches(settings)
    priced = [(batch, actual_cost(batch)) for batch in batches.list(_filter(since=since, before=before))]
    for batch, found in priced:
        keep_cost(settings, batch_id_of(batch), found)
    return {
        "from": since.date(),
        "to": before.date(),
        "usd": round(sum(found.usd for _, found in priced if found), 4),
        "without_usage": sum(found is None for _, found in priced),
        "batches": [facts(batches, batch) for batch, _ in priced],
    }


def _day_after(first: datetime) -> tuple[datetime, datetime]:
    return first, first + timedelta(days=1)


def _month_after(within: datetime) -> tuple[datetime, datetime]:
    first = within.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first, (first + timedelta(days=31)).replace(day=1)


def _usual_seconds(settings: Settings, job: str) -> float | None:
    """The median of the job's last nights on batches, where DB_HOST names a ledger that can be reached from here."""
    if not settings.db_host:
        return None
    try:
        past = past_seconds(with_database(settings), job)
    except (DatabaseError, CloudRefused, CloudUnavailable):
        return None
    return median(past) if past else None


def _dearest(request: dict[str, Any]) -> str:
    if request["usd_at_most"] is None:
        return ""
    return f"; a usual run takes {duration(request['usual_seconds'])} and costs {request['usd_at_most']:.4f} USD at most"
