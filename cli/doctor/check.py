"""The parts of a check of `doctor`: what it examines, what it found, and how it is run.

A check that fails to run is a failed check, and one that takes too long in the database is a
warning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from common.errors import CheckUnfinished, YieldSparkError, summarize_error
from config_spark import Settings

Result = Literal["ok", "warn", "fail"]

OWN_HOME = "set YIELDSPARK_HOME to a folder that you may read and write"


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        result: `ok`, `warn` (jobs run with restrictions) or `fail` (a job would fail).
        found: the observation, in a sentence or a few words.
        fix: next step; empty if there is none.
    """

    result: Result
    found: str
    fix: str = ""


@dataclass(frozen=True)
class DoctorResult:
    """Result of one check, as `--json` prints it; see `Finding`."""

    name: str
    result: Result
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: name of the check.
        examine: prints, installs, starts and changes nothing.
        fix: next step if `examine` raises an error.
    """

    name: str
    examine: Callable[[Settings], Finding]
    fix: str

    def run(self, settings: Settings) -> DoctorResult:
        """Return the finding; an error of the product or the system is one too."""
        try:
            finding = self.examine(settings)
        except CheckUnfinished as error:
            finding = Finding("warn", str(error), "run `doctor` again later")
        except (YieldSparkError, OSError) as error:
            finding = self._failure(error)
        return DoctorResult(self.name, *finding)

    def _failure(self, error: YieldSparkError | OSError) -> Finding:
        # the product's own errors carry the system's as their cause
        is_of_rights = any(isinstance(part, PermissionError) for part in (error, error.__cause__))
        return Finding(
            "fail",
            str(error) if isinstance(error, YieldSparkError) else summarize_error(error),
            OWN_HOME if is_of_rights else self.fix,
        )
