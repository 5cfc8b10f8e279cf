"""Compares our metrics with another table's, row by row and column by column.

Reads the metrics table, YieldSpark's own tables and the other table; writes nothing. Returns counts
by column, kind and rule, and the first rows that no rule explains, as plain values. One statement
counts, in PostgreSQL; a second one runs only if something is unexplained. No Spark.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, MetaData, Table, text

from common.errors import ConfigurationError, DatabaseRefused, NotEnoughHistory, SchemaMismatch
from data_processing.comparison.comparison_sql import (
    NO_RULE,
    OURS_ALONE,
    THEIRS_ALONE,
    Kind,
    Sides,
    counts_by_signature,
    unexplained_rows,
)
from data_processing.comparison.rules import (
    UNEXPLAINED,
    Precision,
    Rule,
    column_rules,
    our_row_rules,
    their_row_rules,
)
from data_processing.planning.last_run import last_good_run
from data_processing.planning.plan import JOB
from database.connections.engine import checked_connection
from database.schema.catalog import CatalogTable, is_unique, read_catalog_table
from database.schema.merge_sql import qualified, quoted, stored_types
from database.schema.metrics_table import REGCLASS, metrics_table_of, require_same_metrics_table
from database.schema.own_schema import SCHEMA
from database.schema.owner_tables import METRIC_COLUMNS

NAME = re.compile(r"(?:([A-Za-z_][A-Za-z0-9_$]*)\.)?([A-Za-z_][A-Za-z0-9_$]*)")

LISTED_ROWS = 20

KEY_TYPES = {"pool_id": ("text", "character varying", "character"), "date": ("date",)}

FIXED = re.compile(r"numeric\((\d+),(-?\d+)\)")

WIDEST = 100
"""Digits of a decimal up to which the square of its values is within the range of a double."""

LEAST, MOST = Decimal("1e-30"), Decimal("1e30")
"""Bounds of a tolerance other than 0."""

NUMBERS = {"numeric", "double precision", "real", "bigint", "integer", "smallint"}


@dataclass(frozen=True)
class Comparison:
    """A request to compare tables.

    Attributes:
        table: the other table as `NAME` or `SCHEMA.NAME`.
        tolerance: difference up to which values are equal, in each column's own unit; None for one
            unit of the last decimal that both tables store.
        pools: pool ids; None for all.
        start: first day, UTC; None for all.
        end: end of the days, exclusive; None for all.
        listed: how many unexplained values to return.
    """

    table: str
    tolerance: str | None = None
    pools: Sequence[str] | None = None
    start: date | None = None
    end: date | None = None
    listed: int = LISTED_ROWS


def compare_tables(engine: Engine, request: Comparison) -> dict[str, Any]:
    """Compare the metrics table with another one.

    Args:
        engine: the database.
        request: the other table, days, pools and tolerance.

    Returns:
        `ours` and `theirs` (names), `run_end` (the day after the last one of our last run), `rows`
        {both, only_ours and only_theirs by rule}, `columns` {name: {equal, both_null, different,
        only_ours, only_theirs, rules}}, `rules` {name: meaning}, `not_compared` (columns that the
        other table lacks or has as something else than numbers), `unexplained` (values and rows)
        and `examples` of them: [{pool_id, date, column, ours, theirs}].

    Raises:
        ConfigurationError: the table is missing, its name is no table's, or it is ours.
        DatabaseRefused: the table can't be read; the message has the GRANT statement.
        SchemaMismatch: the table has no key or nothing to compare.
        NotEnoughHistory: no metrics run has succeeded.
    """
    with checked_connection(
        engine.execution_options(isolation_level="REPEATABLE READ")
    ) as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        require_same_metrics_table(connection)
        run_end = _last_run_end(connection)
        metrics_table = metrics_table_of(connection)
        other_table = _other_table(connection, request.table)
        catalog = _readable_catalog(connection, other_table)
        precisions = _precisions(connection, other_table, catalog, request.tolerance)
        sides = Sides(qualified(metrics_table), qualified(other_table), precisions)
        _require_one_row_a_day(connection, catalog)
        parameters = {
            "pools": list(request.pools) if request.pools is not None else None,
            "first": request.start,
            "end": request.end,
            "run_end": run_end,
        }
        counts = connection.execute(text(counts_by_signature(sides)), parameters).all()
        summary = _summary({row.signature: row.rows for row in counts}, sides)
        examples = []
        if summary["unexplained"]:
            examples = _read_examples(connection, sides, parameters, request.listed)
    return {
        "ours": metrics_table.name,
        "theirs": catalog.name,
        "run_end": run_end.isoformat(),
        **summary,
        "not_compared": [name for name in METRIC_COLUMNS if name not in sides.columns],
        "examples": examples,
    }


def _last_run_end(connection: Connection) -> date:
    """Return the day after the last one of the last good run."""
    previous = last_good_run(connection, JOB)
    if previous is None:
        raise NotEnoughHistory(
            "compare: no run of `calculate_metrics` has ended well yet, so there is nothing to"
            " compare with. Run `calculate_metrics`, then compare"
        )
    return previous.end


def _other_table(connection: Connection, name: str) -> Table:
    parts = NAME.fullmatch(name)
    if parts is None:
        raise ConfigurationError(
            f"--table {name!r} is no table's name: give NAME, or SCHEMA.NAME for one in another"
            " schema than DB_SCHEMA"
        )
    schema = connection.execute(SCHEMA, {"schema": parts[1]}).one()
    return Table(parts[2], MetaData(), schema=schema.name)


def _readable_catalog(connection: Connection, other_table: Table) -> CatalogTable:
    """Return the columns and rights of a readable table with pool_id and date that is not ours."""
    schema = connection.execute(SCHEMA, {"schema": other_table.schema}).one()
    catalog = read_catalog_table(connection, other_table, schema.name) if schema.is_there else None
    if catalog is None:
        raise ConfigurationError(
            f"--table {other_table.name}: schema {schema.name} has no such table or view. Names"
            " are compared letter by letter, and one without a schema is looked for in DB_SCHEMA"
        )
    # by oid: two names may mean one table
    our_oid = connection.execute(text(f"SELECT {REGCLASS}::oid")).scalar_one()
    if catalog.oid == our_oid:
        raise ConfigurationError(
            f"--table {other_table.name} is our own metrics table (METRICS_TABLE): name the other"
            " job's"
        )
    _require_readable(connection, catalog, may_use=schema.may_use, schema=schema.name)
    for name, kinds in KEY_TYPES.items():
        kind = catalog.columns[name].type if name in catalog.columns else "missing"
        if kind not in kinds:
            raise SchemaMismatch(
                f"column {catalog.name}.{name} is {kind}, expected {kinds[0]}: rows are compared by"
                " pool_id and date. Compare a view that has both"
            )
    return catalog


def _require_readable(
    connection: Connection, catalog: CatalogTable, *, may_use: bool, schema: str
) -> None:
    role = connection.execute(text("SELECT quote_ident(current_user)")).scalar_one()
    grants = [] if may_use else [f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {role};"]
    columns = [name for name in (*KEY_TYPES, *METRIC_COLUMNS) if name in catalog.columns]
    if any("SELECT" not in catalog.columns[name].rights for name in columns):
        grants.append(f"GRANT SELECT ON {catalog.name} TO {role};")
    if grants:
        raise DatabaseRefused(
            f"role {role} may not read {catalog.name}. As its owner run: {' '.join(grants)}"
        )


def _precisions(
    connection: Connection, other_table: Table, catalog: CatalogTable, tolerance: str | None
) -> dict[str, Precision]:
    """Return the precision of each column that both tables have as numbers."""
    metrics_table = metrics_table_of(connection)
    limit = None if tolerance is None else _tolerance(tolerance)
    stored = [_stored_types(connection, table) for table in (metrics_table, other_table)]
    precisions = {}
    for name in METRIC_COLUMNS:
        if name not in catalog.columns or catalog.columns[name].type not in NUMBERS:
            continue
        # the coarser of both scales: finer decimals of one side mean nothing
        scale = min(_scale(types[name], metrics_table.c[name].type) for types in stored)
        slack = Decimal(1).scaleb(-scale) if limit is None else limit
        is_wide = _digits(stored[1][name]) > WIDEST
        precisions[name] = Precision(scale, f"{slack:f}::numeric", is_wide)
    if not precisions:
        raise SchemaMismatch(
            f"{catalog.name} has none of the metric columns as a number:"
            f" {', '.join(METRIC_COLUMNS)}"
        )
    return precisions


def _stored_types(connection: Connection, table: Table) -> dict[str, str]:
    return {row.name: row.type for row in connection.exec_driver_sql(stored_types(table))}


def _scale(stored: str, default: Any) -> int:
    """Return the decimals of a type; those of `default` if it is no numeric(p,s) or integer."""
    if fixed := FIXED.fullmatch(stored):
        return int(fixed[2])
    return 0 if stored in ("bigint", "integer", "smallint") else int(default.scale)


def _digits(stored: str) -> float:
    """Return the largest number of digits of a type, before and after the point."""
    if fixed := FIXED.fullmatch(stored):
        return int(fixed[1]) + abs(int(fixed[2]))
    return math.inf if stored in ("numeric", "double precision") else 0


def _tolerance(value: str) -> Decimal:
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or not (number == 0 or LEAST <= number <= MOST):
        raise ConfigurationError(
            f"--tolerance {value!r} is no difference: give 0 or a number from 1e-30 to 1e30, in the"
            " unit of each column (percent, USD, gwei)"
        )
    return number


def _require_one_row_a_day(connection: Connection, other_table: CatalogTable) -> None:
    """Raise SchemaMismatch for rows without pool or day, and for two rows of one day."""
    without_key = connection.exec_driver_sql(
        f"SELECT count(*) FROM {other_table.name} WHERE pool_id IS NULL OR date IS NULL"
    ).scalar_one()
    if without_key:
        raise SchemaMismatch(
            f"{other_table.name} has {without_key} rows without pool_id or date, and rows are"
            " compared by both: delete them, or compare a view that leaves them out"
        )
    if is_unique(connection, other_table, list(KEY_TYPES)):
        return
    row = connection.exec_driver_sql(f"""
    SELECT pool_id, date, count(*) AS rows
    FROM {other_table.name}
    GROUP BY pool_id, date
    HAVING count(*) > 1
    LIMIT 1""").first()
    if row is not None:
        raise SchemaMismatch(
            f"{other_table.name} has {row.rows} rows of pool {row.pool_id} and day {row.date}, and"
            " one can be compared: keep one, or compare a view that chooses"
        )


def _summary(counts: Mapping[str, int], sides: Sides) -> dict[str, Any]:
    """Return rows, columns and rules from the counts by signature."""
    # names and letters alone are used, so the conditions need no table
    rules = {
        name: column_rules(name, "", precision) for name, precision in sides.precisions.items()
    }
    our_rules, their_rules = our_row_rules(), their_row_rules("", {})
    both, only_ours, only_theirs = 0, Counter[str](), Counter[str]()
    kinds: dict[str, Counter[str]] = {name: Counter() for name in sides.columns}
    rule_counts: dict[str, Counter[str]] = {name: Counter() for name in sides.columns}
    for signature, count in counts.items():
        if signature[0] == OURS_ALONE:
            only_ours[_name(our_rules, signature[1])] += count
            continue
        if signature[0] == THEIRS_ALONE:
            only_theirs[_name(their_rules, signature[1])] += count
            continue
        both += count
        for name, code in _codes(signature, sides).items():
            kinds[name][code.kind.name] += count
            if code.kind not in (Kind.equal, Kind.both_null):
                rule_counts[name][_name(rules[name], code.letter)] += count
    counters = (only_ours, only_theirs, *rule_counts.values())
    used = set[str]().union(*counters)
    meanings: dict[str, str] = {}
    for group in (*rules.values(), our_rules, their_rules):
        meanings |= {rule.name: rule.meaning for rule in group if rule.name in used}
    columns = {}
    for name in sides.columns:
        kind_counts = {kind.name: kinds[name][kind.name] for kind in Kind}
        columns[name] = kind_counts | {"rules": dict(rule_counts[name])}
    return {
        "rows": {"both": both, "only_ours": dict(only_ours), "only_theirs": dict(only_theirs)},
        "columns": columns,
        "rules": meanings,
        "unexplained": sum(counter[UNEXPLAINED] for counter in counters),
    }


def _name(rules: Sequence[Rule], letter: str) -> str:
    return next((rule.name for rule in rules if rule.letter == letter), UNEXPLAINED)


class _Code(NamedTuple):
    kind: Kind
    letter: str


def _codes(signature: str, sides: Sides) -> dict[str, _Code]:
    # two characters for each column: kind and rule
    kinds, letters = signature[::2], signature[1::2]
    return {
        name: _Code(Kind(kind), letter)
        for name, kind, letter in zip(sides.columns, kinds, letters, strict=True)
    }


def _read_examples(
    connection: Connection, sides: Sides, parameters: Mapping[str, Any], limit: int
) -> list[dict[str, Any]]:
    """Return the first unexplained values, as `compare_tables` does."""
    query = text(unexplained_rows(sides))
    rows = connection.execute(query, {**parameters, "limit": limit}).mappings()
    examples = []
    for row in rows.all():
        examples += _examples(dict(row), sides)
    # a row may have several unexplained values
    return examples[:limit]


def _examples(row: dict[str, Any], sides: Sides) -> list[dict[str, Any]]:
    """Return the unexplained values of a row; for a row of one table alone, the row."""
    where = {"pool_id": row["pool_id"], "date": row["date"]}
    signature = row["signature"]
    if signature[0] in (OURS_ALONE, THEIRS_ALONE):
        is_ours = signature[0] == OURS_ALONE
        return [where | {"column": None, "ours": _there(is_ours), "theirs": _there(not is_ours)}]
    return [
        where
        | {"column": name, "ours": _number(row[f"m_{name}"]), "theirs": _number(row[f"t_{name}"])}
        for name, code in _codes(signature, sides).items()
        if code.letter == NO_RULE
    ]


def _there(is_there: bool) -> str:
    return "a row" if is_there else "no row"


def _number(value: Decimal | None) -> float | str | None:
    """Return a JSON value; JSON has no infinite number."""
    if value is None:
        return None
    return float(value) if value.is_finite() else str(value)
