"""Which pools a pull has stored: an interrupted `ingest` goes on by it. `model_outbox` holds moves
of aliases too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"


def upgrade() -> None:
    op.create_table(
        "ingest_progress",
        sa.Column("run_id", sa.Text(), primary_key=True),
        sa.Column("pool_id", sa.Text(), primary_key=True),
        sa.Column("snapshots", sa.Integer(), nullable=False, comment="how many its chart had"),
        sa.Column(
            "stored_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("now()"),
        ),
        schema=SCHEMA,
        comment=(
            "pools that a pull has stored: an interrupted `ingest` goes on with the others; rows of"
            " pulls that are too old for that are deleted"
        ),
    )
    alias = (
        "champion or challenger: what it becomes when it is registered; null: neither, it is of a"
        " past day; withdrawn: from now on no version is champion"
    )
    op.alter_column("model_outbox", "alias", comment=alias, schema=SCHEMA)
    op.create_table_comment(
        "model_outbox",
        "moves that the registry has not made yet, of versions and aliases: written with the"
        " forecasts or the decision they belong to, deleted when made",
        schema=SCHEMA,
    )
