"""The lease of runs that hold no connection."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "run_ledger",
        sa.Column(
            "lease_expires_at",
            sa.DateTime(timezone=True),
            comment="a run without a connection is alive until then; null for a run with a lock",
        ),
        schema="yieldspark",
    )
