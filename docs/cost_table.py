"""The table of a month's bill in docs/cloud.md, made by the model, without past runs.

In: the default inputs of a bill, three numbers of pools. Out: the rows between the page's two
marks, or an error where it has none. Run `python -m docs.cost_table` after a change of prices or of
the model; a test compares the page with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from workflows.batches.platform_choice import CLOUD_RUN, DATAPROC
from workflows.costs.bill_inputs import BillInputs
from workflows.costs.monthly_bill import MonthlyBill, PlatformBill, modelled_bill

PAGE = Path(__file__).with_name("cloud.md")
BEGIN, END = "<!-- docs.cost_table -->", "<!-- end of docs.cost_table -->"

POOLS = (200, 2_000, 20_000)

HEAD = (
    "| pools | rows a night, at most | both jobs: batches | both jobs: Cloud Run | Cloud SQL:"
    " instance | disk | backups | the month: batches | the month: Cloud Run |"
)


def cost_table() -> str:
    """Markdown, USD a month."""
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for pools in POOLS:
        cells = _cells(pools, modelled_bill(BillInputs(pools=pools)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(pools: int, bill: MonthlyBill) -> Iterator[str]:
    batches, containers, database = bill.on(DATAPROC), bill.on(CLOUD_RUN), bill.database
    yield f"{pools:,}"
    yield f"{bill.rows:,}"
    yield f"{batches.jobs_usd:.2f}"
    yield _usd(containers, containers.jobs_usd)
    yield f"{database.instance_usd:.2f}"
    yield f"{database.disk_usd:.2f} ({database.disk_gb:.0f} GB)"
    yield f"{database.backup_usd:.2f} ({database.backup_gb:.0f} GB)"
    yield f"{batches.usd:.2f}"
    yield _usd(containers, containers.usd)


def _usd(bill: PlatformBill, usd: float) -> str:
    """A night that is larger than what was measured has no figure."""
    return "too large" if bill.caution else f"{usd:.2f}"


def page_with_table(page: str) -> str:
    """The page with today's table. Raises: ValueError where it lacks a mark."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE.name} must have {BEGIN} and {END}, once each")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{cost_table()}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
