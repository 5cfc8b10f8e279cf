"""The owner's tables where they are missing, and the schema `yieldspark`: a frozen copy of
`database/schema/tables.py` at version 0.1.0.

`database.schema.migrate` makes the metrics table, whose name is a setting.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _owner_tables()
    _own_tables()


def _owner_tables() -> None:
    inspector = sa.inspect(op.get_bind())
    # a view may stand in place of a table that is read alone
    existing = {
        *inspector.get_table_names(),
        *inspector.get_view_names(),
        *inspector.get_materialized_view_names(),
    }
    if "gas_fees_daily" not in existing:
        op.create_table(
            "gas_fees_daily",
            sa.Column("date", sa.Date(), nullable=False),
            sa.Column("actual_avg_gas_gwei", sa.Numeric(precision=20, scale=8)),
            sa.Column("forecasted_avg_gas_gwei", sa.Numeric(precision=20, scale=8)),
            sa.PrimaryKeyConstraint("date"),
        )
    if "pools" not in existing:
        op.create_table(
            "pools",
            sa.Column("pool_id", sa.Text(), nullable=False),
            sa.Column("name", sa.Text()),
            sa.Column("chain", sa.Text()),
            sa.Column("protocol", sa.Text()),
            sa.Column("symbol", sa.Text()),
            sa.Column("tvl", sa.Numeric(precision=20, scale=2)),
            sa.Column("apy", sa.Numeric(precision=20, scale=4)),
            sa.Column("last_updated", sa.DateTime(timezone=True)),
            sa.Column("is_active", sa.Boolean(), server_default=sa.text("true")),
            sa.Column("currently_filtered_out", sa.Boolean(), server_default=sa.text("false")),
            sa.Column("pool_address", sa.Text()),
            sa.Column("underlying_tokens", postgresql.ARRAY(sa.Text())),
            sa.Column("underlying_token_addresses", postgresql.ARRAY(sa.Text())),
            sa.Column("poolmeta", sa.Text()),
            sa.PrimaryKeyConstraint("pool_id"),
        )
    if "raw_coinmarketcap_ohlcv" not in existing:
        op.create_table(
            "raw_coinmarketcap_ohlcv",
            sa.Column("data_timestamp", sa.DateTime(timezone=True), nullable=False),
            sa.Column("symbol", sa.Text(), nullable=False),
            sa.Column("raw_json_data", postgresql.JSONB(), nullable=False),
            sa.Column(
                "insertion_timestamp",
                sa.DateTime(timezone=True),
                server_default=sa.text("now()"),
                nullable=False,
            ),
            sa.PrimaryKeyConstraint("data_timestamp", "symbol"),
        )
    if "raw_defillama_pool_history" not in existing:
        op.create_table(
            "raw_defillama_pool_history",
            sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
            sa.Column("pool_id", sa.Text(), nullable=False),
            sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
            sa.Column("raw_json_data", postgresql.JSONB(), nullable=False),
            sa.Column(
                "insertion_timestamp",
                sa.DateTime(timezone=True),
                server_default=sa.text("now()"),
                nullable=False,
            ),
            sa.PrimaryKeyConstraint("id"),
        )
        op.create_index(
            "raw_defillama_pool_history_insertion_timestamp_idx",
            "raw_defillama_pool_history",
            ["insertion_timestamp"],
        )
        op.create_index(
            "raw_defillama_pool_history_pool_id_timestamp_idx",
            "raw_defillama_pool_history",
            ["pool_id", "timestamp"],
        )


def _own_tables() -> None:
    op.create_table(
        "forecast_evaluation",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("target_date", sa.Date(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False, comment="apy (percent) or tvl (USD)"),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("actual", sa.Double(), nullable=False),
        sa.Column("forecast", sa.Double(), nullable=False),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.Column("persistence", sa.Double(), nullable=False, comment="the value of the as-of day"),
        sa.Column(
            "median_7d",
            sa.Double(),
            nullable=False,
            comment="median of the seven days that end with the as-of day",
        ),
        sa.Column(
            "tvl_usd", sa.Double(), comment="TVL of the as-of day: the class a score is reported by"
        ),
        sa.Column(
            "apy_percent",
            sa.Double(),
            comment="APY of the as-of day: the class a score is reported by",
        ),
        sa.Column("interval_level", sa.Double()),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "target_date", "horizon_days", "target", "engine"),
        schema="yieldspark",
        comment="out-of-sample forecasts beside what came true: rolling origin",
    )
    op.create_index(
        "forecast_evaluation_target_date_idx",
        "forecast_evaluation",
        ["target_date"],
        schema="yieldspark",
    )
    op.create_table(
        "forecasts",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("target_date", sa.Date(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("apy", sa.Numeric(precision=20, scale=4)),
        sa.Column("apy_low", sa.Numeric(precision=20, scale=4)),
        sa.Column("apy_high", sa.Numeric(precision=20, scale=4)),
        sa.Column("tvl", sa.Numeric(precision=20, scale=2)),
        sa.Column("tvl_low", sa.Numeric(precision=20, scale=2)),
        sa.Column("tvl_high", sa.Numeric(precision=20, scale=2)),
        sa.Column("interval_level", sa.Double(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column(
            "rule",
            sa.Text(),
            comment=(
                "why a rule was used instead of the model: cold_start, stale; null where the model"
                " forecast"
            ),
        ),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "target_date", "horizon_days"),
        schema="yieldspark",
    )
    op.create_table(
        "market_series",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("eth_open", sa.Numeric(precision=20, scale=8)),
        sa.Column("btc_open", sa.Numeric(precision=20, scale=8)),
        sa.Column("gas_price_gwei", sa.Numeric(precision=20, scale=8)),
        sa.PrimaryKeyConstraint("date"),
        schema="yieldspark",
        comment=(
            "prices and gas as the last metrics run used them: what differs from today's source"
            " tells which days must be recomputed"
        ),
    )
    op.create_table(
        "observation_age",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column(
            "apy_age_days",
            sa.Integer(),
            comment="0: observed that day; n: carried forward n days; null: not known that day",
        ),
        sa.Column("tvl_age_days", sa.Integer(), comment="as apy_age_days"),
        sa.PrimaryKeyConstraint("pool_id", "date"),
        schema="yieldspark",
        comment=(
            "tells an observed value of pool_daily_metrics from a carried one; one row for each of"
            " the metrics job's rows"
        ),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("source_table", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.Text()),
        sa.Column("timestamp", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw_json_data", postgresql.JSONB()),
        sa.Column(
            "quarantined_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="yieldspark",
    )
    op.create_index(
        "quarantine_source_idx",
        "quarantine",
        ["source_table", "source_id", "reason"],
        unique=True,
        schema="yieldspark",
    )
    op.create_table(
        "run_ledger",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text()),
        sa.Column("start", sa.Date()),
        sa.Column("end", sa.Date()),
        sa.Column("as_of", sa.Date()),
        sa.Column("engine", sa.Text()),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column(
            "watermark",
            sa.DateTime(timezone=True),
            comment="raw rows inserted before this were seen by this run",
        ),
        sa.Column(
            "plan",
            postgresql.JSONB(),
            comment="what the run set out to do, and the rules and limits its rows follow",
        ),
        sa.Column("rows", postgresql.JSON(), nullable=False),
        sa.Column(
            "stages",
            postgresql.JSON(),
            nullable=False,
            comment="seconds by stage, in the order they ran",
        ),
        sa.Column("seconds", sa.Double()),
        sa.Column("jvm_started", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("checks", postgresql.JSONB(), nullable=False),
        sa.Column("cost_usd", sa.Double()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("run_id"),
        schema="yieldspark",
    )
    op.create_index(
        "run_ledger_job_started_at_idx", "run_ledger", ["job", "started_at"], schema="yieldspark"
    )
