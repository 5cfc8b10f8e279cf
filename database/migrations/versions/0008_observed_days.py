"""What was observed on each day, for the time when its raw rows are gone; a quarantined raw row is
known by its content and no longer by an id, which changes when the source is fetched again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"


def upgrade() -> None:
    op.create_table(
        "observed_days",
        sa.Column("pool_id", sa.Text(), primary_key=True),
        sa.Column("date", sa.Date(), primary_key=True),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "snapshot",
            sa.BigInteger(),
            comment=(
                "hash of pool, timestamp and content of the raw row; null: the value is"
                " pool_daily_metrics' own, rounded, its raw row was gone before this table was made"
            ),
        ),
        sa.Column("apy", sa.Double(), comment="percent; null: the snapshot had none"),
        sa.Column("tvl", sa.Double(), comment="USD; null: the snapshot had none"),
        schema=SCHEMA,
        comment=(
            "each day's last accepted snapshot, unrounded: it stands in for raw rows that are gone"
        ),
    )
    op.create_index(
        "observed_days_rounded_idx",
        "observed_days",
        ["pool_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("snapshot IS NULL"),
    )
    op.alter_column(
        "quarantine",
        "source_id",
        comment=(
            "of a raw pool row the hash of pool, timestamp and content: the same row under another"
            " id is the same"
        ),
        schema=SCHEMA,
    )
    op.alter_column(
        "quarantine",
        "replayed_as",
        comment="source_id of the row that took its place",
        existing_comment="the raw row that took its place",
        schema=SCHEMA,
    )
    for statement in (NEW_IDENTITIES, MERGE_DUPLICATES, RENAME, "DROP TABLE new_identities"):
        op.execute(statement)


def _identity(document: str) -> str:
    utc = "coalesce(q.timestamp AT TIME ZONE 'UTC', '-infinity'::timestamp)"
    pool = "hashtextextended(coalesce(q.pool_id, '') COLLATE \"C\", 0)"
    return (
        f"jsonb_hash_extended(coalesce({document}, 'null'::jsonb),"
        f" timestamp_hash_extended({utc}, {pool}))::text"
    )


NEW_IDENTITIES = f"""
CREATE TEMPORARY TABLE new_identities AS
SELECT q.id, q.source_id AS old_id, {_identity("q.raw_json_data")} AS new_id,
    CASE WHEN q.resolution = 'replayed' THEN {_identity("c.document")} END AS replaced_by
FROM {SCHEMA}.quarantine AS q
LEFT JOIN LATERAL (
    SELECT CASE
            WHEN changed.values IS NULL THEN q.raw_json_data
            WHEN jsonb_typeof(q.raw_json_data) = 'object' THEN q.raw_json_data || changed.values
            ELSE changed.values
        END AS document
    FROM (
        SELECT (
            SELECT r.plan -> 'corrections' -> e.id::text
            FROM {SCHEMA}.run_ledger AS r, {SCHEMA}.quarantine AS e
            WHERE r.run_id = q.resolved_by_run
                AND e.source_table = q.source_table
                AND e.source_id = q.source_id
                AND r.plan -> 'corrections' ? e.id::text
            LIMIT 1
        ) AS values
    ) AS changed
) AS c ON q.resolution = 'replayed'
WHERE q.source_table = 'raw_defillama_pool_history'
    AND q.source_id ~ '^[0-9]{{1,18}}$'"""
"""What a replayed row was replaced by follows from its content and the correction in the ledger."""

MERGE_DUPLICATES = f"""
DELETE FROM {SCHEMA}.quarantine AS q
USING (
    SELECT n.id, row_number() OVER (
        PARTITION BY n.new_id, q.reason
        ORDER BY q.resolution IN ('dropped', 'replayed') DESC NULLS LAST, q.id
    ) AS number
    FROM new_identities AS n
    JOIN {SCHEMA}.quarantine AS q ON q.id = n.id
) AS ranked
WHERE ranked.id = q.id
    AND ranked.number > 1"""

RENAME = f"""
UPDATE {SCHEMA}.quarantine AS q
SET source_id = n.new_id,
    replayed_as = coalesce(n.replaced_by, q.replayed_as)
FROM new_identities AS n
WHERE n.id = q.id"""
