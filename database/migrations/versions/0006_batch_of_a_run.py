"""Which batch of the cloud a run was: what the batch cost finds its row by it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"


def upgrade() -> None:
    op.add_column(
        "run_ledger",
        sa.Column(
            "batch", sa.Text(), comment="id of the cloud's batch that this run was; null elsewhere"
        ),
        schema=SCHEMA,
    )
    op.create_index("run_ledger_batch_idx", "run_ledger", ["batch"], schema=SCHEMA)
