"""Which released versions something still runs: batches that have not ended, and executions of the
workflow.

In: settings. Out: version to reason. An execution uses one version from its first step to its last
and reads files of it when its second job starts, so that between two batches its version is in use
as well. A container of Cloud Run has copied its files before its job starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from common.errors import RunInProgress
from common.jobs import job_names
from config_spark import Settings
from workflows.clients.dataproc import TERMINAL, Batches, batch_id_of
from workflows.clients.executions import Executions
from workflows.spec.batch_request import batch_id

NOT_ENDED = ("PENDING", "RUNNING", "CANCELLING")


def versions_in_use(settings: Settings) -> dict[str, str]:
    """Versions in CODE_BUCKET with what uses each.

    Raises: RunInProgress for an execution that does not show its version yet; ConfigurationError,
    CloudRefused, CloudUnavailable: what is in use is never guessed.
    """
    executions, batches = Executions(settings), Batches(settings)
    active = executions.active()
    running = [batch for state in NOT_ENDED for batch in batches.list(state=state)]
    found = {
        version: f"batch {batch_id_of(batch)} is {batch['state']}"
        for batch in running
        if batch["state"] not in TERMINAL and (version := _version_of(settings, batch))
    }
    for execution in active:
        name = str(execution["name"]).rpartition("/")[2]
        version = _argument(execution).get("version") or _of_its_batches(
            settings, name, [*running, *batches.list(since=_began(execution))]
        )
        if version is None:
            raise RunInProgress(
                f"execution {name} of {settings.workflow_name} is running since"
                f" {_began(execution):%Y-%m-%dT%H:%M:%SZ}, and which version it uses is not to be"
                " seen: prune again when it is over"
            )
        found[version] = f"execution {name} is ACTIVE"
    return found


def _argument(execution: dict[str, Any]) -> dict[str, Any]:
    argument = json.loads(execution.get("argument") or "null")
    return argument if isinstance(argument, dict) else {}


def _of_its_batches(
    settings: Settings, execution: str, batches: Iterable[dict[str, Any]]
) -> str | None:
    """The version that an execution took from latest.json, by what its batches run."""
    names = {batch_id(name, execution) for name in job_names()}
    versions = (_version_of(settings, batch) for batch in batches if batch_id_of(batch) in names)
    return next((version for version in versions if version), None)


def _version_of(settings: Settings, batch: dict[str, Any]) -> str | None:
    """None for a batch of another bucket."""
    main = batch.get("pysparkBatch", {}).get("mainPythonFileUri", "")
    found = re.fullmatch(rf"gs://{re.escape(str(settings.code_bucket))}/versions/([^/]+)/.*", main)
    return found and found[1]


def _began(execution: dict[str, Any]) -> datetime:
    """UTC without a zone, as `Batches.list` takes it."""
    began = datetime.fromisoformat(execution.get("startTime") or execution["createTime"])
    return began.astimezone(UTC).replace(tzinfo=None)
