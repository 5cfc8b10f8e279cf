"""Defines the plan of one metrics run as data: request, decision, statistics and warnings.

Converts a plan to the plain JSON that the run ledger stores and a dry run prints. Days are UTC,
intervals half-open. Does not read the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

from data_processing.planning.last_run import ArrivalDigests, LastRun
from data_processing.planning.plan_statistics import PlanStatistics
from data_processing.planning.run_request import Mode, Request
from data_processing.raw.history import out_of_range_rows
from data_processing.raw.market_series import MarketDay
from spark.executor_choice import ExecutorChoice


@dataclass(frozen=True)
class Decision:
    """Mode, interval and inputs of a run.

    Attributes:
        mode: incremental, backfill or full_refresh.
        now: clock of the run, UTC; a later raw row is in the future.
        watermark: insertion timestamp from which the next run looks for new rows.
        rules: versions and limits that decide a metric's value; another value forces a full
            refresh.
        schema: schema of the owner's tables.
        metrics_table: name of the table that the run writes.
        table: qualified name of the plan's table, one row for each pool to recompute.
        end: end of the run or of the backfill, exclusive; None if raw history is empty.
        provisional_from: first day that is not over and is computed anyway; None without one.
        since: raw rows inserted before this moment are known; None if all rows are read.
        unused_since: insertion of the first raw row whose day is left to the next run.
        market: the market series that the run uses and stores.
        previous: the last good run, whatever its rules and the current request.
        arrivals: digests of the newest arrivals, which the next run compares.
        is_rewritten: whether every raw row was inserted since the last good run.
    """

    mode: Mode
    now: datetime
    watermark: datetime
    rules: Mapping[str, Any]
    schema: str
    metrics_table: str
    table: str
    end: date | None = None
    provisional_from: date | None = None
    since: datetime | None = None
    unused_since: datetime | None = None
    market: tuple[MarketDay, ...] = ()
    previous: LastRun | None = None
    arrivals: ArrivalDigests | None = None
    is_rewritten: bool = False


@dataclass(frozen=True)
class Plan:
    """One run: what the caller requests, what the run does, how much it reads and writes.

    Attributes:
        request: the caller's request.
        decision: mode, interval and inputs.
        statistics: counts and estimates.
        day_counts: snapshots that the runs know of each UTC day after this run; None if the
            count took too long, empty if there is nothing to do.
        warnings: messages on clocks, unread rows and a rewritten source.
        executor: what computes the run; None if it has nothing to compute.
    """

    request: Request
    decision: Decision
    statistics: PlanStatistics = field(default_factory=PlanStatistics)
    day_counts: Mapping[date, int] | None = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    executor: ExecutorChoice | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the run has no pool to recompute and no raw row to read."""
        return self.statistics.pools == 0 and self.statistics.rows_to_read == 0

    @property
    def is_partial(self) -> bool:
        """Whether the run leaves out days or pools, so that no later run may build on it."""
        return self.request.is_partial

    @property
    def complete_market(self) -> tuple[MarketDay, ...]:
        """Days of the market series on which the next run may rely."""
        end = self.decision.end
        return tuple(day for day in self.decision.market if end and day.date < end)

    @property
    def out_of_range_rows(self) -> str | None:
        """Condition for raw rows of an impossible day; None for a partial run, which skips them."""
        if self.is_partial:
            return None
        since, previous = self.decision.since, self.decision.previous
        # the last run left rows from its watermark on to this run, whether it saw them or not
        since = min(since, previous.watermark) if since and previous else None
        return out_of_range_rows(self.decision.now, since, self.decision.watermark)

    @property
    def pools_by_reason(self) -> dict[str, int]:
        """Number of pools for each reason. A pool may have several reasons."""
        return {part.reason: part.pools for part in self.statistics.parts}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values, as the ledger stores it and a dry run prints it."""
        decision, statistics = self.decision, self.statistics
        values = {
            "mode": decision.mode,
            "watermark": decision.watermark,
            "schema": decision.schema,
            "metrics_table": decision.metrics_table,
            "start": statistics.start,
            "end": decision.end,
            "provisional_from": decision.provisional_from,
            "since": decision.since,
            "unused_since": decision.unused_since,
            "pools": statistics.pools,
            "days": statistics.days,
            "days_missing": statistics.days_missing,
            "days_without_raw_rows": statistics.days_without_raw_rows,
            "rows_to_read": statistics.rows_to_read,
            "rows_expected_to_change": statistics.rows_expected_to_change,
            "rows_to_quarantine": statistics.rows_to_quarantine,
            "estimated_seconds": statistics.estimated_seconds,
            "estimated_cost_usd": statistics.estimated_cost_usd,
            "rows_unread": statistics.rows_unread,
            "executor": self.executor.name if self.executor else None,
            "executor_reason": self.executor.reason if self.executor else None,
        }
        return {
            **_json_values(values),
            "reasons": self.pools_by_reason,
            "parts": [_json_values(asdict(part)) for part in statistics.parts],
            "rules": dict(decision.rules),
            "seen": decision.arrivals.to_json() if decision.arrivals else None,
            "warnings": list(self.warnings),
            "request": self.request.to_json(),
        }


def _json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in values.items()
    }
