"""Reads PostgreSQL's catalog for a table as the current role sees it: columns, rights, row-level
security, rules, keys, sequences and indexes.

`information_schema` would hide tables that the role may not read. Draws no conclusions; `check`
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, text

from database.schema.merge_sql import qualified, quoted


@dataclass(frozen=True)
class CatalogColumn:
    """A column in the catalog.

    Attributes:
        type: name of its type; of a domain, the type below it.
        is_computed: generated, so no value can be written.
        is_required: NOT NULL without a default.
        rights: SELECT, INSERT, UPDATE.
    """

    type: str
    is_computed: bool
    is_required: bool
    rights: frozenset[str]


@dataclass(frozen=True)
class CatalogTable:
    """A table in the catalog.

    Attributes:
        oid: oid of the table.
        name: qualified and quoted name.
        kind: pg_class.relkind.
        may_delete: the role may delete rows.
        columns: columns by name.
        restricted: policies of row-level security apply to the role.
        rewritten: a rule replaces writes.
        has_children: other tables inherit from it, and their rows count as its own.
    """

    oid: int
    name: str
    kind: str
    may_delete: bool
    columns: Mapping[str, CatalogColumn]
    restricted: bool
    rewritten: bool
    has_children: bool


# ev_type 1 is the rule of a SELECT, which every view has
_TABLE = text("""
SELECT c.oid,
    c.relkind::text AS kind,
    has_table_privilege(c.oid, 'DELETE') AS may_delete,
    row_security_active(c.oid) AS restricted,
    EXISTS (
        SELECT FROM pg_rewrite AS r WHERE r.ev_class = c.oid AND r.ev_type <> '1'
    ) AS rewritten,
    c.relkind = 'r' AND EXISTS (
        SELECT FROM pg_inherits AS i WHERE i.inhparent = c.oid
    ) AS has_children
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = :schema
    AND c.relname = :name
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
""")

_COLUMNS = text("""
WITH RECURSIVE bases AS (
    -- a domain may be based on another domain
    SELECT oid AS type, typbasetype AS base, typnotnull AS is_required
    FROM pg_type
    WHERE typtype = 'd'
    UNION ALL
    SELECT b.type, t.typbasetype, b.is_required OR t.typnotnull
    FROM bases AS b
    JOIN pg_type AS t ON t.oid = b.base AND t.typtype = 'd'
),
domains AS (
    SELECT b.type, b.base, b.is_required
    FROM bases AS b
    JOIN pg_type AS t ON t.oid = b.base AND t.typtype <> 'd'
)
SELECT a.attname AS name,
    format_type(coalesce(d.base, a.atttypid), NULL) AS type,
    a.attgenerated <> '' OR a.attidentity = 'a' AS is_computed,
    (a.attnotnull OR coalesce(d.is_required, false))
        AND NOT a.atthasdef
        AND a.attidentity = '' AS is_required,
    ARRAY(
        SELECT command
        FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS command
        WHERE has_column_privilege(a.attrelid, a.attnum, command)
    ) AS rights
FROM pg_attribute AS a
LEFT JOIN domains AS d ON d.type = a.atttypid
WHERE a.attrelid = :table
    AND a.attnum > 0
    AND NOT a.attisdropped
