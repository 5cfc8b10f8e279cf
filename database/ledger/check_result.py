"""The result of one check, as the run ledger stores it in `checks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["row", "pool_day", "batch"]
Severity = Literal["fail", "warn"]


@dataclass(frozen=True)
class Acceptance:
    """Checks that one run may fail, with the user who accepts them and the reason."""

    names: tuple[str, ...]
    by: str
    reason: str


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of a run; `str()` is `name: message`.

    Attributes:
        name: name of the check.
        passed: whether nothing failed.
        severity: a failed `fail` check prevents the commit, `warn` is reported, `info` is a figure.
        message: describes the result.
        level: unit of `failing`: rows, pool-days or the whole commit; None for a check that counts
            nothing.
        failing: number of failing units; None if they are not counted.
        sample: the first failing rows as JSON values; None if none are kept.
        acceptance: lets the run commit although the check failed.
        figures: further keys of the entry, with JSON values.
    """

    name: str
    passed: bool
    severity: Severity | Literal["info"]
    message: str
    level: Level | None = None
    failing: int | None = None
    sample: Sequence[Mapping[str, Any]] | None = None
    acceptance: Acceptance | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"

    @property
    def blocks_commit(self) -> bool:
        """Whether the run must not commit its rows."""
        return not self.passed and self.severity == "fail" and self.acceptance is None

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the run ledger."""
        # without the names: the entry has its own
        accepted = self.acceptance and {"by": self.acceptance.by, "reason": self.acceptance.reason}
        entry: dict[str, Any] = {
            "name": self.name,
            "level": self.level,
            "severity": self.severity,
            "passed": self.passed,
            "found": self.message,
            "failing": self.failing,
            "sample": self.sample,
            "accepted": accepted,
        }
        return {
            **{key: value for key, value in entry.items() if value is not None},
            **self.figures,
        }
