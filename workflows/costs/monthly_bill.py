"""Monthly list price on each platform: both jobs every day, and Cloud SQL. Network, logs, storage
and operator commands cost cents at this size and are not included. Performs no I/O.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from workflows.costs.bill_inputs import SOURCES, BillInputs
from workflows.costs.cost import prices
from workflows.costs.daily_cost import MODELLED_JOBS, DailyJobCost, daily_job_cost
from workflows.costs.database_cost import DatabaseCost, database_cost
from workflows.costs.measured_inputs import BillBasis
from workflows.spec.platform_choice import (
    CLOUD_RUN,
    CLOUD_RUN_ROWS,
    CONTAINER_GIB,
    MEASURED_ENGINE,
    PLATFORMS,
    PlatformChoice,
    PlatformName,
    choice_for,
)


@dataclass(frozen=True)
class PlatformBill:
    """USD of a month on one platform. `caution` is None, or the reason to distrust the figure."""

    platform: PlatformName
    jobs: tuple[DailyJobCost, ...]
    jobs_usd: float
    database_usd: float
    caution: str | None

    @property
    def usd(self) -> float:
        """Return the USD of jobs and database."""
        return self.jobs_usd + self.database_usd


@dataclass(frozen=True)
class MonthlyBill:
    """Bills of all platforms; `choice` is PLATFORM=auto's for a daily run of this size."""

    basis: BillBasis
    platforms: tuple[PlatformBill, ...]
    database: DatabaseCost
    choice: PlatformChoice

    def on(self, platform: PlatformName) -> PlatformBill:
        """Return the bill of one platform."""
        return next(bill for bill in self.platforms if bill.platform == platform)

    @property
    def rows(self) -> int:
        """Return the rows of the larger job, a value for EXPECTED_ROWS."""
        return _largest(self.platforms[0].jobs)

    def document(self) -> dict[str, Any]:
        """Return the `--json` payload: results, inputs with sources, prices."""
        inputs = self.basis.inputs
        rates = prices()
        serverless = {
            name: value for name, value in rates["serverless"].items() if name != "regions"
        }
        return {
            "platforms": [asdict(bill) | {"usd": bill.usd} for bill in self.platforms],
            "database": asdict(self.database) | {"usd": self.database.usd},
            "rows": self.rows,
            "platform": self.choice.platform,
            "platform_reason": self.choice.reason,
            "inputs": asdict(inputs),
            "sources": dict(self.basis.sources),
            "measured_from": {
                name: list(batches) for name, batches in self.basis.measured_from.items()
            },
            "prices": {
                "read_on": rates["read_on"],
                "serverless": serverless | rates["serverless"]["regions"][inputs.region],
                "cloud_run": rates["cloud_run"],
                "cloud_sql": rates["cloud_sql"]["regions"][self.database.price_region]
                | {"read_on": rates["cloud_sql"]["read_on"]},
            },
        }


def modelled_bill(inputs: BillInputs) -> MonthlyBill:
    """Return the bill by the model, without past runs."""
    return monthly_bill(BillBasis(inputs, SOURCES, {}))


def monthly_bill(basis: BillBasis) -> MonthlyBill:
    """Return the bill.

    Raises:
        ConfigurationError: A region or tier has no price, or no machine holds the rows of a
            forecast.
    """
    database = database_cost(basis.inputs)
    bills = tuple(_bill(platform, basis.inputs, database) for platform in PLATFORMS)
    rows = _largest(bills[0].jobs)
    return MonthlyBill(basis, bills, database, choice_for(rows, basis.inputs.engine))


def _bill(platform: PlatformName, inputs: BillInputs, database: DatabaseCost) -> PlatformBill:
    jobs = tuple(daily_job_cost(job, platform, inputs) for job in MODELLED_JOBS)
    caution = None
    if platform == CLOUD_RUN and choice_for(_largest(jobs), inputs.engine).platform != CLOUD_RUN:
        caution = (
            f"{_largest(jobs):,} rows by {inputs.engine} are beyond what was measured:"
            f" {CLOUD_RUN_ROWS:,} by {MEASURED_ENGINE} in {CONTAINER_GIB} GiB"
        )
    # `nights` is a key of the `--json` payload: the daily runs of a month
    usd = inputs.nights * sum(job.usd for job in jobs)
    return PlatformBill(platform, jobs, usd, database.usd, caution)


def _largest(jobs: tuple[DailyJobCost, ...]) -> int:
    return max(job.rows for job in jobs)