""")

# ON CONFLICT by columns alone infers no deferrable, partial or expression index
_IS_UNIQUE = text("""
SELECT EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indrelid = :table
        AND i.indisunique
        AND i.indimmediate
        AND i.indisvalid
        AND i.indpred IS NULL
        AND i.indexprs IS NULL
        AND CAST(:key AS text[]) = (
            SELECT array_agg(a.attname::text ORDER BY a.attname)
            FROM pg_attribute AS a
            WHERE a.attrelid = i.indrelid
                AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
        )
)
""")

# internal triggers are those of foreign keys; a partition may have triggers of its own
_HAS_TRIGGERS = text("""
SELECT EXISTS (
    SELECT FROM pg_trigger AS t
    WHERE NOT t.tgisinternal
        AND t.tgenabled <> 'D'
        AND (
            t.tgrelid = CAST(:table AS regclass)
            OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(CAST(:table AS regclass)))
        )
)
""")

# a serial column needs a right on its sequence, an identity column does not
_INACCESSIBLE_SEQUENCES = text("""
SELECT DISTINCT format('%I.%I', n.nspname, s.relname)
FROM pg_attrdef AS d
JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
JOIN pg_depend AS x
    ON x.classid = 'pg_attrdef'::regclass
        AND x.objid = d.oid
        AND x.refclassid = 'pg_class'::regclass
JOIN pg_class AS s ON s.oid = x.refobjid
JOIN pg_namespace AS n ON n.oid = s.relnamespace
WHERE d.adrelid = :table
    AND a.attname <> ALL(CAST(:inserted AS text[]))
    AND CASE
        WHEN s.relkind = 'S'
            THEN NOT has_sequence_privilege(s.oid, 'USAGE')
                AND NOT has_sequence_privilege(s.oid, 'UPDATE')
    END
ORDER BY 1
""")

# an index with more columns serves as well, if these come first
_IS_INDEXED = text("""
SELECT EXISTS (
    SELECT FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_am AS m ON m.oid = c.relam
    WHERE i.indrelid = :table
        AND i.indisvalid
        AND i.indpred IS NULL
        AND m.amname = 'btree'
        AND CAST(:columns AS text[]) = (
            SELECT array_agg(a.attname::text ORDER BY k.place)
            FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE k.place <= cardinality(CAST(:columns AS text[]))
        )
)
""")


def read_catalog_table(connection: Connection, table: Table, schema: str) -> CatalogTable | None:
    """Return the table or view in the schema, None if there is none."""
    row = connection.execute(_TABLE, {"schema": schema, "name": table.name}).first()
    if row is None:
        return None
    columns = connection.execute(_COLUMNS, {"table": row.oid})
    return CatalogTable(
        oid=row.oid,
        name=f"{quoted(schema)}.{quoted(table.name)}",
        kind=row.kind,
        may_delete=row.may_delete,
        columns={column.name: _column(column) for column in columns},
        restricted=row.restricted,
        rewritten=row.rewritten,
        has_children=row.has_children,
    )


def _column(row: Any) -> CatalogColumn:
    return CatalogColumn(row.type, row.is_computed, row.is_required, frozenset(row.rights))


def is_unique(connection: Connection, table: CatalogTable, key: Sequence[str]) -> bool:
    """Whether an upsert by these columns has a unique index."""
    return bool(
        # sorted on both sides: the order of the index's columns does not matter
        connection.execute(_IS_UNIQUE, {"table": table.oid, "key": sorted(key)}).scalar_one()
    )


def has_triggers(connection: Connection, table: Table) -> bool:
    """Whether the table or one of its partitions has a trigger, which may drop or change rows."""
    return bool(connection.execute(_HAS_TRIGGERS, {"table": qualified(table)}).scalar_one())


def is_indexed(connection: Connection, table: CatalogTable, columns: Sequence[str]) -> bool:
    """Whether an index without a condition begins with these columns."""
    parameters = {"table": table.oid, "columns": list(columns)}
    return bool(connection.execute(_IS_INDEXED, parameters).scalar_one())


def inaccessible_sequences(
    connection: Connection, table: CatalogTable, inserted: Sequence[str]
) -> tuple[str, ...]:
    """Return sequences that an INSERT needs and the role may not use.

    Args:
        connection: connection to the database.
        table: the table.
        inserted: columns that the INSERT sets itself. Identity columns need no right.
    """
    parameters = {"table": table.oid, "inserted": list(inserted)}
    return tuple(connection.execute(_INACCESSIBLE_SEQUENCES, parameters).scalars())
