"""Compares our metrics with another table's, row by row and column by column.

In: the metrics table, what YieldSpark keeps about it, and the other table, which is only read. Out:
counts by column, kind and rule, and the first rows that no rule explains, as plain values. One
statement counts, in PostgreSQL; a second one runs only where something is unexplained. No Spark.
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
    rules_of,
    rules_of_our_rows,
    rules_of_their_rows,
)
from data_processing.planning.last_run import last_good_run
from data_processing.planning.plan import JOB
from database.connections.engine import checked_connection
from database.schema.catalog import CatalogTable, is_unique, read_catalog_table
from database.schema.merge_sql import qualified, quoted, stored_types
from database.schema.metrics_table import REGCLASS, metrics_table_of, require_same_metrics_table
from database.schema.own_schema import SCHEMA
from database.schema.tables import METRIC_COLUMNS

NAME = re.compile(r"(?:([A-Za-z_][A-Za-z0-9_$]*)\.)?([A-Za-z_][A-Za-z0-9_$]*)")

SHOWN_ROWS = 20

KEY_TYPES = {"pool_id": ("text", "character varying", "character"), "date": ("date",)}

FIXED = re.compile(r"numeric\((\d+),(-?\d+)\)")

WIDEST = 100
"""Digits of a decimal up to which the square of its values is well inside a double's range."""

LEAST, MOST = Decimal("1e-30"), Decimal("1e30")
"""Bounds of a tolerance other than 0."""

NUMBERS = {"numeric", "double precision", "real", "bigint", "integer", "smallint"}


@dataclass(frozen=True)
class Comparison:
    """What to compare: the other table as `NAME` or `SCHEMA.NAME`; days [start, end) and pools,
    None for all; `tolerance` up to which values are equal, in each column's own unit, None for one
    unit of the last decimal that both tables store; how many unexplained values to list.
    """

    table: str
    tolerance: str | None = None
    pools: Sequence[str] | None = None
    start: date | None = None
    end: date | None = None
    shown: int = SHOWN_ROWS


def compare_tables(engine: Engine, asked: Comparison) -> dict[str, Any]:
    """Returns: `ours` and `theirs` (names), `run_end` (the day after the last one that our last run
    computed), `rows` {both, only_ours and only_theirs by rule}, `columns` {name: {equal, both_null,
    different, only_ours, only_theirs, rules}}, `rules` {name: words}, `not_compared` (columns that
    the other table lacks or has as something else than numbers), `unexplained` (values and rows)
    and `examples` of them: [{pool_id, date, column, ours, theirs}].

    Raises: ConfigurationError for a table that is missing, no table's name, or ours;
    DatabaseRefused with the GRANT statement where it can't be read; SchemaMismatch where it has no
    key or nothing to compare; NotEnoughHistory before the first metrics run.
    """
    with checked_connection(
        engine.execution_options(isolation_level="REPEATABLE READ")
    ) as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        # compiling the conditions takes seconds, and saves little of a pass over millions of rows
        connection.exec_driver_sql("SET LOCAL jit = off")
        require_same_metrics_table(connection)
        previous = last_good_run(connection, JOB)
        if previous is None:
            raise NotEnoughHistory(
                "compare: no run of `calculate_metrics` has ended well yet, so there is nothing to"
                " compare with. Run `calculate_metrics`, then compare"
            )
        theirs = _their_table(connection, asked.table)
        ours, facts = metrics_table_of(connection), _readable_facts(connection, theirs)
        precisions = _precisions(connection, theirs, facts, asked.tolerance)
        sides = Sides(qualified(ours), qualified(theirs), precisions)
        _require_one_row_a_day(connection, facts)
        parameters = {
            "pools": list(asked.pools) if asked.pools is not None else None,
            "first": asked.start,
            "end": asked.end,
            "run_end": previous.end,
        }
        counted = connection.execute(text(counts_by_signature(sides)), parameters).all()
        document = _document({row.signature: row.rows for row in counted}, sides)
        examples = (
            connection.execute(text(unexplained_rows(sides)), parameters | {"limit": asked.shown})
            .mappings()
            .all()
            if document["unexplained"]
            else []
        )
    shown = [example for row in examples for example in _examples(dict(row), sides)]
    return {
        "ours": ours.name,
        "theirs": facts.name,
        "run_end": previous.end.isoformat(),
        **document,
        "not_compared": [name for name in METRIC_COLUMNS if name not in sides.columns],
        "examples": shown[: asked.shown],
    }


