"""Runs many nights of the emulated workflow with a fault a night, and checks the result.

Every night new, late, corrected and broken rows of 500 generated pools arrive, and the schedule
starts the workflow, on a clock of its own. At the end: tables equal a full recompute, accepted +
quarantined = inserted, no staging table is left, every night is in the ledger, and the alerts of
terraform/monitoring.tf fired where they should and nowhere else. The exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from benchmarks.metrics_table import machine_facts
from benchmarks.soak import source as soak_source
from benchmarks.soak.alerts import forecast_alerts
from benchmarks.soak.checks import Check, check_all
from benchmarks.soak.faults import FAULTS
from benchmarks.soak.nights import ARRIVAL, Night, night_time, run_nights
from benchmarks.soak.source import KINDS, Source
from benchmarks.soak.world import soak_world

MARKET_DAYS = 5
"""Days of prices and gas before the first day of the pools."""

TERMINATED = 128 + signal.SIGTERM

HEADER = ("night", "data end on", "fault", "source", *KINDS, "executions", "alerts", "s")


@dataclass(frozen=True)
class Result:
    """A soak that has ended.

    Attributes:
        seed: seed of the rows and faults.
        nights: the nights, in order.
        days: the days that their data end on.
        checks: what must hold at the end.
        seconds: real duration, with the start and the checks.
    """

    seed: int
    nights: Sequence[Night]
    days: Sequence[str]
    checks: Sequence[Check]
    seconds: float

    @property
    def passed(self) -> bool:
        return not any(check.problems for check in self.checks)

    def payload(self) -> dict[str, Any]:
        """Return the `--json` payload."""
        return {
            "seed": self.seed,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "nights": [
                {
                    "night": night.number,
                    "data_end_on": day,
                    "fault": night.fault_name,
                    "source": night.source,
                    "rows": night.rows,
                    "executions": [execution.outcome for execution in night.executions],
                    "alerts": night.fired,
                    "seconds": round(night.seconds, 1),
                }
                for night, day in zip(self.nights, self.days, strict=True)
            ],
            "checks": [asdict(check) for check in self.checks],
        }


def soak(pools: int, days: int, nights: int, seed: int, faults: Sequence[str]) -> Result:
    """Run the nights and check the result.

    Args:
        pools: number of pools.
        days: days of history before the first night.
        nights: number of nights; the last one is last night.
        seed: of rows and faults.
        faults: names of the faults that may happen.
    """
    began = monotonic()
    today = datetime.now(UTC).date()
    source = Source(pools, today - timedelta(days=days + nights + 1), days, nights, seed)
    with soak_world(night_time(source, -1, ARRIVAL)) as world:
        soak_source.insert_pools(world.engine, pools)
        first = source.first - timedelta(days=MARKET_DAYS)
        soak_source.insert_market(world.engine, first, source.day(-1))
        soak_source.insert(world.engine, source.history())
        chosen = [fault for fault in FAULTS if fault.name in faults]

        def finish(night: Night) -> None:
            night.expected = forecast_alerts(world, night)
            _tell(night)

        ended = run_nights(world, source, chosen, seed, finish)
        checks = check_all(world, source, ended, night_time(source, nights, ARRIVAL))
    names = [str(source.day(night.number)) for night in ended]
    return Result(seed, ended, names, checks, monotonic() - began)


def _tell(night: Night) -> None:
    states = ", ".join(execution.outcome for execution in night.executions)
    print(
        f"night {night.number}: {night.fault_name}: {states} ({night.seconds:.0f} s)",
        *night.problems,
        file=sys.stderr,
        flush=True,
        sep="\n  ",
    )


def result_text(result: Result) -> str:
    """Format the nights and checks as Markdown tables."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for night, day in zip(result.nights, result.days, strict=True):
        cells = [
            night.number,
            day,
            night.fault_name,
            night.source,
            *(night.rows[kind] for kind in KINDS),
            ", ".join(execution.outcome for execution in night.executions),
            ", ".join(night.fired),
            f"{night.seconds:.0f}",
        ]
        lines.append(_line(cells))
    lines += ["", _line(("check", "found", "result")), _line(["---"] * 3)]
    for check in result.checks:
        lines.append(_line((check.name, check.found, "FAILED" if check.problems else "passed")))
        lines += [_line(("", problem, "")) for problem in check.problems]
    return "\n".join(lines)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--pools", type=int, default=500)
    parser.add_argument("--days", type=int, default=130, help="history before the first night")
    parser.add_argument("--seed", type=int, help="of rows and faults (default: a random one)")
    parser.add_argument(
        "--faults", default=",".join(names), help="names, separated by commas (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    faults = options.faults.split(",")
    if unknown := sorted(set(faults) - set(names)):
        parser.error(f"--faults has {', '.join(unknown)}; allowed: {', '.join(names)}")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    # the default of SIGTERM ends the process without the servers that it has started
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        result = soak(options.pools, options.days, options.nights, seed, faults)
    finally:
        signal.signal(signal.SIGTERM, before)
    if options.json:
        print(json.dumps(result.payload(), indent=1))
    else:
        print(*(f"{name}: {value}" for name, value in machine_facts().items()), sep="\n")
        print(f"seed {seed}, {result.seconds / 60:.1f} min\n\n{result_text(result)}")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
