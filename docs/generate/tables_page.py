"""docs/reference/tables.md, from `owner_tables` and `own_tables`."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from database.schema import own_tables, owner_tables
from docs.generate.marked_table import markdown_table

INTRODUCTION = """# Tables

APY is in percent (5.0 = 5 %), TVL and prices in USD, gas in gwei; days are UTC.

`db migrate` creates the tables that are missing. The tables of your own schema (`DB_SCHEMA`, by
default `public`) are never altered; in `pool_daily_metrics`, the metrics job and the forecast job
write the columns that are marked so, and nothing else.
"""

HEADS = ("column", "type", "meaning")

WRITERS = {
    **dict.fromkeys(owner_tables.METRIC_COLUMNS, "metrics job"),
    **dict.fromkeys(owner_tables.FORECAST_COLUMNS, "forecast job"),
}


def tables_page() -> str:
    """The page: the owner's tables, then those of the schema `yieldspark`."""
    parts = [INTRODUCTION, "## Your own schema\n", *map(_owner_table, owner_tables.OWNER_TABLES)]
    own = sorted(own_tables.own_metadata.tables.values(), key=lambda table: table.name)
    return "\n".join([*parts, f"## Schema `{own_tables.OWN_SCHEMA}`\n", *map(_own_table, own)])


def _owner_table(table: Table) -> str:
    if table is not owner_tables.pool_daily_metrics:
        return _own_table(table)
    rows = [(*_facts(column), WRITERS.get(column.name, "")) for column in table.columns]
    return _section(table, (*HEADS, "written by"), rows)


def _own_table(table: Table) -> str:
    return _section(table, HEADS, map(_facts, table.columns))


def _section(table: Table, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    keys = ", ".join(f"`{column.name}`" for column in table.primary_key)
    description = table.comment or table.info.get("description", "")
    sentence = f"{description[:1].upper()}{description[1:]}." if description else ""
    head = " ".join(part for part in (sentence, f"Primary key: {keys}.") if part)
    return f"### {table.name}\n\n{head}\n\n{markdown_table(heads, rows)}\n"


def _facts(column: Column[object]) -> tuple[str, str, str]:
    kind = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    required = "" if column.nullable else ", not null"
    return f"`{column.name}`", f"{kind.lower()}{required}", column.comment or column.doc or ""
