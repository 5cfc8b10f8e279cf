"""Runs one execution of a Cloud Run job to its end: passes on its log, returns its summary.
Durations are seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from cli.terminal import say
from common.errors import BatchFailed, CloudRefused, CloudUnavailable
from config_spark import Settings
from workflows.clients.google_rest import Document
from workflows.clients.interrupts import wait_or_offer_cancel
from workflows.inside_network.container_log import ContainerLog, Line
from workflows.inside_network.job_executions import JobExecutions, end_message, execution_state
from workflows.spec.release_paths import OPERATOR

POLL_SECONDS = 5.0
"""Polling interval; Cloud Logging allows a project 60 listings a minute."""

QUIET_POLLS, FIRST_LINE_POLLS = 3, 8
"""Polls without a new line, after the end, that end the log: entries arrive late. More if not even
its first line has arrived.
"""

SAY_SECONDS = 60.0
"""Interval between progress lines of an execution that writes nothing."""

RELEASE = re.compile(r"\w+ of version (\S+)")
"""First line of container/cloud_run_entry.py."""

NO_RELEASE = (
    "before the first deployment the job has a placeholder image that does nothing; or the log"
    " is late"
)

OnLine = Callable[[Line], object]


@dataclass(frozen=True)
class ContainerSummary:
    """An ended execution as the commands show it; `--json` prints the fields in this order.

    Attributes:
        execution: Short name of the execution.
        job: Short name of the job.
        arguments: Arguments of the container.
        version: Release that the log names; None without such a line.
        state: SUCCEEDED, FAILED or CANCELLED.
        exit_code: Exit code of the container; None if the service does not show it.
        seconds: Duration of the wait for its end.
        console: Address of its log in the Cloud console.
    """

    execution: str
    job: str
    arguments: list[str]
    version: str | None
    state: str
    exit_code: int | None
    seconds: float
    console: str


class ContainerFailed(BatchFailed):
    """An execution that failed or was cancelled.

    Attributes:
        document: `--json` payload: its summary.
        exit_code: The container's exit code; 1 if unknown.
    """

    def __init__(self, summary: ContainerSummary, reason: str) -> None:
        code = summary.exit_code
        self.document: dict[str, Any] = asdict(summary)
        self.exit_code = code or 1
        super().__init__(
            f"execution {summary.execution} ended {summary.state}"
            f"{f' with exit code {code}' if code else ''}{f': {reason}' if reason else ''}. Its"
            f" log: {summary.console}"
        )


def container_arguments(command: Sequence[str], version: str | None = None) -> list[str]:
    """Return the arguments of an operator container.

    Args:
        command: Command to run in the container.
        version: Release; default: the latest.
    """
    return [OPERATOR, *(["--version", version] if version else []), "--", *command]


def run_container(
    settings: Settings,
    job: str,
    arguments: Sequence[str] | None,
    on_line: OnLine,
    *,
    seconds_between: float | None = None,
    owns_cloud: bool = False,
) -> ContainerSummary:
    """Start an execution, pass on its log, and wait for its end.

    Args:
        settings: Project and region.
        job: Short name of the job.
        arguments: Replace the job's own arguments; None keeps them.
        on_line: Receives each line of the log.
        seconds_between: Polling interval; default: POLL_SECONDS.
        owns_cloud: The cloud is emulated in this process; Ctrl-C ends it without a question.

    Raises:
        ContainerFailed: The execution failed or was cancelled.
        CloudRefused, CloudUnavailable: A request failed.
        Interrupted: Ctrl-C ended the wait.
    """
    executions = JobExecutions(settings, job)
    execution = executions.start(arguments)
    name = str(execution["name"])
    execution_id = name.rpartition("/")[2]
    say(f"execution {execution_id}")
    log = ContainerLog(settings, job, execution["createTime"], execution_id)
    printer = _LogPrinter(log, on_line)

    def wait() -> Document:
        return _until_ended(executions, printer, name, seconds_between or POLL_SECONDS)

    started = time.monotonic()
    cancel_command = f"gcloud run jobs executions cancel {execution_id} --region {settings.region}"
    cancel = partial(executions.cancel, name)
    ended = (
        wait()
        if owns_cloud
        else wait_or_offer_cancel(wait, cancel, f"execution {execution_id}", cancel_command)
    )
    state = execution_state(ended)
    summary = ContainerSummary(
        execution=execution_id,
        job=job,
        arguments=ended["template"]["containers"][0].get("args", []),
        version=printer.version,
        state=state,
        exit_code=0 if state == "SUCCEEDED" else executions.exit_code(name),
        seconds=round(time.monotonic() - started, 1),
        console=ended.get("logUri", ""),
    )
    if state != "SUCCEEDED":
        raise ContainerFailed(summary, end_message(ended))
    if printer.version is None:
        say(f"the log of {execution_id} names no release: {NO_RELEASE}")
    return summary


def _until_ended(
    executions: JobExecutions, printer: _LogPrinter, name: str, seconds_between: float
) -> Document:
    """Poll until the execution has ended and its log is complete; report a quiet one every
    SAY_SECONDS.
    """
    started = reported = time.monotonic()
    while execution_state(execution := executions.get(name)) == "RUNNING":
        if printer.new_lines():
            reported = time.monotonic()
        elif time.monotonic() - reported >= SAY_SECONDS:
            reported = time.monotonic()
            say(f"{name.rpartition('/')[2]} has run for {reported - started:.0f} s")
        time.sleep(seconds_between)
    # entries arrive after the container has ended
    quiet_polls = 0
    while (quiet_polls := 0 if printer.new_lines() else quiet_polls + 1) < printer.polls_to_end:
        time.sleep(seconds_between)
    return execution


class _LogPrinter:
    """Passes on a log. An unreadable log is reported and does not fail the execution."""

    def __init__(self, log: ContainerLog, on_line: OnLine) -> None:
        self._log = log
        self._on_line = on_line
        self._read_error = ""
        self.version: str | None = None

    @property
    def polls_to_end(self) -> int:
        return QUIET_POLLS if self.version or self._read_error else FIRST_LINE_POLLS

    def new_lines(self) -> bool:
        """Pass on the new lines; return whether there were any."""
        try:
            lines = self._log.read_new()
        except (CloudRefused, CloudUnavailable) as error:
            if str(error) != self._read_error:
                self._read_error = str(error)
                say(f"the log cannot be read: {error}")
            return False
        for line in lines:
            match = RELEASE.fullmatch(line.text)
            # the first line of this form; the command's own output may have another
            self.version = self.version or (match[1] if match else None)
            self._on_line(line)
        return bool(lines)
