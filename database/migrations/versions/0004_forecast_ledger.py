"""The ledger of forecasts: what was published before it came true, with all that gate and interval
learn from.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE, SCHEMA = "forecast_evaluation", "yieldspark"


def upgrade() -> None:
    source = "night: published before it came true; backtest: made afterwards"
    op.add_column(
        TABLE,
        sa.Column("source", sa.Text(), nullable=False, server_default="backtest", comment=source),
        schema=SCHEMA,
    )
    numbers = {
        "mean_reversion": "the pool's own pull to its 30-day mean, shrunk",
        "naive_low": "persistence and the outer quantiles of the pool's last 60 changes",
        "naive_high": None,
        "mean_abs_change": "mean size of the pool's one-day changes over 90 days, value units",
        "scale": "the pool's scale on the as-of day: APY points, or log1p(USD)",
        "move": "what the model said before the gate, in scales; null without a model",
        "move_low": "the model's own lower quantile, in scales",
        "move_high": None,
        "weight": "the gate's: 0 publishes persistence, 1 the model's own move",
    }
    for name, words in numbers.items():
        op.add_column(TABLE, sa.Column(name, sa.Double(), comment=words), schema=SCHEMA)
    op.alter_column(
        TABLE,
        "actual",
        nullable=True,
        comment="null until the target day has been observed",
        schema=SCHEMA,
    )
    op.alter_column(TABLE, "median_7d", nullable=True, schema=SCHEMA)
    op.create_table_comment(
        TABLE,
        "forecasts beside what came true: the ledger that gate and intervals learn from",
        schema=SCHEMA,
    )
    op.add_column(
        "forecasts", sa.Column("tvl_rule", sa.Text(), comment="as rule, of TVL"), schema=SCHEMA
    )
    rule = (
        "why today's APY is published: stale, cold_start, no_model, no_ledger, few_pools, gate;"
        " else null"
    )
    op.alter_column("forecasts", "rule", comment=rule, schema=SCHEMA)
