"""The table of a month's bill in docs/guides/cloud-operations.md, from the cost model without
past runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from docs.generate.marked_table import markdown_table, replace_between
from workflows.costs.bill_inputs import BillInputs
from workflows.costs.monthly_bill import PlatformBill, modelled_bill
from workflows.spec.platform_choice import CLOUD_RUN, DATAPROC

POOLS = (200, 2_000, 20_000)

HEADS = (
    "pools",
    "rows of a run, at most",
    "both jobs: batches",
    "both jobs: Cloud Run",
    "the same with a JVM",
    "Cloud SQL: instance",
    "disk",
    "backups",
    "month: batches",
    "month: Cloud Run",
)


def cost_table() -> str:
    """Markdown, USD a month."""
    return markdown_table(HEADS, [tuple(_cells(pools)) for pools in POOLS])


def _cells(pools: int) -> Iterator[str]:
    bill = modelled_bill(BillInputs(pools=pools))
    with_jvm = modelled_bill(BillInputs(pools=pools, executor="spark")).on(CLOUD_RUN)
    batches, containers, database = bill.on(DATAPROC), bill.on(CLOUD_RUN), bill.database
    yield f"{pools:,}"
    yield f"{bill.rows:,}"
    yield f"{batches.jobs_usd:.2f}"
    yield _usd(containers, containers.jobs_usd)
    yield _usd(with_jvm, with_jvm.jobs_usd)
    yield f"{database.instance_usd:.2f}"
    yield f"{database.disk_usd:.2f} ({database.disk_gb:.0f} GB)"
    yield f"{database.backup_usd:.2f} ({database.backup_gb:.0f} GB)"
    yield f"{batches.usd:.2f}"
    yield _usd(containers, containers.usd)


def _usd(bill: PlatformBill, usd: float) -> str:
    """A run that is larger than what was measured has no figure."""
    return "too large" if bill.caution else f"{usd:.2f}"


def page_with_costs(page: str) -> str:
    """The page with today's table. Raises: ValueError where it lacks a mark."""
    return replace_between(page, "monthly cost", cost_table())
