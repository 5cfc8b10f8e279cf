"""Rows of days that were not over when INCLUDE_TODAY computed them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provisional_days",
        sa.Column("pool_id", sa.Text(), primary_key=True),
        sa.Column("date", sa.Date(), primary_key=True),
        sa.Column("apy_age_days", sa.Integer(), comment="as in observation_age"),
        sa.Column("tvl_age_days", sa.Integer(), comment="as in observation_age"),
        sa.Column("metrics_table", sa.Text(), nullable=False, comment="the table that has the row"),
        sa.Column("run_id", sa.Text(), nullable=False),
        schema="yieldspark",
        comment=(
            "rows of the metrics table whose day was not over when a run with INCLUDE_TODAY"
            " computed them: the next run makes them again or takes them away"
        ),
    )