def _their_table(connection: Connection, name: str) -> Table:
    """Raises: ConfigurationError for no table's name."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ConfigurationError(
            f"--table {name!r} is no table's name: give NAME, or SCHEMA.NAME for one in another"
            " schema than DB_SCHEMA"
        )
    schema = connection.execute(SCHEMA, {"schema": found[1]}).one()
    return Table(found[2], MetaData(), schema=schema.name)


def _readable_facts(connection: Connection, theirs: Table) -> CatalogTable:
    """Raises: ConfigurationError for a table that is missing or ours, DatabaseRefused for one that
    the role may not read, SchemaMismatch for one without pool_id and date.
    """
    schema = connection.execute(SCHEMA, {"schema": theirs.schema}).one()
    facts = read_catalog_table(connection, theirs, schema.name) if schema.is_there else None
    if facts is None:
        raise ConfigurationError(
            f"--table {theirs.name}: schema {schema.name} has no such table or view. Names are"
            " compared letter by letter, and one without a schema is looked for in DB_SCHEMA"
        )
    own = connection.execute(text(f"SELECT {REGCLASS}::oid")).scalar_one()
    if facts.oid == own:
        raise ConfigurationError(
            f"--table {theirs.name} is our own metrics table (METRICS_TABLE): name the other job's"
        )
    _require_readable(connection, facts, may_use=schema.may_use, schema=schema.name)
    for name, kinds in KEY_TYPES.items():
        kind = facts.columns[name].type if name in facts.columns else "missing"
        if kind not in kinds:
            raise SchemaMismatch(
                f"column {facts.name}.{name} is {kind}, expected {kinds[0]}: rows are compared by"
                " pool_id and date. Compare a view that has both"
            )
    return facts


def _require_readable(
    connection: Connection, facts: CatalogTable, *, may_use: bool, schema: str
) -> None:
    role = connection.execute(text("SELECT quote_ident(current_user)")).scalar_one()
    grants = [] if may_use else [f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {role};"]
    wanted = [name for name in (*KEY_TYPES, *METRIC_COLUMNS) if name in facts.columns]
    if any("SELECT" not in facts.columns[name].rights for name in wanted):
        grants.append(f"GRANT SELECT ON {facts.name} TO {role};")
    if grants:
        raise DatabaseRefused(
            f"role {role} may not read {facts.name}. As its owner run: {' '.join(grants)}"
        )


def _precisions(
    connection: Connection, theirs: Table, facts: CatalogTable, tolerance: str | None
) -> dict[str, Precision]:
    """Of the columns that both have, as numbers."""
    ours = metrics_table_of(connection)
    given = None if tolerance is None else _tolerance(tolerance)
    stored = [
        {row.name: row.type for row in connection.exec_driver_sql(stored_types(table))}
        for table in (ours, theirs)
    ]
    precisions = {}
    for name in METRIC_COLUMNS:
        if name not in facts.columns or facts.columns[name].type not in NUMBERS:
            continue
        scale = min(_scale(types[name], ours.c[name].type) for types in stored)
        slack = Decimal(1).scaleb(-scale) if given is None else given
        is_wide = _digits(stored[1][name]) > WIDEST
        precisions[name] = Precision(scale, f"{slack:f}::numeric", is_wide)
    if not precisions:
        raise SchemaMismatch(
            f"{facts.name} has none of the metric columns as a number: {', '.join(METRIC_COLUMNS)}"
        )
    return precisions


def _scale(stored: str, ours: Any) -> int:
    """Decimals of numeric(p,s); integers have none, other numbers as many as `ours`."""
    if found := FIXED.fullmatch(stored):
        return int(found[2])
    return 0 if stored in ("bigint", "integer", "smallint") else int(ours.scale)


def _digits(stored: str) -> float:
    """How many digits a type holds before and behind the point together, at most."""
    if found := FIXED.fullmatch(stored):
        return int(found[1]) + abs(int(found[2]))
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


def _require_one_row_a_day(connection: Connection, theirs: CatalogTable) -> None:
    """Raises: SchemaMismatch for rows without pool or day, and for two rows of one day."""
    without_key = connection.exec_driver_sql(
        f"SELECT count(*) FROM {theirs.name} WHERE pool_id IS NULL OR date IS NULL"
    ).scalar_one()
    if without_key:
        raise SchemaMismatch(
            f"{theirs.name} has {without_key} rows without pool_id or date, and rows are compared"
            " by both: delete them, or compare a view that leaves them out"
        )
    if is_unique(connection, theirs, list(KEY_TYPES)):
        return
    row = connection.exec_driver_sql(
        f"SELECT pool_id, date, count(*) AS rows FROM {theirs.name} GROUP BY pool_id, date HAVING"
        " count(*) > 1 LIMIT 1"
    ).first()
    if row is not None:
        raise SchemaMismatch(
            f"{theirs.name} has {row.rows} rows of pool {row.pool_id} and day {row.date}, and one"
            " can be compared: keep one, or compare a view that chooses"
        )


def _document(counts: Mapping[str, int], sides: Sides) -> dict[str, Any]:
    """Rows, columns and rules from the counts by signature."""
    rules = {name: rules_of(name, "", precision) for name, precision in sides.precisions.items()}
    ours, theirs = rules_of_our_rows(), rules_of_their_rows("", {})
    both, only_ours, only_theirs = 0, Counter[str](), Counter[str]()
    kinds: dict[str, Counter[str]] = {name: Counter() for name in sides.columns}
    why: dict[str, Counter[str]] = {name: Counter() for name in sides.columns}
    for signature, count in counts.items():
        if signature[0] == OURS_ALONE:
            only_ours[_name(ours, signature[1])] += count
            continue
        if signature[0] == THEIRS_ALONE:
            only_theirs[_name(theirs, signature[1])] += count
            continue
        both += count
        for name, code in _codes(signature, sides).items():
            kinds[name][code.kind.name] += count
            if code.kind not in (Kind.equal, Kind.both_null):
                why[name][_name(rules[name], code.letter)] += count
    sums = (only_ours, only_theirs, *why.values())
    known = [rule for group in (*rules.values(), ours, theirs) for rule in group]
    return {
        "rows": {"both": both, "only_ours": dict(only_ours), "only_theirs": dict(only_theirs)},
        "columns": {
            name: {kind.name: kinds[name][kind.name] for kind in Kind} | {"rules": dict(why[name])}
            for name in sides.columns
        },
        "rules": {rule.name: rule.words for rule in known if any(rule.name in one for one in sums)},
        "unexplained": sum(counted[UNEXPLAINED] for counted in sums),
    }


def _name(rules: Sequence[Rule], letter: str) -> str:
    return next((rule.name for rule in rules if rule.letter == letter), UNEXPLAINED)


class _Code(NamedTuple):
    kind: Kind
    letter: str


def _codes(signature: str, sides: Sides) -> dict[str, _Code]:
    kinds, letters = signature[::2], signature[1::2]
    return {
        name: _Code(Kind(kind), letter)
        for name, kind, letter in zip(sides.columns, kinds, letters, strict=True)
    }


def _examples(row: dict[str, Any], sides: Sides) -> list[dict[str, Any]]:
    """The values of a row that no rule explains; of a row that one table alone has, the row."""
    where = {"pool_id": row["pool_id"], "date": row["date"]}
    signature = row["signature"]
    if signature[0] in (OURS_ALONE, THEIRS_ALONE):
        ours = signature[0] == OURS_ALONE
        return [where | {"column": None, "ours": _there(ours), "theirs": _there(not ours)}]
    return [
        where
        | {"column": name, "ours": _number(row[f"m_{name}"]), "theirs": _number(row[f"t_{name}"])}
        for name, code in _codes(signature, sides).items()
        if code.letter == NO_RULE
    ]


def _there(is_there: bool) -> str:
    return "a row" if is_there else "no row"


def _number(value: Decimal | None) -> float | str | None:
    """JSON has no infinite number."""
    if value is None:
        return None
    return float(value) if value.is_finite() else str(value)
