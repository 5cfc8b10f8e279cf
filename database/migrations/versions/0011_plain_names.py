"""Columns, tables and values get the terms of the field."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"
TABLES = {"observation_age": "value_staleness", "pool_calendars": "pool_coverage"}
COLUMNS = (
    ("run_ledger", "batch", "batch_id"),
    ("forecasts", "rule", "apy_fallback_reason"),
    ("forecasts", "tvl_rule", "tvl_fallback_reason"),
    ("forecast_evaluation", "move", "model_change"),
    ("forecast_evaluation", "move_low", "model_change_low"),
    ("forecast_evaluation", "move_high", "model_change_high"),
    ("forecast_evaluation", "weight", "gate_weight"),
    ("forecast_evaluation", "scale", "volatility_scale"),
    ("promotion", "serves", "serving_version"),
    ("value_staleness", "apy_age_days", "apy_staleness_days"),
    ("value_staleness", "tvl_age_days", "tvl_staleness_days"),
    ("provisional_days", "apy_age_days", "apy_staleness_days"),
    ("provisional_days", "tvl_age_days", "tvl_staleness_days"),
    ("quarantine", "replayed_as", "replayed_row_id"),
)
COMMENTS = (
    ("forecasts", "tvl_fallback_reason", "as apy_fallback_reason, of TVL"),
    (
        "forecasts",
        "explanation",
        "the strongest contributions to the APY forecast: [{feature, points}], points of APY; null"
        " for a fallback",
    ),
    (
        "forecast_evaluation",
        "source",
        "production: published before its target day; backtest: computed afterwards",
    ),
    (
        "forecast_evaluation",
        "volatility_scale",
        "usual size of the pool's one-day changes on the as-of day: APY points, or log1p(USD)",
    ),
    (
        "forecast_evaluation",
        "model_change",
        "change that the model forecasts, before the gate, in units of volatility_scale; null"
        " without a model",
    ),
    ("forecast_evaluation", "model_change_low", "lower quantile of the model, same units"),
    ("forecast_evaluation", "model_change_high", "upper quantile of the model, same units"),
    (
        "forecast_evaluation",
        "gate_weight",
        "weight of the gate: 0 publishes persistence, 1 the model's own change",
    ),
    (
        "promotion",
        "serving_version",
        "the version that serves from this decision on; null: persistence",
    ),
    ("value_staleness", "tvl_staleness_days", "as apy_staleness_days"),
    ("provisional_days", "apy_staleness_days", "as in value_staleness"),
    ("provisional_days", "tvl_staleness_days", "as in value_staleness"),
)
INDEXES = {
    "run_ledger_batch_idx": "run_ledger_batch_id_idx",
    "observation_age_pkey": "value_staleness_pkey",
    "pool_calendars_pkey": "pool_coverage_pkey",
}
NOT_NULL = """
SELECT conrelid::regclass AS table, conname AS name
FROM pg_constraint
WHERE contype = 'n'
    AND connamespace = 'yieldspark'::regnamespace
    AND starts_with(conname, :prefix)
"""
"""PostgreSQL 18 and later name these constraints after the table."""
JOB = "UPDATE yieldspark.run_ledger SET job = :new WHERE job = :old"
SOURCE = "UPDATE yieldspark.forecast_evaluation SET source = :new WHERE source = :old"


def upgrade() -> None:
    for old, new in TABLES.items():
        op.rename_table(old, new, schema=SCHEMA)
        _rename_not_null(f"{old}_", f"{new}_")
    for old, new in INDEXES.items():
        op.execute(f"ALTER INDEX {SCHEMA}.{old} RENAME TO {new}")
    for table, old, new in COLUMNS:
        op.alter_column(table, old, new_column_name=new, schema=SCHEMA)
    for table, column, comment in COMMENTS:
        op.alter_column(table, column, comment=comment, schema=SCHEMA)
    op.create_table_comment(
        "forecast_evaluation",
        "past forecasts with their actuals, from which the gate and the intervals learn",
        schema=SCHEMA,
    )
    job = {"old": "calculate_pool_metrics", "new": "calculate_metrics"}
    source = {"old": "night", "new": "production"}
    op.execute(sa.text(JOB).bindparams(**job))
    op.execute(sa.text(SOURCE).bindparams(**source))


def _rename_not_null(old: str, new: str) -> None:
    rows = op.get_bind().execute(sa.text(NOT_NULL), {"prefix": old}).all()
    for table, name in rows:
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {name} TO {new}{name.removeprefix(old)}")
