"""Which model version is served and why, versions that wait for the registry, and why a forecast
says what it says.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"
NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "promotion",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("decided_by", sa.Text(), nullable=False, comment="user@host"),
        sa.Column(
            "run_id", sa.Text(), comment="the forecast run that judged; null for a decision by hand"
        ),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.Date(), comment="last day of what was judged"),
        sa.Column(
            "decision",
            sa.Text(),
            nullable=False,
            comment=(
                "promoted, kept, refused (nothing passes: persistence is served), by_hand,"
                " rolled_back"
            ),
        ),
        sa.Column("challenger", sa.Text(), comment="the version that asked"),
        sa.Column("champion", sa.Text(), comment="the version that served before; null: none did"),
        sa.Column(
            "serves", sa.Text(), comment="the version that serves from now on; null: persistence"
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "numbers",
            JSONB(),
            nullable=False,
            comment="days, rows, losses and ratios with their bootstrap intervals, also by group",
        ),
        sa.Index("promotion_model_idx", "engine", "horizon_days", "id"),
        schema=SCHEMA,
        comment="every decision on which model version is served, whether it says yes or no",
    )
    op.create_table(
        "model_outbox",
        sa.Column("version", sa.Text(), primary_key=True),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column(
            "alias",
            sa.Text(),
            comment=(
                "champion or challenger: what it becomes when it is registered; null: neither, it"
                " is of a past day"
            ),
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column(
            "model",
            sa.LargeBinary(),
            nullable=False,
            comment="the model and its card, as `forecasting.registry.model_archive` packs it",
        ),
        schema=SCHEMA,
        comment=(
            "model versions that are not in the registry yet: written with the forecasts they made,"
            " deleted when registered"
        ),
    )
    words = (
        "the strongest contributions to the APY forecast: [{feature, points}], points of APY; null"
        " by a rule"
    )
    op.add_column("forecasts", sa.Column("explanation", JSONB(), comment=words), schema=SCHEMA)
    rule = (
        "why today's APY is published: stale, cold_start, no_model, no_ledger, few_pools,"
        " no_champion, gate; else null"
    )
    op.alter_column("forecasts", "rule", comment=rule, schema=SCHEMA)
