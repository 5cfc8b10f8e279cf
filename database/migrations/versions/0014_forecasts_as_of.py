"""The index of forecasts by as-of day."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("forecasts_as_of_idx", "forecasts", ["as_of"], schema="yieldspark")
