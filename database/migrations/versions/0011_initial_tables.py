"""The owner's tables where they are missing, and the schema `yieldspark`: a frozen copy of
`database/tables.py`.

The first revision. It takes the place of the revisions 0001 to 0011 of unreleased versions, and a
database at 0011 has the same tables. `database.schema.migrate` makes the metrics table, whose name
is a setting.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"
NOW = sa.text("now()")
APY, TVL, PRICE = sa.Numeric(20, 4), sa.Numeric(20, 2), sa.Numeric(20, 8)


def upgrade() -> None:
    _owner_tables()
    _forecast_evaluation()
    _forecasts()
    _ingest_progress()
    _market_series()
    _model_outbox()
    _observed_days()
    _pool_coverage()
    _promotion()
    _provisional_days()
    _quarantine()
    _raw_day_counts()
    _run_ledger()
    _value_staleness()


def _owner_tables() -> None:
    inspector = sa.inspect(op.get_bind())
    # a view may stand in place of a table that is read alone
    existing = {
        *inspector.get_table_names(),
        *inspector.get_view_names(),
        *inspector.get_materialized_view_names(),
    }
    if "gas_fees_daily" not in existing:
        _gas_fees_daily()
    if "pools" not in existing:
        _pools()
    if "raw_coinmarketcap_ohlcv" not in existing:
        _raw_coinmarketcap_ohlcv()
    if "raw_defillama_pool_history" not in existing:
        _raw_defillama_pool_history()


def _gas_fees_daily() -> None:
    op.create_table(
        "gas_fees_daily",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("actual_avg_gas_gwei", PRICE),
        sa.Column("forecasted_avg_gas_gwei", PRICE),
        sa.PrimaryKeyConstraint("date"),
    )


def _pools() -> None:
    op.create_table(
        "pools",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("chain", sa.Text()),
        sa.Column("protocol", sa.Text()),
        sa.Column("symbol", sa.Text()),
        sa.Column("tvl", TVL),
        sa.Column("apy", APY),
        sa.Column("last_updated", sa.DateTime(timezone=True)),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true")),
        sa.Column("currently_filtered_out", sa.Boolean(), server_default=sa.text("false")),
        sa.Column("pool_address", sa.Text()),
        sa.Column("underlying_tokens", postgresql.ARRAY(sa.Text())),
        sa.Column("underlying_token_addresses", postgresql.ARRAY(sa.Text())),
        sa.Column("poolmeta", sa.Text()),
        sa.PrimaryKeyConstraint("pool_id"),
    )


def _raw_coinmarketcap_ohlcv() -> None:
    op.create_table(
        "raw_coinmarketcap_ohlcv",
        sa.Column("data_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("raw_json_data", postgresql.JSONB(), nullable=False),
        sa.Column(
            "insertion_timestamp",
            sa.DateTime(timezone=True),
            server_default=NOW,
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("data_timestamp", "symbol"),
    )


def _raw_defillama_pool_history() -> None:
    op.create_table(
        "raw_defillama_pool_history",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("raw_json_data", postgresql.JSONB(), nullable=False),
        sa.Column(
            "insertion_timestamp",
            sa.DateTime(timezone=True),
            server_default=NOW,
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


def _forecast_evaluation() -> None:
    op.create_table(
        "forecast_evaluation",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("target_date", sa.Date(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False, comment="apy (percent) or tvl (USD)"),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column(
            "source",
            sa.Text(),
            server_default="backtest",
            nullable=False,
            comment="production: published before its target day; backtest: computed afterwards",
        ),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("actual", sa.Double(), comment="null until the target day has been observed"),
        sa.Column("forecast", sa.Double(), nullable=False),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.Column("persistence", sa.Double(), nullable=False, comment="the value of the as-of day"),
        sa.Column(
            "median_7d", sa.Double(), comment="median of the seven days that end with the as-of day"
        ),
        sa.Column(
            "mean_reversion", sa.Double(), comment="the pool's own pull to its 30-day mean, shrunk"
        ),
        sa.Column(
            "naive_low",
            sa.Double(),
            comment="persistence and the outer quantiles of the pool's last 60 changes",
        ),
        sa.Column("naive_high", sa.Double()),
        sa.Column(
            "mean_abs_change",
            sa.Double(),
            comment="mean size of the pool's one-day changes over 90 days, value units",
        ),
        sa.Column(
            "volatility_scale",
            sa.Double(),
            comment=(
                "usual size of the pool's one-day changes on the as-of day: APY points, or"
                " log1p(USD)"
            ),
        ),
        sa.Column(
            "model_change",
            sa.Double(),
            comment=(
                "change that the model forecasts, before the gate, in units of"
                " volatility_scale; null without a model"
            ),
        ),
        sa.Column(
            "model_change_low", sa.Double(), comment="lower quantile of the model, same units"
        ),
        sa.Column(
            "model_change_high", sa.Double(), comment="upper quantile of the model, same units"
        ),
        sa.Column(
            "gate_weight",
            sa.Double(),
            comment="weight of the gate: 0 publishes persistence, 1 the model's own change",
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
        schema=SCHEMA,
        comment="past forecasts with their actuals, from which the gate and the intervals learn",
    )
    op.create_index(
        "forecast_evaluation_target_date_idx", "forecast_evaluation", ["target_date"], schema=SCHEMA
    )


def _forecasts() -> None:
    op.create_table(
        "forecasts",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("target_date", sa.Date(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("apy", APY),
        sa.Column("apy_low", APY),
        sa.Column("apy_high", APY),
        sa.Column("tvl", TVL),
        sa.Column("tvl_low", TVL),
        sa.Column("tvl_high", TVL),
        sa.Column("interval_level", sa.Double(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column(
            "apy_fallback_reason",
            sa.Text(),
            comment=(
                "why today's APY is published: stale, cold_start, no_model, no_ledger,"
                " few_pools, no_champion, gate; else null"
            ),
        ),
        sa.Column("tvl_fallback_reason", sa.Text(), comment="as apy_fallback_reason, of TVL"),
        sa.Column(
            "explanation",
            postgresql.JSONB(),
            comment=(
                "the strongest contributions to the APY forecast: [{feature, points}], points"
                " of APY; null for a fallback"
            ),
        ),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "target_date", "horizon_days"),
        schema=SCHEMA,
    )


def _ingest_progress() -> None:
    op.create_table(
        "ingest_progress",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("snapshots", sa.Integer(), nullable=False, comment="how many its chart had"),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "pool_id"),
        schema=SCHEMA,
        comment=(
            "pools that a pull has stored: an interrupted `ingest` goes on with the others;"
            " rows of pulls that are too old for that are deleted"
        ),
    )


def _market_series() -> None:
    op.create_table(
        "market_series",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("eth_open", PRICE),
        sa.Column("btc_open", PRICE),
        sa.Column("gas_price_gwei", PRICE),
        sa.PrimaryKeyConstraint("date"),
        schema=SCHEMA,
        comment=(
            "prices and gas as the last metrics run used them: what differs from today's"
            " source tells which days must be recomputed"
        ),
    )


def _model_outbox() -> None:
    op.create_table(
        "model_outbox",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column(
            "alias",
            sa.Text(),
            comment=(
                "champion or challenger: what it becomes when it is registered; null: neither,"
                " it is of a past day; withdrawn: from now on no version is champion"
            ),
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column(
            "model",
            sa.LargeBinary(),
            nullable=False,
            comment="the model and its card, as `forecasting.registry.model_archive` packs it",
        ),
        sa.PrimaryKeyConstraint("version"),
        schema=SCHEMA,
        comment=(
            "moves that the registry has not made yet, of versions and aliases: written"
            " with the forecasts or the decision they belong to, deleted when made"
        ),
    )


def _observed_days() -> None:
    op.create_table(
        "observed_days",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "snapshot",
            sa.BigInteger(),
            comment=(
                "hash of pool, timestamp and content of the raw row; null: the value is"
                " pool_daily_metrics' own, rounded, its raw row was gone before this table was"
                " made"
            ),
        ),
        sa.Column("apy", sa.Double(), comment="percent; null: the snapshot had none"),
        sa.Column("tvl", sa.Double(), comment="USD; null: the snapshot had none"),
        sa.PrimaryKeyConstraint("pool_id", "date"),
        schema=SCHEMA,
        comment=(
            "each day's last accepted snapshot, unrounded; replaces raw rows that no longer exist"
        ),
    )
    op.create_index(
        "observed_days_rounded_idx",
        "observed_days",
        ["pool_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("snapshot IS NULL"),
    )


def _pool_coverage() -> None:
    op.create_table(
        "pool_coverage",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column(
            "last_observed_day", sa.Date(), comment="the newest day with a snapshot of its own"
        ),
        sa.PrimaryKeyConstraint("pool_id"),
        schema=SCHEMA,
        comment=(
            "the days of pool_daily_metrics that the metrics job wrote for a pool: every"
            " day from first_day to last_day"
        ),
    )


def _promotion() -> None:
    op.create_table(
        "promotion",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False, comment="user@host"),
        sa.Column(
            "run_id",
            sa.Text(),
            comment="the forecast run that validated; null for a decision by hand",
        ),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.Date(), comment="last day of the validation"),
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
            "serving_version",
            sa.Text(),
            comment="the version that serves from this decision on; null: persistence",
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "numbers",
            postgresql.JSONB(),
            nullable=False,
            comment="days, rows, losses and ratios with their bootstrap intervals, also by group",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
        comment="every decision on which model version is served, whether it says yes or no",
    )
    op.create_index(
        "promotion_model_idx", "promotion", ["engine", "horizon_days", "id"], schema=SCHEMA
    )


def _provisional_days() -> None:
    op.create_table(
        "provisional_days",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("apy_staleness_days", sa.Integer(), comment="as in value_staleness"),
        sa.Column("tvl_staleness_days", sa.Integer(), comment="as in value_staleness"),
        sa.Column("metrics_table", sa.Text(), nullable=False, comment="the table that has the row"),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "date"),
        schema=SCHEMA,
        comment=(
            "rows of the metrics table whose day was not over when a run with INCLUDE_TODAY"
            " computed them: the next run makes them again or takes them away"
        ),
    )


def _quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("source_table", sa.Text(), nullable=False),
        sa.Column(
            "source_id",
            sa.Text(),
            nullable=False,
            comment=(
                "of a raw pool row the hash of pool, timestamp and content: the same row under"
                " another id is the same"
            ),
        ),
        sa.Column("pool_id", sa.Text()),
        sa.Column("timestamp", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw_json_data", postgresql.JSONB()),
        sa.Column("quarantined_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column(
            "resolution",
            sa.Text(),
            comment=(
                "null while open; replayed, dropped, or accepted: the source row itself is in"
                " use since"
            ),
        ),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.Column("resolved_by_run", sa.Text()),
        sa.Column("resolved_by", sa.Text(), comment="user@host of who replayed or dropped it"),
        sa.Column("replayed_row_id", sa.Text(), comment="source_id of the row that took its place"),
        sa.Column("note", sa.Text(), comment="why it was dropped"),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
    )
    op.create_index(
        "quarantine_source_idx",
        "quarantine",
        ["source_table", "source_id", "reason"],
        unique=True,
        schema=SCHEMA,
    )


def _raw_day_counts() -> None:
    op.create_table(
        "raw_day_counts",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("snapshots", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("date"),
        schema=SCHEMA,
        comment=(
            "raw snapshots of each day that the metrics runs have read or known: more of"
            " them in raw history than here, and not new either, came with an old"
            " insertion_timestamp"
        ),
    )


def _run_ledger() -> None:
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
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
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
        sa.Column(
            "batch_id",
            sa.Text(),
            comment="id of the cloud's batch that this run was; null elsewhere",
        ),
        sa.PrimaryKeyConstraint("run_id"),
        schema=SCHEMA,
    )
    op.create_index("run_ledger_batch_id_idx", "run_ledger", ["batch_id"], schema=SCHEMA)
    op.create_index(
        "run_ledger_job_started_at_idx", "run_ledger", ["job", "started_at"], schema=SCHEMA
    )


def _value_staleness() -> None:
    op.create_table(
        "value_staleness",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column(
            "apy_staleness_days",
            sa.Integer(),
            comment="0: observed that day; n: carried forward n days; null: not known that day",
        ),
        sa.Column("tvl_staleness_days", sa.Integer(), comment="as apy_staleness_days"),
        sa.PrimaryKeyConstraint("pool_id", "date"),
        schema=SCHEMA,
        comment=(
            "the days on which APY or TVL was not observed; a day of the metrics job that"
            " has no row here has both of its own"
        ),
    )
