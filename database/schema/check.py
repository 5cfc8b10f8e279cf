"""Checks, before a job starts, that the owner's tables have what the job reads and writes and that
the role has the rights.

Checks the columns of `table_use` only, by family of types (text, number, date). Changes nothing;
missing rights and indexes are reported as the statements that create them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects.postgresql import JSONB

from common.errors import DatabaseRefused, SchemaMismatch
from database.schema.catalog import (
    CatalogTable,
    inaccessible_sequences,
    is_indexed,
    is_unique,
    read_catalog_table,
)
from database.schema.merge_sql import qualified, quoted
from database.schema.metrics_table import create_statements, metrics_table_of
from database.schema.own_schema import COMMANDS, SCHEMA, missing_own_rights
from database.schema.owner_tables import pool_daily_metrics, raw_pool_history
from database.schema.table_use import TableUse

log = logging.getLogger(__name__)

# any type of a family works: the merge casts to the stored type
_FAMILIES = {
    "text": {"text", "character varying", "character"},
    "number": {"numeric", "double precision", "real", "bigint", "integer", "smallint"},
    "date": {"date"},
    "timestamp with time zone": {"timestamp with time zone"},
    "jsonb": {"jsonb"},
    "boolean": {"boolean"},
    "array": {"text[]", "character varying[]", "character[]"},
}
_FAMILY_OF_PYTHON = {
    "str": "text",
    "int": "number",
    "float": "number",
    "Decimal": "number",
    "date": "date",
    "datetime": "timestamp with time zone",
    "bool": "boolean",
    "list": "array",
}

READ_AS_TEXT = {"pool_group"}
"""Columns of the metrics table that are read as text and never written; any type is accepted."""

HISTORY_INDEXES = (("pool_id", "timestamp"), ("insertion_timestamp",))
"""Columns that every run searches the raw history by."""

ORDINARY, PARTITIONED = "r", "p"
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass
class TableProblems:
    """Problems of the tables for a role, as messages and statements.

    Attributes:
        role: the role, quoted for SQL.
        missing: tables that `db migrate` creates if the role may.
        creates: statements that create them.
        problems: messages about changes that only the owner can make.
        lacking: missing rights.
        grants: statements that grant them.
        indexes: statements that create missing indexes; without them runs are slow.
    """

    role: str
    missing: list[str] = field(default_factory=list)
    creates: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)

    @property
    def missing_tables_message(self) -> str | None:
        """Message about missing tables, None if there are none."""
        if not self.missing:
            return None
        return (
            f"missing: {', '.join(self.missing)}. `db migrate` creates them if role {self.role}"
            f" may create tables in their schema; else, as its owner run: {' '.join(self.creates)}"
        )

    @property
    def missing_rights_message(self) -> str | None:
        """Message about missing rights, None if there are none."""
        if not self.grants:
            return None
        return (
            f"role {self.role} lacks {', '.join(self.lacking)}. As the owner of the tables run:"
            f" {' '.join(self.grants)}"
        )

    @property
    def missing_indexes_message(self) -> str | None:
        """Message about missing indexes, None if there are none."""
        if not self.indexes:
            return None
        return (
            "runs scan the whole raw history several times, because it lacks an index. As its"
            f" owner run: {' '.join(self.indexes)}"
        )


def problems_payload(report: TableProblems) -> dict[str, list[str]]:
    """Return the JSON output of a command, empty if there are no problems."""
    lists = {
        "missing": report.missing,
        "creates": report.creates,
        "problems": report.problems,
        "lacking": report.lacking,
        "grants": report.grants,
        "indexes": report.indexes,
    }
    return {name: entries for name, entries in lists.items() if entries}


def verify_tables(connection: Connection, uses: Iterable[TableUse]) -> None:
    """Check the tables of a job and log missing indexes as a warning.

    Args:
        connection: connection to the database.
        uses: tables that the job reads and writes.

    Raises:
        SchemaMismatch: names every missing table or column, wrong type, key without a unique index
            and table that cannot be written.
        DatabaseRefused: only rights are missing; the message has the GRANT statements.
    """
    report = find_table_problems(connection, uses)
    if report.missing_indexes_message:
        log.warning("%s", report.missing_indexes_message)
    messages = [f"table {name} is missing" for name in report.missing] + report.problems
    if messages:
        others = filter(None, (report.missing_tables_message, report.missing_rights_message))
        also = "".join(f". Also {message}" for message in others)
        raise SchemaMismatch(
            f"{'; '.join(messages)}. Create or change them as in docs/reference/tables.md;"
            f" YieldSpark never alters your tables{also}"
        )
    if report.missing_rights_message:
        raise DatabaseRefused(report.missing_rights_message)


def find_table_problems(connection: Connection, uses: Iterable[TableUse]) -> TableProblems:
    """Return all problems, in the order of `uses`.

    Args:
        connection: connection to the database.
        uses: tables that a job reads and writes.
    """
    report = TableProblems(
        connection.execute(text("SELECT quote_ident(current_user)")).scalar_one()
    )
    schema = connection.execute(SCHEMA, {"schema": None}).one()
    if not schema.is_there:
        report.problems.append(
            f"schema {schema.name} is missing: set DB_SCHEMA to the schema of your tables"
        )
        # otherwise every table would be reported as missing
        return report
    if not schema.may_use:
        _add_missing_right(
            report, f"USAGE on schema {schema.name}", f"USAGE ON SCHEMA {schema.name}"
        )
    rights: dict[str, list[str]] = {}
    absent_commands: dict[str, list[str]] = {}
    for use in _resolve_metrics_table(connection, uses):
        stored = read_catalog_table(connection, use.table, schema.name)
        if stored is None:
            report.missing.append(qualified(use.table))
            report.creates += create_statements(use.table, schema.name)
            absent_commands.setdefault(f"{schema.name}.{qualified(use.table)}", []).extend(
                use.commands
            )
            continue
        report.problems += _column_problems(use, stored) + _write_problems(use, stored)
        report.problems += _hidden_rows(use, stored, report.role)
        report.problems += _key_problems(connection, use, stored)
        rights.setdefault(stored.name, []).extend(_missing_rights(use, stored))
        report.indexes += _missing_indexes(connection, use.table, stored)
        for name in inaccessible_sequences(connection, stored, use.inserts) if use.inserts else ():
            _add_missing_right(report, f"USAGE on sequence {name}", f"USAGE ON SEQUENCE {name}")
    for name, commands in absent_commands.items():
        listed = ", ".join(command for command in COMMANDS if command in commands)
        # the owner creates the table, and the role needs rights on it
        report.creates.append(f"GRANT {listed} ON {name} TO {report.role};")
    for name, commands in rights.items():
        listed = ", ".join(command for command in COMMANDS if command in commands)
        if listed:
            _add_missing_right(report, f"{listed} on {name}", f"{listed} ON {name}")
    for right, grant in missing_own_rights(connection):
        report.lacking.append(right)
        report.grants.append(grant)
    for name in ("missing", "creates", "problems", "lacking", "grants", "indexes"):
        # both jobs may use the same table
        setattr(report, name, list(dict.fromkeys(getattr(report, name))))
    return report


def _resolve_metrics_table(connection: Connection, uses: Iterable[TableUse]) -> list[TableUse]:
    """Return the uses with the metrics table that METRICS_TABLE names."""
    metrics = metrics_table_of(connection)
    return [replace(use, table=metrics) if use.table is pool_daily_metrics else use for use in uses]


def _add_missing_right(report: TableProblems, right: str, grant: str) -> None:
    report.lacking.append(right)
    report.grants.append(f"GRANT {grant} TO {report.role};")


def _column_problems(use: TableUse, stored: CatalogTable) -> list[str]:
    problems = []
    for name in use.columns:
        column = f"{qualified(use.table)}.{name}"
        family = _family(use.table, name)
        if name not in stored.columns:
            problems.append(f"column {column} is missing")
        elif family is not None and stored.columns[name].type not in _FAMILIES[family]:
            problems.append(f"column {column} is {stored.columns[name].type}, expected {family}")
    return problems


def _family(table: Table, name: str) -> str | None:
    """Return the family of types that a column needs; None accepts any type."""
    if name in READ_AS_TEXT:
        return None
    type_ = table.c[name].type
    if isinstance(type_, JSONB):
        return "jsonb"
    return _FAMILY_OF_PYTHON[type_.python_type.__name__]


def _write_problems(use: TableUse, stored: CatalogTable) -> list[str]:
    """Return reasons, except rights, for which PostgreSQL would reject writes."""
    if not use.is_written:
        return []
    table = qualified(use.table)
    if stored.kind not in (ORDINARY, PARTITIONED):
        return [
            f"{table} is {_KINDS[stored.kind]}, and YieldSpark writes to it: set DB_SCHEMA to the"
            " schema that has the table itself, or METRICS_TABLE to another table"
        ]
    written = {*use.inserts, *use.updates}
    problems = [
        f"column {table}.{name} is generated, and YieldSpark writes it: make it an ordinary column"
        for name, column in stored.columns.items()
        if name in written and column.is_computed
    ]
    problems += [
        f"column {table}.{name} is NOT NULL without a default, and YieldSpark does not write it:"
        " give it a default"
        for name, column in stored.columns.items()
        if use.inserts and name not in written and column.is_required
    ]
    if stored.rewritten:
        problems.append(
            f"table {table} has a rule that replaces writes, which an upsert does not support:"
            " use a trigger instead"
        )
    return problems


def _hidden_rows(use: TableUse, stored: CatalogTable, role: str) -> list[str]:
    """Return the problem of row-level security: with `row_security=off`
    PostgreSQL rejects queries.
    """
    if not stored.restricted:
        return []
    return [
        f"row-level security of {qualified(use.table)} applies to role {role} and may hide rows:"
        f" metrics of some rows would be wrong. As a superuser run: ALTER ROLE {role} BYPASSRLS;"
        f" or as the table's owner: ALTER TABLE {stored.name} DISABLE ROW LEVEL SECURITY;"
    ]


def _key_problems(connection: Connection, use: TableUse, stored: CatalogTable) -> list[str]:
    """Return problems of the primary key, except for a generated one and for views."""
    key = [column.name for column in use.table.primary_key if column.identity is None]
    if not key or not set(key) <= set(stored.columns) or stored.kind not in (ORDINARY, PARTITIONED):
        return []
    table, columns = qualified(use.table), ", ".join(key)
    if not is_unique(connection, stored, key):
        return [f"table {table} has no unique index on ({columns})"]
    if use.is_written and stored.has_children:
        return [
            f"other tables inherit from {table}, and its unique index on ({columns}) does not hold"
            " over them: partition it by PARTITION BY, or detach them by NO INHERIT"
        ]
    return []


def _missing_rights(use: TableUse, stored: CatalogTable) -> list[str]:
    """Return commands that the role may not use. Rights on all columns are as good as one on the
    table.
    """
    # a DELETE looks at all columns for values of other jobs
    reads = stored.columns if use.deletes else use.reads
    columns = {"SELECT": reads, "INSERT": use.inserts, "UPDATE": use.updates}
    missing = []
    for command, names in columns.items():
        # a missing column is reported by itself
        rights = [stored.columns[name].rights for name in names if name in stored.columns]
        if not all(command in granted for granted in rights):
            missing.append(command)
    if use.deletes and not stored.may_delete:
        missing.append("DELETE")
    return missing


def _missing_indexes(connection: Connection, table: Table, stored: CatalogTable) -> list[str]:
    if table is not raw_pool_history or stored.kind not in (ORDINARY, PARTITIONED):
        return []
    # PostgreSQL does not support CONCURRENTLY for a partitioned table
    concurrently = "CONCURRENTLY " if stored.kind == ORDINARY else ""
    return [
        f"CREATE INDEX {concurrently}ON {stored.name} ({', '.join(map(quoted, columns))});"
        for columns in HISTORY_INDEXES
        if set(columns) <= set(stored.columns) and not is_indexed(connection, stored, columns)
    ]
