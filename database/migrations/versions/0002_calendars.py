"""A row a pool for its calendar; ages only for days on which something was not observed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NEW_COMMENT = (
    "the days on which APY or TVL was not observed; a day of the metrics job that has no row here"
    " has both of its own"
)
OLD_COMMENT = (
    "tells an observed value of pool_daily_metrics from a carried one; one row for each of the"
    " metrics job's rows"
)


def upgrade() -> None:
    op.create_table(
        "pool_calendars",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column(
            "last_observed_day", sa.Date(), comment="the newest day with a snapshot of its own"
        ),
        sa.PrimaryKeyConstraint("pool_id"),
        schema="yieldspark",
        comment=(
            "the days of pool_daily_metrics that the metrics job wrote for a pool: every day from"
            " first_day to last_day"
        ),
    )
    op.execute(
        "INSERT INTO yieldspark.pool_calendars SELECT pool_id, min(date), max(date), max(date)"
        " FILTER (WHERE apy_age_days = 0 OR tvl_age_days = 0) FROM yieldspark.observation_age GROUP"
        " BY pool_id"
    )
    op.execute("DELETE FROM yieldspark.observation_age WHERE apy_age_days = 0 AND tvl_age_days = 0")
    op.create_table_comment(
        "observation_age", NEW_COMMENT, existing_comment=OLD_COMMENT, schema="yieldspark"
    )
