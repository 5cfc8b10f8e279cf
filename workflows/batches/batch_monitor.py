"""Seeing a batch through: progress while it runs, its cost when it has ended, the failure when it
did not end well.

In: the client and a batch's id. Out: what there is to know of the batch, as plain values for a
table or a JSON document. Seconds, USD.
"""

from __future__ import annotations

from typing import Any

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
"""At least so long between two lines of progress in one state."""


class BatchNotSucceeded(BatchFailed):
    """A batch that ended otherwise than well. `document` has its facts and `driver_output`, the
    last lines that its driver wrote.
    """

    def __init__(self, facts: dict[str, Any], output: list[str]) -> None:
        self.document = facts | {"driver_output": output}
        said = str(facts["message"] or "").partition(" If logs are available")[0].strip(" .")
        super().__init__(
            f"batch {facts['batch']} is {facts['state']}{f': {said}' if said else ''}. Look at"
            f" {facts['console']}"
        )


class Progress:
    """A line on stderr for each new state, and now and then while one lasts."""

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


def see_through(settings: Settings, batches: Batches, batch_id: str) -> dict[str, Any]:
    """Wait for the end, then for what it used; the cost goes into the ledger where DB_HOST names
    one. Returns: the batch's facts.

    Raises: BatchNotSucceeded, BatchFailed for a batch that went over its time, CloudRefused,
    CloudUnavailable.
    """
    batches.wait(batch_id, Progress())
    batch = _with_usage(batches, batches.get(batch_id))
    found = facts(batches, batch)
    keep_cost(settings, batch_id, actual_or_none(batch))
    if batch["state"] != "SUCCEEDED":
        output = last_lines(settings, batch)
        for line in output:
            say(f"driver: {line}")
        raise BatchNotSucceeded(found, output)
    return found


def _with_usage(batches: Batches, ended: Document) -> Document:
    batch_id = batch_id_of(ended)
    say(f"{batch_id}: {ended['state']}; waiting for what it used")
    try:
        return batches.with_usage(batch_id)
    except KeyboardInterrupt:
        # nothing is left that could be cancelled
        raise Interrupted(
            f"batch {batch_id} is {ended['state']}; `python -m workflows cost {batch_id}` asks"
            " again for what it used"
        ) from None


def facts(batches: Batches, batch: Document) -> dict[str, Any]:
    """What the commands show of a batch. The cost is what the service counted, or None while it has
    not.
    """
    cost = actual_or_none(batch)
    batch_id = batch_id_of(batch)
    labels = batch.get("labels", {})
    return {
        "batch": batch_id,
        "job": labels.get("job"),
        "version": labels.get("version"),
        "state": batch["state"],
        "message": batch.get("stateMessage"),
        "created": batch["createTime"],
        "seconds": round(seconds_until(batch, batches.now()), 1),
        "cost_usd": round(cost.usd, 6) if cost else None,
        "dcu_hours": round(cost.dcu_hours, 4) if cost else None,
        "shuffle_gb_months": round(cost.shuffle_gb_months, 6) if cost else None,
        "output": batch.get("runtimeInfo", {}).get("outputUri"),
        "console": batches.console_url(batch_id),
    }


def actual_or_none(batch: Document) -> Cost | None:
    """What the batch cost; None where the service has not counted it, or the region has no price: a
    state is told without one.
    """
    try:
        return actual_cost(batch)
    except ConfigurationError:
        return None


def cost_so_far(batch: Document, seconds: float) -> Cost | None:
    """What a running batch holds now (runtimeInfo.currentUsage), taken for its whole life so far:
    about right, as executors come and go.
    """
    present = batch.get("runtimeInfo", {}).get("currentUsage")
    if not present:
        return None
    usage = {
        "milliDcuSeconds": str(round(int(present.get("milliDcu", 0)) * seconds)),
        "shuffleStorageGbSeconds": str(round(int(present.get("shuffleStorageGb", 0)) * seconds)),
    }
    return actual_or_none({**batch, "runtimeInfo": {"approximateUsage": usage}})


def keep_cost(settings: Settings, batch_id: str, cost: Cost | None) -> bool:
    """Into the ledger where DB_HOST names one. A ledger out of reach from here is said, and no
    failure of the batch: `cost` can be asked again. Returns: False for such a ledger.
    """
    if cost is None or not settings.db_host:
        return True
    try:
        record_cost(resolve_database(settings), batch_id, cost.usd)
    except (DatabaseError, CloudRefused, CloudUnavailable) as error:
        say(f"the ledger does not have the cost of {batch_id}: {error}")
        return False
    return True


def duration(seconds: float) -> str:
    """Such as 45 s, or 2 min 5 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def last_lines(settings: Settings, batch: Document) -> list[str]:
    """What the batch's driver wrote last, the cause of a failure at the end; nothing where it can't
    be read, which is said.
    """
    uri = batch.get("runtimeInfo", {}).get("outputUri")
    if not uri:
        return []
    try:
        return DriverOutput(settings, uri).last_lines()
    except (CloudRefused, CloudUnavailable) as error:
        say(f"the driver's output can't be read: {error}")
        return []
