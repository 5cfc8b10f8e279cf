"""Finds the versions that running batches and executions use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from common.errors import RunInProgress
from common.jobs import job_names
from config_spark import Settings
from workflows.clients.dataproc import TERMINAL, Batches, batch_id_of
from workflows.clients.executions import Executions
from workflows.spec.batch_request import batch_id

NOT_ENDED = ("PENDING", "RUNNING", "CANCELLING")


def versions_in_use(settings: Settings) -> dict[str, str]:
    """Return the versions in CODE_BUCKET that are in use, with what uses each.

    Raises:
        RunInProgress: An execution does not show its version yet.
        ConfigurationError: A setting is missing.
        CloudRefused: Google rejected a request; the use is never guessed.
        CloudUnavailable: Google cannot be reached.
    """
    executions, batches = Executions(settings), Batches(settings)
    # executions first: a batch that one of them creates meanwhile is listed below
    active = executions.active()
    running = list(chain.from_iterable(batches.list(state=state) for state in NOT_ENDED))
    users = {
        version: f"batch {batch_id_of(batch)} is {batch['state']}"
        for batch in running
        if batch["state"] not in TERMINAL and (version := _version_of(settings, batch))
    }
    # between its two batches, an execution still needs the files of its version; a container of
    # Cloud Run has copied them before its job starts
    for execution in active:
        name = str(execution["name"]).rpartition("/")[2]
        version = _argument(execution).get("version") or _version_of_batches(
            settings, name, [*running, *batches.list(since=_start_of(execution))]
        )
        if version is None:
            raise RunInProgress(
                f"execution {name} of {settings.workflow_name} is running since"
                f" {_start_of(execution):%Y-%m-%dT%H:%M:%SZ}, and its version is not visible yet;"
                " prune again after it has ended"
            )
        users[version] = f"execution {name} is ACTIVE"
    return users


def _argument(execution: dict[str, Any]) -> dict[str, Any]:
    argument = json.loads(execution.get("argument") or "null")
    return argument if isinstance(argument, dict) else {}


def _version_of_batches(
    settings: Settings, execution: str, batches: Iterable[dict[str, Any]]
) -> str | None:
    """Return the version that an execution took from latest.json, by what its batches run."""
    names = {batch_id(name, execution) for name in job_names()}
    versions = (_version_of(settings, batch) for batch in batches if batch_id_of(batch) in names)
    return next((version for version in versions if version), None)


def _version_of(settings: Settings, batch: dict[str, Any]) -> str | None:
    """Return a batch's version; None if it runs from another bucket."""
    entry_uri = batch.get("pysparkBatch", {}).get("mainPythonFileUri", "")
    match = re.fullmatch(
        rf"gs://{re.escape(str(settings.code_bucket))}/versions/([^/]+)/.*", entry_uri
    )
    return match and match[1]


def _start_of(execution: dict[str, Any]) -> datetime:
    """Return an execution's start, UTC without a zone, as `Batches.list` takes it."""
    start = datetime.fromisoformat(execution.get("startTime") or execution["createTime"])
    return start.astimezone(UTC).replace(tzinfo=None)
