"""How many raw snapshots of each day the metrics runs know: rows that came with an old
insertion_timestamp are found by it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"


def upgrade() -> None:
    op.create_table(
        "raw_day_counts",
        sa.Column("date", sa.Date(), primary_key=True),
        sa.Column("snapshots", sa.Integer(), nullable=False),
        schema=SCHEMA,
        comment=(
            "raw snapshots of each day that the metrics runs have read or known: more of them in"
            " raw history than here, and not new either, came with an old insertion_timestamp"
        ),
    )
