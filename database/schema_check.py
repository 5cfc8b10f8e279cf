"""Are the owner's tables what this version reads and writes? Asked before a job starts, so that it
fails with a name and not in the middle.

A column's family counts (text, number, date ..), not its exact type: the owner's tables may be
wider than `tables.py` says. What they are upserted by must be unique; of a view, which is read
alone, nothing of the kind is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, Table, text

from database.merge_sql import qualified
from product_errors import SchemaMismatch

_FAMILIES = {
    "text": {"text", "character varying", "character"},
    "number": {"numeric", "double precision", "real", "bigint", "integer", "smallint"},
    "date": {"date"},
    "timestamp": {"timestamp with time zone"},
    "jsonb": {"jsonb"},
    "boolean": {"boolean"},
    "array": {"ARRAY"},
}
_FAMILY_OF_PYTHON = {
    "str": "text",
    "int": "number",
    "float": "number",
    "Decimal": "number",
    "date": "date",
    "datetime": "timestamp",
    "bool": "boolean",
    "list": "array",
}

_COLUMNS = text(
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema ="
    " coalesce(:schema, current_schema()) AND table_name = :name"
)

_IS_UNIQUE = text(
    "SELECT c.relkind NOT IN ('r', 'p') OR EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid ="
    " c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND"
    " i.indexprs IS NULL AND CAST(:key AS text[]) = (SELECT array_agg(a.attname::text ORDER BY"
    " a.attname) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum = ANY"
    " (i.indkey[0:i.indnkeyatts - 1]))) FROM pg_class AS c WHERE c.oid = CAST(:table AS regclass)"
)


def verify_tables(connection: Connection, tables: Iterable[Table]) -> None:
    """Raises: SchemaMismatch naming every missing table, missing column, column of another type and
    key that is not unique.
    """
    problems = [problem for table in tables for problem in _problems(connection, table)]
    if problems:
        raise SchemaMismatch(
            f"{'; '.join(problems)}. Create or change them as database/tables.py has them;"
            " YieldSpark never alters your tables"
        )


def _problems(connection: Connection, table: Table) -> list[str]:
    found = {
        row.column_name: row.data_type
        for row in connection.execute(_COLUMNS, {"schema": table.schema, "name": table.name})
    }
    if not found:
        return [f"table {qualified(table)} is missing"]
    problems = []
    for column in table.columns:
        family = (
            "jsonb"
            if type(column.type).__name__ == "JSONB"
            else _FAMILY_OF_PYTHON[column.type.python_type.__name__]
        )
        if column.name not in found:
            problems.append(f"column {qualified(table)}.{column.name} is missing")
        elif found[column.name] not in _FAMILIES[family]:
            problems.append(
                f"column {qualified(table)}.{column.name} is {found[column.name]}, expected"
                f" {family}"
            )
    return problems + _key_problems(connection, table, found)


def _key_problems(connection: Connection, table: Table, found: Collection[str]) -> list[str]:
    """A key that is a number the database makes up is never upserted by."""
    key = [column.name for column in table.primary_key if column.identity is None]
    if not key or not set(key) <= set(found):
        return []
    is_unique = connection.execute(
        _IS_UNIQUE, {"key": sorted(key), "table": qualified(table)}
    ).scalar_one()
    return (
        [] if is_unique else [f"table {qualified(table)} has no unique index on ({', '.join(key)})"]
    )
