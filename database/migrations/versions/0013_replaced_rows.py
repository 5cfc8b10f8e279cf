"""The rows that runs replace, and the marks of undone runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SCHEMA = "yieldspark"


def upgrade() -> None:
    _run_ledger()
    _run_changes()
    _replaced_rows()


def _run_ledger() -> None:
    for column in (
        sa.Column(
            "is_undoable",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the rows that it replaced are in replaced_rows",
        ),
        sa.Column(
            "undone_at",
            sa.DateTime(timezone=True),
            comment="when `undo` restored these rows",
        ),
        sa.Column("undone_by", sa.Text(), comment="user@host of who undid the run"),
    ):
        op.add_column("run_ledger", column, schema=SCHEMA)


def _run_changes() -> None:
    op.create_table(
        "run_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column(
            "table_name", sa.Text(), nullable=False, comment="with its schema, quoted for SQL"
        ),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment=(
                "written: rows were inserted or updated; deleted: rows were deleted; filled: the"
                " table had no row before"
            ),
        ),
        sa.Column(
            "key_columns",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="names for replaced_rows.key",
        ),
        sa.Column(
            "columns",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="names for replaced_rows.before",
        ),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
        comment=(
            "the changes of tables that the runs of the last UNDO_DAYS days made, in their order;"
            " `undo` reverses them"
        ),
    )
    op.create_index("run_changes_run_id_idx", "run_changes", ["run_id"], schema=SCHEMA)


def _replaced_rows() -> None:
    op.create_table(
        "replaced_rows",
        sa.Column("change_id", sa.BigInteger(), nullable=False, comment="id in run_changes"),
        sa.Column(
            "key",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="values of the key, as text",
        ),
        sa.Column(
            "before",
            postgresql.ARRAY(sa.Text()),
            comment="values before the run, as text; null: the run inserted the row",
        ),
        schema=SCHEMA,
        comment="the changed rows of run_changes; a change of kind filled has none",
    )
    op.create_index("replaced_rows_change_id_idx", "replaced_rows", ["change_id"], schema=SCHEMA)
