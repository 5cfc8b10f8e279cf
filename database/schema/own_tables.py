"""YieldSpark's own tables, in the schema `yieldspark`, as SQLAlchemy Core.

APY in percent, TVL and prices in USD, gas in gwei; dates are UTC days. A change needs a new
revision in `database/migrations/versions`. The owner's tables are in `owner_tables`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from database.schema.owner_tables import APY, NOW, PRICE, TVL

OWN_SCHEMA = "yieldspark"

own_metadata = MetaData(schema=OWN_SCHEMA)

GOOD = ("succeeded", "nothing_to_do")
"""Statuses of a run that left the tables complete."""

run_ledger = Table(
    "run_ledger",
    own_metadata,
    Column("run_id", Text, primary_key=True),
    Column("job", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("mode", Text),
    Column("start", Date),
    Column("end", Date),
    Column("as_of", Date),
    Column("engine", Text),
    Column("code_version", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("finished_at", DateTime(timezone=True)),
    Column(
        "watermark",
        DateTime(timezone=True),
        comment="raw rows inserted before this were seen by this run",
    ),
    Column(
        "plan",
        JSONB,
        comment="what the run set out to do, and the rules and limits its rows follow",
    ),
    # json and not jsonb, which would sort the keys: outcomes and stages keep their order
    Column("rows", JSON, nullable=False),
    Column("stages", JSON, nullable=False, comment="seconds by stage, in the order they ran"),
    Column("seconds", Double),
    Column("jvm_started", Boolean, nullable=False, server_default=text("false")),
    Column("checks", JSONB, nullable=False),
    Column("cost_usd", Double),
    Column("error", Text),
    Column("batch_id", Text, comment="id of the cloud's batch that this run was; null elsewhere"),
    Column(
        "lease_expires_at",
        DateTime(timezone=True),
        comment="a run without a connection is alive until then; null for a run with a lock",
    ),
    Column(
        "is_undoable",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the rows that it replaced are in replaced_rows",
    ),
    Column("undone_at", DateTime(timezone=True), comment="when `undo` restored these rows"),
    Column("undone_by", Text, comment="user@host of who undid the run"),
    # every plan looks for the last good run of its job
    Index("run_ledger_job_started_at_idx", "job", "started_at"),
    # costs are recorded by the id of the batch
    Index("run_ledger_batch_id_idx", "batch_id"),
)

run_changes = Table(
    "run_changes",
    own_metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("table_name", Text, nullable=False, comment="with its schema, quoted for SQL"),
    Column(
        "kind",
        Text,
        nullable=False,
        comment=(
            "written: rows were inserted or updated; deleted: rows were deleted; filled: the table"
            " had no row before"
        ),
    ),
    Column("key_columns", ARRAY(Text), nullable=False, comment="names for replaced_rows.key"),
    Column("columns", ARRAY(Text), nullable=False, comment="names for replaced_rows.before"),
    Column("rows", BigInteger, nullable=False),
    Index("run_changes_run_id_idx", "run_id"),
    comment=(
        "the changes of tables that the runs of the last UNDO_DAYS days made, in their order;"
        " `undo` reverses them"
    ),
)

replaced_rows = Table(
    "replaced_rows",
    own_metadata,
    Column("change_id", BigInteger, nullable=False, comment="id in run_changes"),
    Column("key", ARRAY(Text), nullable=False, comment="values of the key, as text"),
    Column(
        "before",
        ARRAY(Text),
        comment="values before the run, as text; null: the run inserted the row",
    ),
    Index("replaced_rows_change_id_idx", "change_id"),
    comment="the changed rows of run_changes; a change of kind filled has none",
)

ingest_progress = Table(
    "ingest_progress",
    own_metadata,
    Column("run_id", Text, primary_key=True),
    Column("pool_id", Text, primary_key=True),
    Column("snapshots", Integer, nullable=False, comment="how many its chart had"),
    Column("stored_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    comment=(
        "pools that a pull has stored: an interrupted `ingest` goes on with the others; rows of"
        " pulls that are too old for that are deleted"
    ),
)

market_series = Table(
    "market_series",
    own_metadata,
    Column("date", Date, primary_key=True),
    Column("eth_open", PRICE),
    Column("btc_open", PRICE),
    Column("gas_price_gwei", PRICE),
    comment=(
        "prices and gas as the last metrics run used them: what differs from today's source tells"
        " which days must be recomputed"
    ),
)

provisional_days = Table(
    "provisional_days",
    own_metadata,
    Column("pool_id", Text, primary_key=True),
    Column("date", Date, primary_key=True),
    Column("apy_staleness_days", Integer, comment="as in value_staleness"),
    Column("tvl_staleness_days", Integer, comment="as in value_staleness"),
    Column("metrics_table", Text, nullable=False, comment="the table that has the row"),
    Column("run_id", Text, nullable=False),
    comment=(
        "rows of the metrics table whose day was not over when a run with INCLUDE_TODAY computed"
        " them: the next run makes them again or takes them away"
    ),
)

pool_coverage = Table(
    "pool_coverage",
    own_metadata,
    Column("pool_id", Text, primary_key=True),
    Column("first_day", Date, nullable=False),
    Column("last_day", Date, nullable=False),
    Column("last_observed_day", Date, comment="the newest day with a snapshot of its own"),
    comment=(
        "the days of pool_daily_metrics that the metrics job wrote for a pool: every day from"
        " first_day to last_day"
    ),
)

raw_day_counts = Table(
    "raw_day_counts",
    own_metadata,
    Column("date", Date, primary_key=True),
    Column("snapshots", Integer, nullable=False),
    comment=(
        "raw snapshots of each day that the metrics runs have read or known: more of them in raw"
        " history than here, and not new either, came with an old insertion_timestamp"
    ),
)

value_staleness = Table(
    "value_staleness",
    own_metadata,
    Column("pool_id", Text, primary_key=True),
    Column("date", Date, primary_key=True),
    Column(
        "apy_staleness_days",
        Integer,
        comment="0: observed that day; n: carried forward n days; null: not known that day",
    ),
    Column("tvl_staleness_days", Integer, comment="as apy_staleness_days"),
    comment=(
        "the days on which APY or TVL was not observed; a day of the metrics job that has no row"
        " here has both of its own"
    ),
)

observed_days = Table(
    "observed_days",
    own_metadata,
    Column("pool_id", Text, primary_key=True),
    Column("date", Date, primary_key=True),
    Column("timestamp", DateTime(timezone=True), nullable=False),
    Column(
        "snapshot",
        BigInteger,
        comment=(
            "hash of pool, timestamp and content of the raw row; null: the value is"
            " pool_daily_metrics' own, rounded, its raw row was gone before this table was made"
        ),
    ),
    Column("apy", Double, comment="percent; null: the snapshot had none"),
    Column("tvl", Double, comment="USD; null: the snapshot had none"),
    # partial: without adopted days, which most databases do not have, it is empty
    Index("observed_days_rounded_idx", "pool_id", postgresql_where=text("snapshot IS NULL")),
    comment=(
        "each day's last accepted snapshot, unrounded; replaces raw rows that no longer exist"
    ),
)

quarantine = Table(
    "quarantine",
    own_metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("source_table", Text, nullable=False),
    Column(
        "source_id",
        Text,
        nullable=False,
        comment=(
            "of a raw pool row the hash of pool, timestamp and content: the same row under another"
            " id is the same"
        ),
    ),
    Column("pool_id", Text),
    Column("timestamp", DateTime(timezone=True)),
    Column("reason", Text, nullable=False),
    Column("raw_json_data", JSONB),
    Column("quarantined_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column(
        "resolution",
        Text,
        comment=(
            "null while open; replayed, dropped, or accepted: the source row itself is in use since"
        ),
    ),
    Column("resolved_at", DateTime(timezone=True)),
    Column("resolved_by_run", Text),
    Column("resolved_by", Text, comment="user@host of who replayed or dropped it"),
    Column("replayed_row_id", Text, comment="source_id of the row that took its place"),
    Column("note", Text, comment="why it was dropped"),
    # a source row has one quarantined row for each reason
    Index("quarantine_source_idx", "source_table", "source_id", "reason", unique=True),
)

forecasts = Table(
    "forecasts",
    own_metadata,
    Column("pool_id", Text, primary_key=True),
    Column("target_date", Date, primary_key=True),
    Column("horizon_days", Integer, primary_key=True),
    Column("as_of", Date, nullable=False),
    Column("apy", APY),
    Column("apy_low", APY),
    Column("apy_high", APY),
    Column("tvl", TVL),
    Column("tvl_low", TVL),
    Column("tvl_high", TVL),
    Column("interval_level", Double, nullable=False),
    Column("engine", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column(
        "apy_fallback_reason",
        Text,
        comment=(
            "why today's APY is published: stale, cold_start, no_model, no_ledger, few_pools,"
            " no_champion, gate; else null"
        ),
    ),
    Column("tvl_fallback_reason", Text, comment="as apy_fallback_reason, of TVL"),
    Column(
        "explanation",
        JSONB,
        comment=(
            "the strongest contributions to the APY forecast: [{feature, points}], points of APY;"
            " null for a fallback"
        ),
    ),
    Column("run_id", Text, nullable=False),
    # every reader asks for the newest as-of day, and the table keeps those of all days
    Index("forecasts_as_of_idx", "as_of"),
)

forecast_evaluation = Table(
    "forecast_evaluation",
    own_metadata,
    Column("pool_id", Text, primary_key=True),
    Column("target_date", Date, primary_key=True),
    Column("horizon_days", Integer, primary_key=True),
    Column("target", Text, primary_key=True, comment="apy (percent) or tvl (USD)"),
    Column("engine", Text, primary_key=True),
    Column(
        "source",
        Text,
        nullable=False,
        server_default="backtest",
        comment="production: published before its target day; backtest: computed afterwards",
    ),
    Column("as_of", Date, nullable=False),
    Column("actual", Double, comment="null until the target day has been observed"),
    Column("forecast", Double, nullable=False),
    Column("low", Double),
    Column("high", Double),
    Column("persistence", Double, nullable=False, comment="the value of the as-of day"),
    Column("median_7d", Double, comment="median of the seven days that end with the as-of day"),
    Column("mean_reversion", Double, comment="the pool's own pull to its 30-day mean, shrunk"),
    Column(
        "naive_low",
        Double,
        comment="persistence and the outer quantiles of the pool's last 60 changes",
    ),
    Column("naive_high", Double),
    Column(
        "mean_abs_change",
        Double,
        comment="mean size of the pool's one-day changes over 90 days, value units",
    ),
    Column(
        "volatility_scale",
        Double,
        comment=(
            "usual size of the pool's one-day changes on the as-of day: APY points, or log1p(USD)"
        ),
    ),
    Column(
        "model_change",
        Double,
        comment=(
            "change that the model forecasts, before the gate, in units of volatility_scale; null"
            " without a model"
        ),
    ),
    Column("model_change_low", Double, comment="lower quantile of the model, same units"),
    Column("model_change_high", Double, comment="upper quantile of the model, same units"),
    Column(
        "gate_weight",
        Double,
        comment="weight of the gate: 0 publishes persistence, 1 the model's own change",
    ),
    Column("tvl_usd", Double, comment="TVL of the as-of day: the class a score is reported by"),
    Column("apy_percent", Double, comment="APY of the as-of day: the class a score is reported by"),
    Column("interval_level", Double),
    Column("model_version", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Index("forecast_evaluation_target_date_idx", "target_date"),
    comment="past forecasts with their actuals, from which the gate and the intervals learn",
)

promotion = Table(
    "promotion",
    own_metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("decided_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("decided_by", Text, nullable=False, comment="user@host"),
    Column("run_id", Text, comment="the forecast run that validated; null for a decision by hand"),
    Column("engine", Text, nullable=False),
    Column("horizon_days", Integer, nullable=False),
    Column("as_of", Date, comment="last day of the validation"),
    Column(
        "decision",
        Text,
        nullable=False,
        comment=(
            "promoted, kept, refused (nothing passes: persistence is served), by_hand, rolled_back"
        ),
    ),
    Column("challenger", Text, comment="the version that asked"),
    Column("champion", Text, comment="the version that served before; null: none did"),
    Column(
        "serving_version",
        Text,
        comment="the version that serves from this decision on; null: persistence",
    ),
    Column("reason", Text, nullable=False),
    Column(
        "numbers",
        JSONB,
        nullable=False,
        comment="days, rows, losses and ratios with their bootstrap intervals, also by group",
    ),
    Index("promotion_model_idx", "engine", "horizon_days", "id"),
    comment="every decision on which model version is served, whether it says yes or no",
)

model_outbox = Table(
    "model_outbox",
    own_metadata,
    Column("version", Text, primary_key=True),
    Column("engine", Text, nullable=False),
    Column("horizon_days", Integer, nullable=False),
    Column(
        "alias",
        Text,
        comment=(
            "champion or challenger: what it becomes when it is registered; null: neither, it is of"
            " a past day; withdrawn: from now on no version is champion"
        ),
    ),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("run_id", Text, nullable=False),
    Column(
        "model",
        LargeBinary,
        nullable=False,
        comment="the model and its card, as `forecasting.registry.model_archive` packs it",
    ),
    comment=(
        "moves that the registry has not made yet, of versions and aliases: written with the"
        " forecasts or the decision they belong to, deleted when made"
    ),
)
