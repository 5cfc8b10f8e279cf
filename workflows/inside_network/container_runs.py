"""Seeing one execution of a Cloud Run job through: its log while it runs, its exit code when it has
ended.

In: settings, a job, the container's arguments. Out: lines as they come, then a document of what
became of it. Seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial

from cli.terminal import say
from common.errors import BatchFailed, CloudRefused, CloudUnavailable
from config_spark import Settings
from workflows.clients.google_rest import Document
from workflows.clients.waiting import wait_or_ask
from workflows.inside_network.container_log import ContainerLog, Line
from workflows.inside_network.job_executions import JobExecutions, state_of, why
from workflows.spec.release_paths import OPERATOR

LOOK_SECONDS = 5.0
"""Between two looks: Cloud Logging answers a project 60 listings a minute."""

SILENT_LOOKS, FIRST_LOOKS = 3, 8
"""So many looks without a new line after the end are the end of the log, whose entries come late;
more of them where not even its first line has come.
"""

SAY_SECONDS = 60.0

RELEASE = re.compile(r"\w+ of version (\S+)")
"""What container/cloud_run_entry.py says first."""

NO_RELEASE = (
    "before a first deployment the job has another image, which does nothing and succeeds; or the"
    " log is late"
)

Show = Callable[[Line], object]


class ContainerFailed(BatchFailed):
    """An execution that ended otherwise than well. `exit_code` is its container's, 1 where that is
    not known; `document` has its facts.
    """

    def __init__(self, document: Document, reason: str) -> None:
        code = document["exit_code"]
        self.document = document
        self.exit_code = code or 1
        super().__init__(
            f"execution {document['execution']} ended {document['state']}"
            f"{f' with exit code {code}' if code else ''}{f': {reason}' if reason else ''}. Its"
            f" log: {document['console']}"
        )


def container_arguments(words: Sequence[str], version: str | None = None) -> list[str]:
    """Returns the arguments of an operator container; version None selects the latest release."""
    return [OPERATOR, *(["--version", version] if version else []), "--", *words]


def run_container(
    settings: Settings,
    job: str,
    arguments: Sequence[str] | None,
    show: Show,
    *,
    seconds_between: float | None = None,
    ends_with_us: bool = False,
) -> Document:
    """Start an execution and see it through: `{"execution", "job", "arguments", "version", "state",
    "exit_code", "seconds", "console"}`. The version is the one that the log names, else None.

    Args: arguments None are the job's own. show gets each line of its log. seconds_between two
    looks are LOOK_SECONDS where they are not given. ends_with_us is for a cloud that this process
    is: on Ctrl-C there is nothing to ask.
    Raises: ContainerFailed, CloudRefused, CloudUnavailable, Interrupted.
    """
    executions = JobExecutions(settings, job)
    started = executions.start(arguments)
    name = str(started["name"])
    short = name.rpartition("/")[2]
    say(f"execution {short}")
    shown = _Shown(ContainerLog(settings, job, started["createTime"], short), show)

    def wait() -> Document:
        return _until_ended(executions, shown, name, seconds_between or LOOK_SECONDS)

    began = time.monotonic()
    how = f"gcloud run jobs executions cancel {short} --region {settings.region}"
    ended = (
        wait()
        if ends_with_us
        else wait_or_ask(wait, partial(executions.cancel, name), f"execution {short}", how)
    )
    state = state_of(ended)
    document = {
        "execution": short,
        "job": job,
        "arguments": ended["template"]["containers"][0].get("args", []),
        "version": shown.version,
        "state": state,
        "exit_code": 0 if state == "SUCCEEDED" else executions.exit_code(name),
        "seconds": round(time.monotonic() - began, 1),
        "console": ended.get("logUri", ""),
    }
    if state != "SUCCEEDED":
        raise ContainerFailed(document, why(ended))
    if shown.version is None:
        say(f"{short} did not say which release it ran: {NO_RELEASE}")
    return document


def _until_ended(
    executions: JobExecutions, shown: _Shown, name: str, seconds_between: float
) -> Document:
    """Look every few seconds, and say once a minute that a silent one goes on. Returns: the
    execution as it ended.
    """
    began = said = time.monotonic()
    while state_of(execution := executions.get(name)) == "RUNNING":
        if shown.new_lines():
            said = time.monotonic()
        elif time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            say(f"{name.rpartition('/')[2]} goes on for {said - began:.0f} s")
        time.sleep(seconds_between)
    silent = 0
    while (silent := 0 if shown.new_lines() else silent + 1) < shown.looks_to_its_end:
        time.sleep(seconds_between)
    return execution


class _Shown:
    """What was shown of a log. A log that can't be read is said, and no failure of what runs."""

    def __init__(self, log: ContainerLog, show: Show) -> None:
        self._log = log
        self._show = show
        self._complaint = ""
        self.version: str | None = None

    @property
    def looks_to_its_end(self) -> int:
        return SILENT_LOOKS if self.version or self._complaint else FIRST_LOOKS

    def new_lines(self) -> bool:
        """Show what came; returns whether anything did."""
        try:
            lines = self._log.read_on()
        except (CloudRefused, CloudUnavailable) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                say(f"the log can't be read: {error}")
            return False
        for line in lines:
            said = RELEASE.fullmatch(line.text)
            self.version = self.version or (said[1] if said else None)
            self._show(line)
        return bool(lines)
