"""What became of a quarantined row: replayed, dropped, or accepted after all; who did it,
and why.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = (
        sa.Column(
            "resolution",
            sa.Text(),
            comment=(
                "null while open; replayed, dropped, or accepted: the source row itself is in use"
                " since"
            ),
        ),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.Column("resolved_by_run", sa.Text()),
        sa.Column("resolved_by", sa.Text(), comment="user@host of who replayed or dropped it"),
        sa.Column("replayed_as", sa.Text(), comment="the raw row that took its place"),
        sa.Column("note", sa.Text(), comment="why it was dropped"),
    )
    for column in columns:
        op.add_column("quarantine", column, schema="yieldspark")
