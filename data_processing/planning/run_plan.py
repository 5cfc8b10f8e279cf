"""The plan of one metrics run, as data: what it reads and writes, and why.

In: what `plan` has decided. Out: a frozen `Plan`, and the plain JSON that the ledger keeps of it.
Days are UTC, intervals half-open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

from data_processing.planning.last_run import LastRun, SeenRows
from data_processing.planning.plan_statistics import Part
from data_processing.planning.run_request import Mode, Request
from data_processing.raw.history import impossible_rows
from data_processing.raw.market_series import MarketDay


@dataclass(frozen=True)
class Plan:
    """One run: which days of which pools, why, and what it reads.

    `schema` is that of the owner's tables, `metrics_table` the one that is written. `end` is
    exclusive: the run's end, or the backfill's. `since` is the last good run's `new_from`: raw
    rows inserted before it are known. `watermark` is what the next run starts from, `seen` what
    it compares the newest arrivals with, `unused_since` when the first of the known rows was
    inserted whose day is left to it. `warnings` are sentences on clocks that went back, on the
    `rows_unread`, and on a source that rewrites its history, which `is_rewritten` says.
    `rows_unread` and `known_snapshots`, what is known of each day after the run, are not
    counted where there is nothing to do, and None where counting took too long. `days` bounds
    the rows to write; `rows_expected_to_change` estimates how many of them will differ.
    `days_missing`, `days_without_raw_rows` and `rows_to_quarantine` are None where they were
    not counted. `market` is the series the run uses and stores. `previous` is the last good
    run, whatever its rules were and whatever was asked for now.
    """

    request: Request
    mode: Mode
    now: datetime
    watermark: datetime
    rules: Mapping[str, Any]
    schema: str
    metrics_table: str
    table: str
    start: date | None = None
    end: date | None = None
    provisional_from: date | None = None
    since: datetime | None = None
    unused_since: datetime | None = None
    pools: int = 0
    days: int = 0
    days_missing: int | None = None
    days_without_raw_rows: int | None = None
    rows_to_read: int = 0
    rows_expected_to_change: int = 0
    rows_to_quarantine: int | None = None
    estimated_seconds: float = 0.0
    estimated_cost_usd: float | None = None
    parts: tuple[Part, ...] = ()
    market: tuple[MarketDay, ...] = ()
    previous: LastRun | None = None
    seen: SeenRows | None = None
    warnings: tuple[str, ...] = ()
    rows_unread: int | None = None
    known_snapshots: Mapping[date, int] | None = field(default_factory=dict)
    is_rewritten: bool = False

    @property
    def is_empty(self) -> bool:
        return self.pools == 0 and self.rows_to_read == 0

    @property
    def is_partial(self) -> bool:
        """A backfill, or a run of some pools: it leaves other days or pools behind, and no later
        run may build on it.
        """
        return self.request.is_partial

    @property
    def complete_market(self) -> tuple[MarketDay, ...]:
        """The days of the series that the next run may rely on."""
        return tuple(day for day in self.market if self.end and day.date < self.end)

    @property
    def impossible_rows(self) -> str | None:
        """The condition for raw rows of no possible day, which a partial run leaves alone."""
        if self.is_partial:
            return None
        # those of the last run's watermark or later were left to this one, seen or not
        since = min(self.since, self.previous.watermark) if self.since and self.previous else None
        return impossible_rows(self.now, since, self.watermark)

    @property
    def reasons(self) -> dict[str, int]:
        """Pools by reason. A pool may have several."""
        return {part.reason: part.pools for part in self.parts}

    def public(self) -> dict[str, Any]:
        """What the ledger keeps and a dry run prints: plain JSON values."""
        hidden = {"now", "table", "market", "parts", "rules", "request", "previous"}
        hidden |= {"seen", "warnings", "known_snapshots", "is_rewritten"}
        values = {name: value for name, value in vars(self).items() if name not in hidden}
        return {
            **{name: _plain(value) for name, value in values.items()},
            "reasons": self.reasons,
            "parts": [
                {name: _plain(value) for name, value in asdict(part).items()} for part in self.parts
            ],
            "rules": dict(self.rules),
            "seen": self.seen.public() if self.seen else None,
            "warnings": list(self.warnings),
            "request": self.request.public(),
        }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value
