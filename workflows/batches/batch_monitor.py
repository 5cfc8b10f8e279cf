"""Follows a batch to its end: progress, cost and failure. Durations are seconds, costs USD."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cli.terminal import say
from common.errors import (
    BatchFailed,
    CloudRefused,
    CloudUnavailable,
    ConfigurationError,
    DatabaseError,
    Interrupted,
)
from config_spark import Settings
from database.embedded.resolve import resolve_database
from workflows.batches.driver_output import DriverOutput
from workflows.clients.dataproc import TERMINAL, Batches, Document, batch_id_of, seconds_until
from workflows.costs.cost import Cost, actual_cost
from workflows.costs.cost_ledger import record_cost

LINE_SECONDS = 30.0
"""Shortest time between two progress lines of one state."""


@dataclass(frozen=True)
class BatchSummary:
    """A batch as the commands show it; `--json` prints the fields in this order.

    Attributes:
        batch: Id of the batch.
        job: Name of its job; None for a batch without labels.
        version: Its release, by the label: at most 40 characters.
        state: State of the REST API, such as RUNNING.
        message: The service's message about the state.
        created: RFC 3339, UTC.
        seconds: From the creation to the end, or until now.
        cost_usd: None until the service has reported the usage, as the two figures below.
        dcu_hours: Billed DCU-hours.
        shuffle_gb_months: Billed GB-months of shuffle storage.
        output: gs:// prefix of the driver's output; None before the driver has started.
        console: Address in the Cloud console.
    """

    batch: str
    job: str | None
    version: str | None
    state: str
    message: str | None
    created: str
    seconds: float
    cost_usd: float | None
    dcu_hours: float | None
    shuffle_gb_months: float | None
    output: str | None
    console: str


class BatchNotSucceeded(BatchFailed):
    """A batch that failed or was cancelled.

    Attributes:
        document: The batch's summary and `driver_output`, the last lines of its driver.
    """

    def __init__(self, summary: BatchSummary, output: list[str]) -> None:
        self.document = asdict(summary) | {"driver_output": output}
        # the service appends addresses and commands to the reason of a failure
        reason = (summary.message or "").partition(" If logs are available")[0].strip(" .")
        super().__init__(
            f"batch {summary.batch} is {summary.state}{f': {reason}' if reason else ''}."
            f" Look at {summary.console}"
        )


class Progress:
    """Prints a line to stderr for each new state, and every LINE_SECONDS within a state."""

    def __init__(self) -> None:
        self._state = ""
        self._line_at = 0.0

    def __call__(self, batch: Document, seconds: float) -> None:
        if batch["state"] != self._state or seconds >= self._line_at + LINE_SECONDS:
            self._state, self._line_at = batch["state"], seconds
            cost = cost_so_far(batch, seconds) if batch["state"] not in TERMINAL else None
            say(
                f"{batch_id_of(batch)}: {batch['state']},"
                f" {duration(seconds)}{f', about {cost.usd:.4f} USD so far' if cost else ''}"
            )


def wait_for_batch(settings: Settings, batches: Batches, batch_id: str) -> BatchSummary:
    """Wait until a batch has ended and its usage is known, and record its cost.

    Args:
        settings: Ledger, if DB_HOST is set.
        batches: Client.
        batch_id: Id of the batch.

    Returns:
        The batch's summary.

    Raises:
        BatchNotSucceeded: The batch failed or was cancelled.
        BatchFailed: The batch exceeded its time and was cancelled.
        CloudRefused: Google rejected a request.
        CloudUnavailable: Google cannot be reached.
    """
    batches.wait(batch_id, Progress())
    batch = _with_usage(batches, batches.get(batch_id))
    summary = batch_summary(batches, batch)
    record_cost_if_possible(settings, batch_id, actual_cost_or_none(batch))
    if batch["state"] != "SUCCEEDED":
        # before the error: its message has to be the last line
        output = last_lines(settings, batch)
        for line in output:
            say(f"driver: {line}")
        raise BatchNotSucceeded(summary, output)
    return summary


def _with_usage(batches: Batches, ended: Document) -> Document:
    batch_id = batch_id_of(ended)
    say(f"{batch_id}: {ended['state']}; waiting for its usage")
    try:
        return batches.with_usage(batch_id)
    except KeyboardInterrupt:
        # the batch has ended: there is nothing left to cancel
        raise Interrupted(
            f"batch {batch_id} is {ended['state']}; `python -m workflows cost {batch_id}` reads"
            " its usage later"
        ) from None


def batch_summary(batches: Batches, batch: Document) -> BatchSummary:
    """Summarize a batch for the commands' output.

    Args:
        batches: Client, for its clock and console address.
        batch: Batch as the REST API's JSON.
    """
    cost = actual_cost_or_none(batch)
    batch_id = batch_id_of(batch)
    labels = batch.get("labels", {})
    return BatchSummary(
        batch=batch_id,
        job=labels.get("job"),
        version=labels.get("version"),
        state=batch["state"],
        message=batch.get("stateMessage"),
        created=batch["createTime"],
        seconds=round(seconds_until(batch, batches.now()), 1),
        cost_usd=round(cost.usd, 6) if cost else None,
        dcu_hours=round(cost.dcu_hours, 4) if cost else None,
        shuffle_gb_months=round(cost.shuffle_gb_months, 6) if cost else None,
        output=batch.get("runtimeInfo", {}).get("outputUri"),
        console=batches.console_url(batch_id),
    )


def actual_cost_or_none(batch: Document) -> Cost | None:
    """Return the batch's cost; None if its usage is not reported yet or its region has no price."""
    try:
        return actual_cost(batch)
    except ConfigurationError:
        return None


def cost_so_far(batch: Document, seconds: float) -> Cost | None:
    """Estimate the cost of a running batch from its current usage, assumed constant since its
    creation. Executors come and go, so the figure is approximate.

    Args:
        batch: Batch as the REST API's JSON.
        seconds: Seconds since the batch was created.
    """
    current_usage = batch.get("runtimeInfo", {}).get("currentUsage")
    if not current_usage:
        return None
    milli_dcu = int(current_usage.get("milliDcu", 0))
    shuffle_gb = int(current_usage.get("shuffleStorageGb", 0))
    usage = {
        "milliDcuSeconds": str(round(milli_dcu * seconds)),
        "shuffleStorageGbSeconds": str(round(shuffle_gb * seconds)),
    }
    return actual_cost_or_none({**batch, "runtimeInfo": {"approximateUsage": usage}})


def record_cost_if_possible(settings: Settings, batch_id: str, cost: Cost | None) -> bool:
    """Record a batch's cost in the run ledger if DB_HOST is set. An unreachable ledger is reported
    and does not fail the batch, because `cost` can record it later.

    Returns:
        False if the ledger could not be reached.
    """
    if cost is None or not settings.db_host:
        return True
    try:
        record_cost(resolve_database(settings), batch_id, cost.usd)
    except (DatabaseError, CloudRefused, CloudUnavailable) as error:
        say(f"the cost of {batch_id} was not recorded: {error}")
        return False
    return True


def duration(seconds: float) -> str:
    """Format seconds, such as `45 s` or `2 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def last_lines(settings: Settings, batch: Document) -> list[str]:
    """Return the last lines of a batch's driver; empty, with a message, if they cannot be read."""
    uri = batch.get("runtimeInfo", {}).get("outputUri")
    if not uri:
        return []
    try:
        return DriverOutput(settings, uri).last_lines()
    except (CloudRefused, CloudUnavailable) as error:
        say(f"the driver's output cannot be read: {error}")
        return []
