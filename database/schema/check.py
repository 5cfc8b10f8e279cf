"""Are the owner's tables what this version reads and writes, and may this role do it? Asked before
a job starts, so that it fails with a name and not in the middle.

Only columns of `table_use` count, and of a column its family (text, number, date ..), not its exact
type. What rows are upserted by must be unique. Nothing is changed; missing rights and indexes come
as the statements that give them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, Table, text

from common.errors import DatabaseRefused, SchemaMismatch
from database.schema.merge_sql import qualified, quoted
from database.schema.metrics_table import create_statements, metrics_table_of
from database.schema.own_schema import COMMANDS, SCHEMA, missing_own_rights
from database.schema.table_facts import (
    TableFacts,
    inaccessible_sequences,
    is_indexed,
    is_unique,
    table_facts,
)
from database.schema.table_use import TableUse
from database.schema.tables import pool_daily_metrics, raw_pool_history

log = logging.getLogger(__name__)

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
"""Columns of the metrics table that are read as text and never written: any type will do."""

HISTORY_INDEXES = (("pool_id", "timestamp"), ("insertion_timestamp",))
"""What raw history is searched by in every run."""

ORDINARY, PARTITIONED = "r", "p"
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass
class TableProblems:
    """What stands in the way of a job, each in words, and the statements that help.

    `missing` are tables that `db migrate` makes where the role may, and `creates` what makes them;
    `problems` are what only the owner can change; `grants` give the rights that `lacking` names;
    `indexes` make a run fast and are no condition.
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
        """Which tables are missing, and what makes them, as one sentence."""
        if not self.missing:
            return None
        return (
            f"missing: {', '.join(self.missing)}. `db migrate` makes them where role {self.role}"
            f" may create tables in their schema; else, as its owner run: {' '.join(self.creates)}"
        )

    @property
    def missing_rights_message(self) -> str | None:
        """Which rights the role lacks, and what gives them, as one sentence."""
        if not self.grants:
            return None
        return (
            f"role {self.role} lacks {', '.join(self.lacking)}. As the owner of the tables run:"
            f" {' '.join(self.grants)}"
        )

    @property
    def missing_indexes_message(self) -> str | None:
        """Which indexes raw history lacks, and what makes them, as one sentence."""
        if not self.indexes:
            return None
        return (
            "runs read all of the raw history again and again, because it has no index for what"
            f" they look for. As its owner run: {' '.join(self.indexes)}"
        )


def problems_payload(findings: TableProblems) -> dict[str, list[str]]:
    """What a command prints: nothing where all is well."""
    shown = {
        "missing": findings.missing,
        "creates": findings.creates,
        "problems": findings.problems,
        "lacking": findings.lacking,
        "grants": findings.grants,
        "indexes": findings.indexes,
    }
    return {name: found for name, found in shown.items() if found}


def verify_tables(connection: Connection, uses: Iterable[TableUse]) -> None:
    """Warn of missing indexes, and stop where a job would fail.

    Raises: SchemaMismatch naming every missing table and column, column of another type, key that
    is not unique and table that can't be written; DatabaseRefused with the GRANT statements where
    rights alone are missing.
    """
    findings = find_table_problems(connection, uses)
    if findings.missing_indexes_message:
        log.warning("%s", findings.missing_indexes_message)
    wrong = [f"table {name} is missing" for name in findings.missing] + findings.problems
    if wrong:
        more = [
            sentence
            for sentence in (findings.missing_tables_message, findings.missing_rights_message)
            if sentence
        ]
        raise SchemaMismatch(
            f"{'; '.join(wrong)}. Create or change them as database/schema/tables.py has them;"
            f" YieldSpark never alters your tables{''.join(f'. And {one}' for one in more)}"
        )
    if findings.missing_rights_message:
        raise DatabaseRefused(findings.missing_rights_message)


def find_table_problems(connection: Connection, uses: Iterable[TableUse]) -> TableProblems:
    """Everything that stands in the way, in the order of `uses`."""
    findings = TableProblems(
        connection.execute(text("SELECT quote_ident(current_user)")).scalar_one()
    )
    schema = connection.execute(SCHEMA, {"schema": None}).one()
    if not schema.is_there:
        findings.problems.append(
            f"schema {schema.name} is missing: set DB_SCHEMA to the schema of your tables"
        )
        return findings
    if not schema.may_use:
        _lacks(findings, f"USAGE on schema {schema.name}", f"USAGE ON SCHEMA {schema.name}")
    rights: dict[str, list[str]] = {}
    absent: dict[str, list[str]] = {}
    for use in _named(connection, uses):
        facts = table_facts(connection, use.table, schema.name)
        if facts is None:
            findings.missing.append(qualified(use.table))
            findings.creates += create_statements(use.table, schema.name)
            absent.setdefault(f"{schema.name}.{qualified(use.table)}", []).extend(use.commands)
            continue
        findings.problems += _column_problems(use, facts) + _write_problems(use, facts)
        findings.problems += _hidden_rows(use, facts, findings.role)
        findings.problems += _key_problems(connection, use, facts)
        rights.setdefault(facts.name, []).extend(_missing_rights(use, facts))
        findings.indexes += _missing_indexes(connection, use.table, facts)
        for name in inaccessible_sequences(connection, facts, use.inserts) if use.inserts else ():
            _lacks(findings, f"USAGE on sequence {name}", f"USAGE ON SEQUENCE {name}")
    for name, commands in absent.items():
        listed = ", ".join(command for command in COMMANDS if command in commands)
        findings.creates.append(f"GRANT {listed} ON {name} TO {findings.role};")
    for name, commands in rights.items():
        for_all = [command for command in COMMANDS if command in commands]
        if for_all:
            listed = ", ".join(for_all)
            _lacks(findings, f"{listed} on {name}", f"{listed} ON {name}")
    for right, grant in missing_own_rights(connection):
        findings.lacking.append(right)
        findings.grants.append(grant)
    for name in ("missing", "creates", "problems", "lacking", "grants", "indexes"):
        # two jobs use the same table
        setattr(findings, name, list(dict.fromkeys(getattr(findings, name))))
    return findings


