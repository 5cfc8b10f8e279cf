"""Are the owner's tables what this version reads and writes? Asked before a job starts, so that it fails with a name and not in the middle.

A column's family counts (text, number, date ..), not its exact type: the owner's tables may be wider than `tables.py` says.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Table, text

from database.merge_sql import qualified
from product_errors import SchemaMismatch

_FAMILIES = {
    "text": {"text", "character varying", "character", "uuid"},
    "number": {"numeric", "double precision", "real", "bigint", "integer", "smallint"},
    "date": {"date"},
    "timestamp": {"timestamp with time zone"},
    "json": {"jsonb", "json"},
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
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = coalesce(:schema, current_schema()) AND table_name = :name"
)


def verify_tables(connection: Connection, tables: Iterable[Table]) -> None:
    """Raises: SchemaMismatch naming every missing table, missing column and column of another type."""
    problems = [problem for table in tables for problem in _problems(connection, table)]
    if problems:
        raise SchemaMismatch(f"{'; '.join(problems)}. Create or change them as database/tables.py has them; YieldSpark never alters your tables")


def _problems(connection: Connection, table: Table) -> list[str]:
    found = {row.column_name: row.data_type for row in connection.execute(_COLUMNS, {"schema": table.schema, "name": table.name})}
    if not found:
        return [f"table {qualified(table)} is missing"]
    problems = []
    for column in table.columns:
        family = "json" if type(column.type).__name__ == "JSONB" else _FAMILY_OF_PYTHON[column.type.python_type.__name__]
        if column.name not in found:
            problems.append(f"column {qualified(table)}.{column.name} is missing")
        elif found[column.name] not in _FAMILIES[family]:
            problems.append(f"column {qualified(table)}.{column.name} is {found[column.name]}, expected {family}")
    return problems