def _named(connection: Connection, uses: Iterable[TableUse]) -> list[TableUse]:
    """The uses, of the metrics table under the name that METRICS_TABLE gives."""
    metrics = metrics_table_of(connection)
    return [replace(use, table=metrics) if use.table is pool_daily_metrics else use for use in uses]


def _lacks(findings: TableProblems, right: str, grant: str) -> None:
    findings.lacking.append(right)
    findings.grants.append(f"GRANT {grant} TO {findings.role};")


def _column_problems(use: TableUse, facts: TableFacts) -> list[str]:
    problems = []
    for name in use.columns:
        shown = f"{qualified(use.table)}.{name}"
        family = _family(use.table, name)
        if name not in facts.columns:
            problems.append(f"column {shown} is missing")
        elif family is not None and facts.columns[name].type not in _FAMILIES[family]:
            problems.append(f"column {shown} is {facts.columns[name].type}, expected {family}")
    return problems


def _family(table: Table, name: str) -> str | None:
    """None where any type will do."""
    if name in READ_AS_TEXT:
        return None
    kind = table.c[name].type
    return (
        "jsonb" if type(kind).__name__ == "JSONB" else _FAMILY_OF_PYTHON[kind.python_type.__name__]
    )


def _write_problems(use: TableUse, facts: TableFacts) -> list[str]:
    """What PostgreSQL would refuse to write, whatever the rights."""
    if not use.is_written:
        return []
    table = qualified(use.table)
    if facts.kind not in (ORDINARY, PARTITIONED):
        return [
            f"{table} is {_KINDS[facts.kind]}, and YieldSpark writes to it: set DB_SCHEMA to the"
            " schema that has the table itself, or METRICS_TABLE to another table"
        ]
    written = {*use.inserts, *use.updates}
    problems = [
        f"column {table}.{name} is generated, and YieldSpark writes it: make it an ordinary column"
        for name, column in facts.columns.items()
        if name in written and column.is_computed
    ]
    problems += [
        f"column {table}.{name} is NOT NULL without a default, and YieldSpark does not write it:"
        " give it a default"
        for name, column in facts.columns.items()
        if use.inserts and name not in written and column.is_required
    ]
    if facts.rewritten:
        problems.append(
            f"table {table} has a rule that replaces writes, and an upsert takes none: use a"
            " trigger in its place"
        )
    return problems


def _hidden_rows(use: TableUse, facts: TableFacts, role: str) -> list[str]:
    """Sessions have `row_security=off`, under which PostgreSQL refuses such a table."""
    if not facts.restricted:
        return []
    return [
        f"row-level security of {qualified(use.table)} applies to role {role} and may hide rows:"
        f" metrics of some rows would be wrong. As a superuser run: ALTER ROLE {role} BYPASSRLS;"
        f" or as the table's owner: ALTER TABLE {facts.name} DISABLE ROW LEVEL SECURITY;"
    ]


def _key_problems(connection: Connection, use: TableUse, facts: TableFacts) -> list[str]:
    """A key that is a number the database makes up is never upserted by; a view has none."""
    key = [column.name for column in use.table.primary_key if column.identity is None]
    if not key or not set(key) <= set(facts.columns) or facts.kind not in (ORDINARY, PARTITIONED):
        return []
    table, columns = qualified(use.table), ", ".join(key)
    if not is_unique(connection, facts, key):
        return [f"table {table} has no unique index on ({columns})"]
    if use.is_written and facts.has_children:
        return [
            f"other tables inherit from {table}, and its unique index on ({columns}) does not hold"
            " over them: partition it by PARTITION BY, or detach them by NO INHERIT"
        ]
    return []


def _missing_rights(use: TableUse, facts: TableFacts) -> list[str]:
    """Rights on each column are as good as one on the table."""
    reads = facts.columns if use.deletes else use.reads
    wanted = {"SELECT": reads, "INSERT": use.inserts, "UPDATE": use.updates}
    missing = [
        command
        for command, names in wanted.items()
        if any(command not in facts.columns[name].rights for name in names if name in facts.columns)
    ]
    return [*missing, *(["DELETE"] if use.deletes and not facts.may_delete else [])]


def _missing_indexes(connection: Connection, table: Table, facts: TableFacts) -> list[str]:
    if table is not raw_pool_history or facts.kind not in (ORDINARY, PARTITIONED):
        return []
    # PostgreSQL makes no index of a partitioned table concurrently
    concurrently = "CONCURRENTLY " if facts.kind == ORDINARY else ""
    return [
        f"CREATE INDEX {concurrently}ON {facts.name} ({', '.join(map(quoted, columns))});"
        for columns in HISTORY_INDEXES
        if set(columns) <= set(facts.columns) and not is_indexed(connection, facts, columns)
    ]
